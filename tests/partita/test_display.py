"""What is shown while a session runs fits its terminal; logs hold whole lines; a paused session shows what it has."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from types import SimpleNamespace

import pytest

from agents.prompt_sets import shipped_set
from graphs.progress import Progress
from graphs.scheduling import Scheduler
from partita.display import _spent
from partita.estimate import Job, estimate
from partita.evaluation import score_labels
from partita.prices import Price
from partita.watch import Watch
from tests.command_line import ROOT
from tests.partita.test_sessions import run
from tests.truth import Truth, numbers, serving


def on_a_terminal(cli, width: int, *words: object) -> tuple[int, list[str]]:
    """(exit code, what stood on stderr, a terminal of this width) of a command."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PARTITA_", "OPENAI_")) and k != "COLUMNS"}
    environment = kept | {"PARTITA_DB": cli.db, "PYTHONPATH": str(ROOT), "TERM": "xterm", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "partita", *map(str, words)]
    process = subprocess.Popen(
        command, cwd=cli.folder, env=environment, stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # it has ended
            break
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return process.wait(60), [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.fixture
def truth():
    with serving(Truth(numbers(60, 5), latency=0.2)) as t:
        yield t


@pytest.mark.parametrize("width", [60, 80, 120])
def test_progress_fits_and_its_clock_runs(cli, truth, tmp_path, width):
    code, lines = on_a_terminal(cli, width, *run(truth.write(tmp_path / "c"), truth))
    assert code == 0
    live = [line for line in lines if "━" in line and re.search(r"(describing|placing) items", line)]
    assert live and all(len(line) <= width and "…" not in line for line in live)
    assert all(re.search(r" \d+/60 ·", line) for line in live)
    clocks = [line.rpartition(" ")[2] for line in live]
    assert all(re.fullmatch(r"\d+:\d\d", clock) for clock in clocks) and clocks[-1] > clocks[0]
    if width >= 80:
        assert any(re.search(r"\d+ of ~\d+ calls", line) for line in live)


def far(stage: str, done: int, calls: int) -> str:
    """How far a session of 149 items is told to be after a while."""
    price = Price(0.0, 0.0)
    would = estimate(
        Job(
            prompts=shipped_set("suit"), items=149, distinct=149, item_tokens=700.0, price=price, embed_price=price
        )
    )  # fmt: skip
    watch = Watch(Progress(stage=stage, done=done, total=149, calls=calls))
    return " · ".join(_spent(watch, [would], time.monotonic() - 60))


def test_time_that_is_left_is_told_while_the_calls_may_be_enough():
    assert re.search(r"100/149 · 250 of ~\d+ calls · ~\d:\d\d left", far("traverse", 100, 250))
    assert "386 of ~" in far("traverse", 6, 386) and "left" not in far("traverse", 6, 386)
    assert "left" in far("describe", 100, 100) and "left" in far("merge", 3, 350)
    assert "1,458 calls" in far("traverse", 149, 1458) and "left" not in far("traverse", 149, 1458)


def test_items_that_lose_their_places_take_no_progress_back():
    shown = Progress(stage="traverse", total=149)
    told = []
    for placed in (10, 2, 8, 12):
        search = SimpleNamespace(placed=placed, founded=placed // 2)
        Scheduler._show_progress(SimpleNamespace(asker=SimpleNamespace(progress=shown), search=search))
        told.append((shown.done, shown.clusters))
    assert told == [(10, 5), (10, 1), (10, 4), (12, 6)]


def test_what_is_told_elsewhere_stands_on_whole_lines(cli, truth, tmp_path):
    done = cli(*run(truth.write(tmp_path / "c"), truth), "--max-cost", 0.001)
    told = next(line for line in done.err.splitlines() if line.startswith("expected: "))
    assert "assumed, as no call of this model is in this database yet" in told and len(told) > 100
    assert any(line.startswith("no price of truth") and line.endswith("prices.yaml") for line in done.err.splitlines())


def test_a_paused_session_shows_its_clusters_and_how_to_go_on(cli, truth, tmp_path):
    truth.latency = 0
    words = [word for word in run(truth.write(tmp_path / "c"), truth) if word != "--json"]
    done = cli(*words, "--max-calls", 90)
    assert done.code == 3 and "60 items by 'kind'" in done.out and "is paused" in done.out
    assert "partita resume s" in done.err.splitlines()[-1]
    again = cli("resume", "s", "--max-calls", 50)
    assert again.code == 3 and "90 of about" in again.err and "described" not in again.err
    assert "90 calls are made already: --max-calls 50 allows no more" in again.err
    assert len(truth.asked) == 90 + 60


def test_resume_at_an_endpoint_with_another_model(cli, truth, tmp_path, monkeypatch):
    truth.latency = 0
    assert cli(*run(truth.write(tmp_path / "c"), truth), "--max-calls", 30, "--model", "truth").code == 3
    from storage.database import open_database
    from storage.sessions import load_session, update_session

    with open_database(cli.db) as db:
        record = load_session(db, "s")
        update_session(db, record.id, parameters=record.parameters | {"model": "gpt-9"})
    done = cli("resume", "s")
    assert done.code == 4 and "'gpt-9'" in done.err and "begin a new session" in done.err
    assert "--model" not in done.err


def test_a_perfect_score_is_one():
    found = [i % 7 for i in range(100)]
    score = score_labels(found, [f"class {i}" for i in found])
    assert (score.nmi, score.ri, score.ari, score.accuracy, score.v_measure) == (1, 1, 1, 1, 1)
