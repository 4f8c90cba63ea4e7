"""Whole sessions from the command line against an endpoint that knows the truth, over HTTP."""

from __future__ import annotations

import csv
import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from storage.database import open_database
from storage.ledger import Ledger
from storage.sessions import load_session
from tests.graphs.reference import component_agent, merge_agent
from tests.truth import Truth, numbers, serving


def run(collection: Path, truth: Truth, session: str = "s", policy: str = "evidence") -> tuple[object, ...]:
    return ("run", collection, "--by", "kind", "--endpoint", truth.url, "--embed-mode", "native", "--policy", policy,
            "--session", session, "--json")  # fmt: skip


policies = pytest.mark.parametrize("policy", ["evidence", "paper"])


def partition(result) -> set[frozenset[str]]:
    return {frozenset(c["items"]) for c in result["clusters"]}


def traced(cli, session: str) -> list[str]:
    """What was asked, answered and decided, without what depends on timing; a question's number is its place."""
    rows = [json.loads(row) for row in cli("trace", session, "--json").out.splitlines()]
    told = ("kind", "component", "step", "representatives", "candidates", "clusters", "conclusion", "odds", "decisions")
    return sorted(json.dumps({name: row.get(name) for name in told}, sort_keys=True) for row in rows)


@pytest.fixture
def truth():
    with serving(Truth(numbers(60, 5))) as t:
        yield t


@policies
def test_finds_the_classes_and_tells_why(cli, truth, tmp_path, policy):
    folder = truth.write(tmp_path / "c")
    done = cli(*run(folder, truth, policy=policy))
    assert done.code == 0, done.err
    result = done.json
    assert result["status"] == "done" and result["items"] == 60 and len(result["clusters"]) == 5
    assert [c["id"] for c in result["clusters"]] == [1, 2, 3, 4, 5]
    assert {c["name"] for c in result["clusters"]} == {"ax", "bx", "cx", "dx", "ex"}
    asked = Counter(kind for kind, _ in truth.asked)
    assert {k: result["calls"][k] for k in ("describe", "embed", "membership", "merge")} == asked

    score = cli("score", "s", "--labels", folder / "labels.csv", "--column", "kind", "--json").json
    assert score["nmi"] == pytest.approx(1) and score["clusters"] == score["classes"] == 5 and score["items"] == 60
    assert score["calls_per_item"] == pytest.approx((asked["membership"] + asked["merge"]) / 60)

    rows = cli("trace", "s", "--json").out.splitlines()
    assert len(rows) == asked["membership"] + asked["merge"]
    odds = [json.loads(row)["odds"] for row in rows]
    assert all(isinstance(o, float) for o in odds) if policy == "evidence" else odds == [None] * len(rows)
    item = result["clusters"][0]["items"][0]
    assert 0 < len(cli("trace", "s", "--json", "--item", item).out.splitlines()) < len(rows)
    assert item in cli("trace", "s", "--item", item).out

    assert cli("export", "s", "--to", tmp_path / "out.csv").code == 0
    with (tmp_path / "out.csv").open() as f:
        exported = list(csv.DictReader(f))
    assert {(r["item"], int(r["cluster"])) for r in exported} == {
        (i, c["id"]) for c in result["clusters"] for i in c["items"]
    }
    sure = {r["item"]: r["confidence"] for r in exported}
    if policy == "evidence":
        told = {i: p for c in result["clusters"] for i, p in zip(c["items"], c["confidence"], strict=True)}
        assert {i: float(p) for i, p in sure.items()} == told and all(0 < p <= 1 for p in told.values())
    else:
        assert set(sure.values()) == {""} and "confidence" not in result["clusters"][0]
    assert cli("export", "s", "--to", tmp_path / "folders").code == 0
    assert len(list((tmp_path / "folders").glob("*/*.png"))) == 60

    assert cli("show", "s", "--json", "--picture", tmp_path / "p.png").json == result
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "s" in cli("sessions").out
    before = len(truth.asked)
    assert cli("resume", "s", "--json").json["clusters"] == result["clusters"]
    assert len(truth.asked) == before


def test_questions_are_those_of_algorithm_1(cli, truth, tmp_path):
    """The ledger of a real session against the plain reference on the session's own graph."""
    from graphs.relational import RelationalGraph
    from storage import artefacts

    truth.noise = 1.5
    done = cli(*run(truth.write(tmp_path / "c"), truth, policy="paper"))
    assert done.code == 0, done.err
    with open_database(cli.db) as db:
        record = load_session(db, "s")
        with Ledger(db, record.id) as ledger:
            answers = sorted(ledger.load().values(), key=lambda a: (a.component or 0, a.step or 0))
        graph = RelationalGraph.from_bytes(artefacts.get(db, record.id, "graph"))
    kinds = list(truth.kinds.values())  # node i is image i

    def major(nodes):
        of = [kinds[v] for v in nodes]
        return max(sorted(set(of)), key=of.count)

    def answer(question):
        a, b = question[0], question[1]
        return "YES" if major(a) == major([b] if isinstance(b, int) else b) else "NO"

    plain, finished = graph.to_networkx(), []
    for number, nodes in enumerate(graph.components()):
        clusters, questions = component_agent(plain, nodes, 3, answer)
        finished += clusters
        asked = [a.subject for a in answers if a.kind == "membership" and a.component == number]
        assert [(tuple(s["representatives"]), s["candidates"][0], 0) for s in asked] == list(dict.fromkeys(questions))
    expected, questions = merge_agent(plain, finished, 3, answer)
    asked = [a.subject["clusters"] for a in answers if a.kind == "merge"]
    assert [(tuple(a), tuple(b), 0) for a, b in asked] == questions
    assert {frozenset(f"images/{v:04d}.png" for v in c) for c in expected} == partition(done.json)


@policies
def test_kill_and_resume_repeat_no_finished_call(any_cli, truth, tmp_path, policy):
    cli = any_cli
    folder = truth.write(tmp_path / "c")
    truth.noise, truth.error = 1.2, 0.05
    whole = cli(*run(folder, truth, "whole", policy)).json
    questions = traced(cli, "whole")
    truth.latency = 0.02
    calls, rng = len(truth.asked), random.Random(5)
    truth.asked.clear()
    finished: set[str] = set()
    process = cli.start(*run(folder, truth, policy=policy))
    kills = 0
    while True:
        target = len(truth.asked) + rng.randint(5, calls // 4)
        while process.poll() is None and len(truth.asked) < target:
            time.sleep(0.005)
        process.kill()
        _, err = process.communicate()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, err
            break
        kills += 1
        with open_database(cli.db) as db, Ledger(db, load_session(db, "s").id) as ledger:
            finished |= ledger.load().keys()
        seen = len(truth.asked)
        process = cli.start("resume", "s", "--json")
        while process.poll() is None and len(truth.asked) == seen:
            time.sleep(0.005)
        assert not finished & {key for _, key in truth.asked[seen:]}
    assert kills >= 3
    repeated = Counter(key for _, key in truth.asked)
    assert sum(n - 1 for n in repeated.values()) <= kills * 32  # those in flight at a kill
    result = cli("show", "s", "--json").json
    assert result["status"] == "done" and result["clusters"] == whole["clusters"]
    assert traced(cli, "s") == questions


def test_faults_are_survived_and_the_key_is_in_no_file(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    truth.key = "canary-5f1e77"
    kinds = ["429", "500", "html", "half", "vague", "silence"]
    truth.fault = lambda n: kinds[n // 10 % 6] if n % 10 == 0 else None
    done = cli(*run(folder, truth), "--request-timeout", 1, PARTITA_API_KEY=truth.key)
    assert done.code == 0, done.err
    assert len(done.json["clusters"]) == 5
    assert done.json["calls"]["retries"] > 0 and done.json["calls"]["unknown"] > 0
    assert truth.key not in done.out + done.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or truth.key.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_pauses_and_resume_goes_on(cli, truth, tmp_path, number):
    folder = truth.write(tmp_path / "c")
    truth.latency = 0.03
    process = cli.start(*run(folder, truth))
    while len(truth.asked) < 150 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "partita resume s" in err and "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["status"] == "paused"
    assert cli("show", "s", "--json").json["status"] == "paused"
    done = cli("resume", "s", "--json")
    assert done.code == 0 and len(done.json["clusters"]) == 5
    assert max(Counter(key for _, key in truth.asked).values()) == 1  # those in flight were waited for


@policies
def test_a_budget_of_calls_is_never_passed_and_leaves_a_partition(cli, truth, tmp_path, policy):
    folder = truth.write(tmp_path / "c")
    whole = cli(*run(folder, truth, "whole", policy)).json
    truth.asked.clear()
    done = cli(*run(folder, truth, policy=policy), "--max-calls", 40)
    assert done.code == 3 and "--max-calls" in done.err
    assert done.json["clusters"] == []  # not even every item is described
    assert "no partition yet" in cli("export", "s", "--to", tmp_path / "none.csv").err
    done = cli("resume", "s", "--json", "--max-calls", 90)
    assert done.code == 3
    chat = [k for k, _ in truth.asked if k != "embed"]
    assert len(chat) == 90
    assert done.json["status"] == "paused" and sum(c["size"] for c in done.json["clusters"]) == 60
    assert cli("export", "s", "--to", tmp_path / "so-far.csv").code == 0
    score = cli("score", "s", "--labels", folder / "labels.csv", "--column", "kind", "--json").json
    assert score["items"] == 60 and score["nmi"] > 0.5
    done = cli("resume", "s", "--json", "--max-calls", 10_000)
    assert done.code == 0 and done.json["clusters"] == whole["clusters"]
    assert max(Counter(key for _, key in truth.asked).values()) == 1


def test_a_budget_of_money_is_never_passed(cli, truth, tmp_path):
    """Every call of this endpoint counts 90 + 10 tokens, an embedding 1."""
    prices = tmp_path / "prices.yaml"
    prices.write_text("prices: {truth: {input: 10, output: 10}}\n")  # 0.001 USD a call
    folder = truth.write(tmp_path / "c")
    done = cli(*run(folder, truth), "--max-cost", 0.1, PARTITA_PRICES=str(prices))
    assert done.code == 3 and "--max-cost" in done.err
    chat = [k for k, _ in truth.asked if k != "embed"]
    assert 85 <= len(chat) <= 99  # and 60 embeddings of 0.00001 USD
    assert sum(c["size"] for c in done.json["clusters"]) == 60
    done = cli("resume", "s", "--json", "--max-cost", 1, PARTITA_PRICES=str(prices))
    assert done.code == 0 and len(done.json["clusters"]) == 5
    assert max(Counter(key for _, key in truth.asked).values()) == 1


def test_a_model_without_a_price_is_taken_for_a_dear_one(cli, truth, tmp_path):
    done = cli(*run(truth.write(tmp_path / "c"), truth), "--max-cost", 0.01)
    assert done.code == 3 and "no price of truth is known" in done.err and "prices.yaml" in done.err
    assert 0 < len(truth.asked) < 60


def test_several_candidates_in_a_call(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    done = cli(*run(folder, truth), "--candidates", 4)
    assert done.code == 0, done.err
    assert len(done.json["clusters"]) == 5
    rows = [json.loads(row) for row in cli("trace", "s", "--json", "--kind", "membership").out.splitlines()]
    assert max(len(row["candidates"]) for row in rows) == 4 and len(rows) < 45
    for row in rows:
        assert len(row["conclusion"].split()) == len(row["candidates"])
        asked = [d["item"] for d in row["decisions"][: len(row["candidates"])]]
        assert asked == row["candidates"]
    one = cli(*run(folder, truth, "p", "paper"), "--candidates", 4)
    assert one.code == 2 and "paper" in one.err


def test_timing_and_concurrency_change_nothing(cli, tmp_path):
    """Answers are applied in the order of asking, however they come: the same questions, decisions and partition."""
    with serving(Truth(numbers(80, 5), noise=1.2, error=0.05)) as truth:
        folder = truth.write(tmp_path / "c")
        first = cli(*run(folder, truth, "first"), "--concurrency", 1).json
        truth.latency, truth.jitter = 0.02, 1.0
        second = cli.anew(*run(folder, truth, "second")).json  # with another seed of hashes, too
        assert second["clusters"] == first["clusters"]
        assert traced(cli, "second") == traced(cli, "first")


def test_an_endpoint_that_rejected_everything_may_do_better_later(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    truth.rejects = -1
    failed = cli(*run(folder, truth))
    assert failed.code == 4 and "400" in failed.err
    truth.rejects = None
    done = cli("resume", "s", "--json")
    assert done.code == 0 and len(done.json["clusters"]) == 5


def test_an_item_that_is_rejected_stands_alone_however_many_are_in_flight(cli, truth, tmp_path):
    truth.rejects, truth.latency = next(iter(truth.kinds)), 0.05
    done = cli(*run(truth.write(tmp_path / "c"), truth))
    assert done.code == 0 and sorted(c["size"] for c in done.json["clusters"])[0] == 1
    assert len(done.json["clusters"]) == 6 and "1 items could not be described" in done.err


def test_an_agent_that_errs(cli, tmp_path):
    """Ten in a hundred answers are wrong, the same ones each time: the classes are found all the same."""
    with serving(Truth(numbers(150, 4), noise=1.0, error=0.1)) as truth:
        folder = truth.write(tmp_path / "c")
        done = cli(*run(folder, truth))
    assert done.code == 0, done.err
    assert len(done.json["clusters"]) == 4
    score = cli("score", "s", "--labels", folder / "labels.csv", "--column", "kind", "--json").json
    assert score["nmi"] > 0.95
    sure = [p for c in done.json["clusters"] for p in c["confidence"]]
    assert min(sure) < 0.999 < max(sure)


def test_two_processes_never_work_on_one_session(cli, truth, tmp_path):
    truth.latency = 2
    process = cli.start(*run(truth.write(tmp_path / "c"), truth))
    while len(truth.asked) < 10:
        time.sleep(0.01)
    second = cli("resume", "s")
    assert second.code == 2 and "s" in second.err
    assert cli("show", "s", "--json").json["status"] == "running"
    process.kill()
    process.communicate()
    assert cli("show", "s", "--json").json["status"] == "paused"


def test_duplicates_are_asked_once_and_bad_files_are_listed(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    (folder / "copy.png").write_bytes((folder / "images" / "0000.png").read_bytes())
    (folder / "cut.png").write_bytes((folder / "images" / "0001.png").read_bytes()[:60])
    (folder / "empty.jpg").touch()
    (folder / "words.png").write_text("not an image")
    result = cli(*run(folder, truth)).json
    assert result["items"] == 61 and result["calls"]["describe"] == 60
    assert {f["item"] for f in result["failed_items"]} == {"cut.png", "empty.jpg", "words.png"}
    home = next(c for c in result["clusters"] if "copy.png" in c["items"])
    assert "images/0000.png" in home["items"]


def test_caption_mode(cli, tmp_path):
    with serving(Truth(numbers(40, 4))) as truth:
        folder = truth.write(tmp_path / "c")
        done = cli("run", folder, "--by", "kind", "--endpoint", truth.url, "--session", "s", "--json")
    assert done.code == 0, done.err
    assert len(done.json["clusters"]) == 4
