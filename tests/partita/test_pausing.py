"""Seeing and pausing a session that another process, or another thread, works on."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner

from partita import Session, cluster
from partita.live import Live
from partita.pausing import ask_to_pause, wait_for_pause
from partita.running import until_stopped
from partita.verbs import cli as verbs
from partita.watch import Watch
from storage.database import open_database
from storage.errors import Paused, SessionBusy, SessionError, UnknownSession
from storage.locks import session_lock
from storage.sessions import load_session, update_session, wish
from tests.partita.test_teaching import opened
from tests.truth import Truth, numbers, serving

policies = pytest.mark.parametrize("policy", ["evidence", "paper"])


class Held(Truth):
    """An endpoint that keeps whoever asks waiting, from so many answers to agents' questions on."""

    at = 10**9
    let_go = False

    async def chat(self, request):
        while not self.let_go and sum(kind in ("membership", "merge") for kind, _ in self.asked) >= self.at:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return await super().chat(request)


@pytest.fixture
def truth():
    with serving(Held(numbers(60, 5), noise=1.2, error=0.05)) as t:
        yield t


def clustered(folder, truth: Truth, db: str, session: str, **more: Any):
    return cluster(folder, "kind", endpoint=truth.url, embed_mode="native", session=session, db=db, **more)


def seen(look, wanted):
    """What is seen as soon as it is what is wanted."""
    deadline = time.monotonic() + 60
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def test_another_process_pauses_it_and_resume_repeats_nothing(any_cli, truth, tmp_path):
    cli, folder = any_cli, truth.write(tmp_path / "c")
    whole = clustered(folder, truth, cli.db, "whole")
    needed = len(truth.asked)
    truth.asked.clear()
    truth.at = 20
    asked = ("run", folder, "--by", "kind", "--endpoint", truth.url, "--embed-mode", "native", "--session", "s")
    process = cli.start(*asked, "--concurrency", 4, "--json")
    seen(truth.asked.copy, lambda asked: len(asked) >= 140)
    pausing = cli.start("pause", "s")
    with open_database(cli.db) as db:
        seen(lambda: load_session(db, "s").wish, lambda wish: wish == "pause")
        truth.latency, truth.let_go = 0.3, True
        told, asking = pausing.communicate(timeout=60)
        with session_lock(db, load_session(db, "s").id, "s"):  # nobody holds it any more
            record = load_session(db, "s")
    assert pausing.returncode == 0 and "asked session s to pause" in asking
    assert "session s is paused: asked to pause; `partita resume s` goes on from here" in told
    out, err = process.communicate(timeout=60)
    assert len(truth.asked) < needed
    assert process.returncode == 3 and "asked to pause; `partita resume s`" in err and "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["status"] == "paused"
    assert (record.status, record.wish, record.progress) == ("paused", None, None)
    truth.latency = 0
    done = Session("s", cli.db).resume()
    assert done.status == "done" and done.clusters == whole.clusters
    assert max(Counter(key for _, key in truth.asked).values()) == 1  # those in flight were waited for


def test_how_far_it_is_and_its_clusters_are_seen_while_it_runs(any_cli, truth, tmp_path, monkeypatch):
    """Also in a thread, which gets no signals: a notebook's sessions run so."""
    url, folder = any_cli.db, truth.write(tmp_path / "c")
    policy = "evidence" if url.startswith("sqlite") else "paper"
    whole = clustered(folder, truth, url, "whole", policy=policy)
    monkeypatch.setattr("partita.live.EVERY", 0.02)
    monkeypatch.setattr("graphs.so_far.EVERY", 0.02)
    monkeypatch.setattr("partita.running.GRACE", 0.2)  # the endpoint lets nobody go
    truth.asked.clear()
    truth.at = 25
    watch = Watch(on_expected=lambda would: None)
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(clustered, folder, truth, url, "s", policy=policy, watch=watch, concurrency=4)
        with open_database(url) as db:
            began = seen(lambda: run.done() or watch.progress.stage, lambda stage: stage != "start")
            assert began is not True, run.result()
            session = Session("s", url)
            result = seen(session.result, lambda r: r.progress and r.progress["calls"] >= 85 and r.clusters)
            assert result.status == "running" and sum(c.size for c in result.clusters) == 60
            far = result.progress
            assert far["stage"] == "traverse" and far["total"] == 60 and far["calls"] >= 85 and far["earlier"] == 0
            assert far["expected"] > 60 and far["at"] > load_session(db, "s").created_at.isoformat()
            assert result.to_json()["progress"] == far
            updated = load_session(db, "s").updated_at
            listed = CliRunner().invoke(verbs, ["sessions", "--db", url], env={"COLUMNS": "200"}).output
            assert "running · placing items" in listed and "/60" in listed
            rows = CliRunner().invoke(verbs, ["sessions", "--db", url, "--json"]).output.splitlines()
            assert [json.loads(row).get("progress", {}).get("stage") for row in rows] == ["traverse", None]
            shown = CliRunner().invoke(verbs, ["show", "s", "--db", url], env={"COLUMNS": "200"}).output
            assert "60 items by 'kind', as it stands so far" in shown
            assert "session s is running: placing items" in shown and " of ~" in shown
            export = tmp_path / "so-far.csv"
            assert session.export(export) == export and len(export.read_text().splitlines()) == 61
            assert load_session(db, "s").updated_at == updated  # nobody changed anything
        stopped = session.pause()
        with pytest.raises(Paused, match="asked to pause; `partita resume s` goes on"):
            run.result()
    assert stopped.status == "paused" and stopped.progress is None and "progress" not in stopped.to_json()
    assert sum(c.size for c in stopped.clusters) == 60
    truth.let_go = True
    assert session.resume().clusters == whole.clusters
    assert session.result().progress is None and load_session_of(url, "s").progress is None


def load_session_of(url: str, name: str):
    with open_database(url) as db:
        return load_session(db, name)


@policies
def test_being_looked_at_all_the_time_changes_nothing(cli, truth, tmp_path, monkeypatch, policy):
    folder = truth.write(tmp_path / "c")
    whole = clustered(folder, truth, cli.db, "whole", policy=policy)
    monkeypatch.setattr("partita.live.EVERY", 0.002)
    monkeypatch.setattr("graphs.so_far.EVERY", 0.002)
    monkeypatch.setattr("graphs.so_far.SHARE", 0)
    truth.latency, truth.jitter = 0.01, 1.0
    watched = clustered(folder, truth, cli.db, "watched", policy=policy)
    assert watched.clusters == whole.clusters and watched.calls == whole.calls
    told = ("kind", "component", "step", "representatives", "candidates", "clusters", "conclusion", "odds", "decisions")

    def traced(session: str) -> list[str]:
        rows = Session(session, cli.db).trace()
        return sorted(json.dumps({name: row.get(name) for name in told}, sort_keys=True) for row in rows)

    assert traced("watched") == traced("whole")


def test_what_a_process_that_is_gone_was_asked_pauses_no_other(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    with pytest.raises(Paused):
        clustered(folder, truth, cli.db, "s", max_calls=90)
    with open_database(cli.db) as db:  # as a kill leaves it
        record = load_session(db, "s")
        update_session(db, record.id, status="running", progress={"stage": "traverse"})
        wish(db, record.id, "pause")
    assert Session("s", cli.db).result().progress is None
    assert Session("s", cli.db).resume().status == "done"


def test_only_what_runs_can_be_paused(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    with pytest.raises(Paused):
        clustered(folder, truth, cli.db, "s", max_calls=20)
    session = Session("s", cli.db)
    with pytest.raises(SessionError, match="'s' is not running"):
        session.pause()
    with open_database(cli.db) as db:
        assert load_session(db, "s").wish is None
        with session_lock(db, load_session(db, "s").id, "s"):  # somebody who never listens
            with pytest.raises(SessionBusy, match="has not within 0 s"):
                session.pause(within=0)
            asked = ask_to_pause(db, "s")
            update_session(db, asked.id, status="running", wish=None)  # another one, who never heard of it
            with pytest.raises(SessionBusy, match="has gone on with it since"):
                wait_for_pause(db, asked)
        with pytest.raises(UnknownSession):
            ask_to_pause(db, "t")
    session.resume()
    with pytest.raises(SessionError, match="'s' is done"):
        session.pause()
    refused = cli("pause", "s")
    assert refused.code == 2 and "'s' is done" in refused.err and refused.out == ""


async def test_a_teachers_session_is_paused_likewise(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    with open_database(cli.db) as db:
        with pytest.raises(Paused, match="asked to pause; again"):
            async with opened(db, folder, truth.url) as one:
                asker = one.teacher.asker
                stopped = threading.Event()

                async def work() -> None:
                    await asyncio.to_thread(ask_to_pause, db, one.session)
                    await asyncio.to_thread(stopped.wait)
                    await one.teacher.captions(one.teacher.hashes)

                live = Live(db, one.record, asker.progress)
                await until_stopped(work(), asker, "again", live, lambda why: stopped.set())
        record = load_session(db, one.session)
        assert record.status == "paused" and record.why == "asked to pause; again" and record.progress is None
    assert truth.asked == []
