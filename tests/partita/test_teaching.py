"""The teacher's session: an endpoint that knows the truth over HTTP, or labels, asked for a training."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.prompt_sets import set_for_criterion
from partita.expected_teaching import expected_teaching
from partita.prices import FREE, Price, load_prices
from partita.result import AS_BEFORE
from partita.running import Limits
from partita.settings import make_parameters
from partita.spend import spend_of
from partita.teaching import Teaching, session_name, teaching
from storage.database import Database, open_database
from storage.errors import Paused, SessionBusy, UsageError
from storage.items import Collection, scan
from storage.ledger import tally
from storage.sessions import list_sessions, load_items, load_session
from storage.spend import Usual
from storage.trace import trace
from tests.command_line import ROOT
from tests.truth import Truth, draw, numbers, serving
from training.labels import SUPERVISED
from training.recipe import Recipe
from training.traversal import Traversed, traverse

PROMPTS = set_for_criterion("kind")


@pytest.fixture
def truth():
    with serving(Truth(numbers(40, 4))) as t:
        yield t


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path}/partita.db"


@pytest.fixture
def db(tmp_path: Path):
    with open_database(f"sqlite:///{tmp_path}/partita.db") as database:
        yield database


def opened(db: Database, folder: Path, teacher: object, found: Collection | None = None, **more: Any):
    return teaching(db, folder, found or scan(folder), "kind", PROMPTS, str(teacher), **more)


async def taught(open_session: Teaching, truth: Truth) -> tuple[dict, dict, Traversed]:
    """Everything that a training asks, once."""
    hashes = [item.content_hash for item in open_session.found.items]
    vectors = np.array([truth.vector(number) for number in truth.kinds], dtype=np.float32)[: len(hashes)]
    teacher = open_session.teacher
    captions = await teacher.captions(hashes)
    same = await teacher.same(list(combinations(hashes[:8], 2)))
    found = await traverse(
        teacher, hashes, vectors, beta=14.3, threshold=0.999, representatives=3, merges=50, noisy=0.2,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return captions, same, found


async def test_a_session_is_used_again_and_pays_for_nothing_twice(url, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    kinds = list(truth.kinds.values())
    with open_database(url) as db:
        async with opened(db, folder, truth.url) as one:
            first = await taught(one, truth)
            assert not one.teacher.supervised and load_session(db, one.session).status == "running"
            with pytest.raises(SessionBusy):
                async with opened(db, folder, truth.url):
                    pass
        captions, same, found = first
        assert len(captions) == 40 and len(same) == 28
        place = {item.content_hash: i for i, item in enumerate(one.found.items)}
        assert all(verdict == (kinds[place[a]] == kinds[place[b]]) for (a, b), verdict in same.items())
        assert {len({kinds[place[item]] for item in members}) for members in found.clusters} == {1}
        assert max(Counter(key for _, key in truth.asked).values()) == 1
        assert {kind for kind, _ in truth.asked} == {"describe", "membership", "merge"}  # no embedding
        asked = len(truth.asked)
        async with opened(db, folder, truth.url, model="truth") as again:
            assert again.session == one.session and await taught(again, truth) == first
        assert len(truth.asked) == asked
        (record,) = list_sessions(db)
        assert record.status == "done" and record.policy == "teacher" and record.name.startswith("teach-type-")
        calls = tally(db, record.id)
        assert calls["describe"] + calls["membership"] + calls["merge"] == asked
        rows = list(trace(db, record.id))
        names = {item.name for item in one.found.items}
        assert len(rows) == asked - 40 and all(set(row["candidates"]) <= names for row in rows if "candidates" in row)
        spend = spend_of(db, record.name, load_prices())
        assert spend.of_teacher and spend.total.calls == asked and spend.total.cost > 0


async def test_another_teacher_or_prompt_set_is_another_session(db, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    truth.names = ("truth", "other")
    async with opened(db, folder, truth.url) as one, opened(db, folder, truth.url, model="other") as two:
        assert one.session != two.session
    labels = folder / "labels.csv"
    async with opened(db, folder, labels) as three:
        assert three.session not in (one.session, two.session)
    labels.write_text(labels.read_text() + "\n")
    async with opened(db, folder, labels) as four:
        assert four.session != three.session
    assert len(list_sessions(db)) == 4
    words = "Shape, of the hat!"
    assert session_name(words, set_for_criterion(words), []).startswith("teach-shape-of-the-hat-")
    order, rank = (session_name(words, set_for_criterion(words), ["x"]) for words in ("order", "rank"))
    assert order == rank and order.startswith("teach-rank-")


async def test_a_collection_that_grows_keeps_its_session(db, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    async with opened(db, folder, truth.url) as one:
        await one.teacher.captions(one.teacher.hashes)
    asked = len(truth.asked)
    new = next(n for n in range(2**16) if n not in truth.kinds)
    truth.kinds[new] = 0
    draw(new).save(folder / "images" / "a_new_one.png")
    (folder / "images" / "0003.png").unlink()
    async with opened(db, folder, truth.url) as two:
        assert two.session == one.session and len(two.teacher.hashes) == 41 and len(two.found.items) == 40
        assert len(await two.teacher.captions([item.content_hash for item in two.found.items])) == 40
    assert len(truth.asked) == asked + 1
    rows = load_items(db, load_session(db, one.session).id)
    assert [row.position for row in rows] == list(range(41)) and rows[-1].node == 40


async def test_a_budget_pauses_and_the_same_training_goes_on(db, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    with pytest.raises(Paused, match="`partita train`"):
        async with opened(db, folder, truth.url, limits=Limits(max_calls=25)) as one:
            await taught(one, truth)
    record = load_session(db, one.session)
    assert len(truth.asked) == 25 and record.status == "paused" and "budget of 25 calls" in (record.why or "")
    with pytest.raises(Paused):
        async with opened(db, folder, truth.url, limits=Limits(max_cost=0.0)) as two:
            await taught(two, truth)
    assert len(truth.asked) == 25
    async with opened(db, folder, truth.url) as three:
        await taught(three, truth)
    assert load_session(db, one.session).status == "done" and load_session(db, one.session).why is None
    assert max(Counter(key for _, key in truth.asked).values()) == 1


async def test_what_goes_wrong_is_told_and_kept(db, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    with pytest.raises(ZeroDivisionError):
        async with opened(db, folder, truth.url) as one:
            raise ZeroDivisionError("in the training")
    record = load_session(db, one.session)
    assert record.status == "failed" and record.why == "in the training"


async def test_labels_stand_in_and_items_without_one_are_left_out(db, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    labels = folder / "labels.csv"
    lines = labels.read_text().splitlines()
    lines[3], lines[4] = lines[3].split(",")[0] + ",", lines[4].split(",")[0] + ", _ "
    (folder / "images" / "copy.png").write_bytes((folder / "images" / "0010.png").read_bytes())
    labels.write_text("\n".join([*lines, "images/copy.png,another kind"]) + "\n")
    async with opened(db, folder, labels) as one:
        captions, same, found = await taught(one, truth)
        assert one.teacher.supervised and len(one.found.items) == len(captions) == 37
    assert any("supervised" in note for note in one.notes)
    assert {note[-1] for note in one.notes[1:]} == {"2"} and len(one.notes) == 3
    assert sum(same.values()) > 0 and found.samples and not truth.asked
    assert next(iter(captions.values())).startswith("The type is kind ")
    spend = spend_of(db, one.session, load_prices())
    assert spend.models.keys() == {SUPERVISED} and spend.total.calls > 60
    assert spend.total.cost == spend.total.tokens == 0 and not spend.remarks and spend.line().endswith("at no cost")


@pytest.mark.parametrize(
    ("header", "column", "criterion"),
    [("file,order", "order", "rank"), ("file,Suits", "Suits", "suit"), ("file, head_pose", "head_pose", "pose"),
     ("file,shape of the hat", "shape of the hat", "by the shape of the hat"), ("file,suit,x", "x", "suit")],
)  # fmt: skip
async def test_the_column_is_the_one_that_is_called_so(db, truth, tmp_path, header, column, criterion):
    folder = truth.write(tmp_path / "c")
    width = header.count(",")
    rows = [f"images/{i:04d}.png{',' * width}value {kind}" for i, kind in enumerate(truth.kinds.values())]
    (tmp_path / "l.csv").write_text("\n".join([header, *rows]))
    given = column if column == "x" else None
    prompts = set_for_criterion(criterion)
    session = teaching(db, folder, scan(folder), criterion, prompts, str(tmp_path / "l.csv"), column=given)
    async with session as one:
        assert repr(column) in one.notes[0] and len(set(one.values.values())) == 4


@pytest.mark.parametrize(
    ("table", "column", "told"),
    [
        (None, None, ("no such file", "URL", "CSV")),
        ("file,kind\nimages/0000.png,a\nimages/0001.png,b\n", "hue", ("no column 'hue'", "there are file, kind")),
        ("file,hue,x\nimages/0000.png,a,b\n", None, ("no column is called 'kind'", "file, hue, x", "--column")),
        ("file,kind\nelsewhere.png,a\n", None, ("none of its 1 rows", "images/0000.png")),
        ("file,kind\nimages/0000.png,a\nimages/0001.png,a \n", None, ("all 2 labels are 'a'",)),
        ("file,kind\nimages/0000.png,_\n", None, ("no item has a label",)),
        ("name,kind\nimages/0000.png,a\n", None, ("no `file` column", "name, kind")),
    ],
)
async def test_labels_that_are_no_use_are_refused(db, truth, tmp_path, table, column, told):
    folder = truth.write(tmp_path / "c")
    labels = folder / "other.csv"
    if table is not None:
        labels.write_text(table)
    with pytest.raises(UsageError) as refused:
        async with opened(db, folder, labels, column=column):
            pass
    assert all(words in str(refused.value) for words in told), refused.value
    assert not list_sessions(db)


async def test_verbs_know_a_teachers_session(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    with open_database(cli.db) as db:
        async with opened(db, folder, folder / "labels.csv") as one:
            await taught(one, truth)
    shown = cli("show", one.session)
    assert shown.code == 0 and "`partita train`" in shown.out and "no clusters" in shown.out
    assert "supervised: its answers come from labels" in shown.out
    assert cli("show", one.session, "--json").json["policy"] == "teacher"
    spent = cli("spend", one.session)
    assert spent.code == 0 and "`partita train`" in spent.out and "partita resume" not in spent.out
    assert len(cli("trace", one.session, "--json").out.splitlines()) > 40
    assert "in no cluster" in cli("trace", one.session, "--item", "images/0000.png").out
    assert cli("trace", one.session, "--to", tmp_path / "spans.otlp.jsonl", "--contents").code == 0
    assert "gen_ai.input.messages" in (tmp_path / "spans.otlp.jsonl").read_text()
    resumed = cli("resume", one.session)
    assert resumed.code == 2 and "`partita train ... " in resumed.err and "--by kind" in resumed.err
    exported = cli("export", one.session, "--to", tmp_path / "out.csv")
    assert exported.code == 2 and "no clusters" in exported.err


SCRIPT = """
import asyncio, sys
from pathlib import Path
from partita.result import AS_BEFORE
from partita.running import until_stopped
from storage.database import open_database
from storage.items import scan
from tests.partita.test_teaching import opened, taught
from tests.truth import Truth, numbers

async def main(url, folder, teacher):
    with open_database(url) as db:
        async with opened(db, Path(folder), teacher) as session:
            async def work():
                captions, same, found = await taught(session, Truth(numbers(40, 4)))
                print(len(captions), len(same), len(found.samples), found.memberships, found.merges, found.noisy)

            await until_stopped(work(), session.teacher.asker, AS_BEFORE)
    assert "torch" not in sys.modules

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_killed_training_asks_nothing_twice(db, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    truth.latency = 0.02
    kills, told = 0, ""
    while not told:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, f"sqlite:///{tmp_path}/partita.db", folder, truth.url],
            cwd=ROOT, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        target = len(truth.asked) + 35
        while process.poll() is None and len(truth.asked) < target:
            time.sleep(0.005)
        process.kill()
        out, _ = process.communicate()
        if process.returncode == -signal.SIGKILL:
            kills += 1
        else:
            assert process.returncode == 0
            told = out
    repeated = Counter(key for _, key in truth.asked)
    assert kills >= 2 and sum(n - 1 for n in repeated.values()) <= kills * 32  # those in flight at a kill
    asked = len(truth.asked)
    again = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"sqlite:///{tmp_path}/partita.db", folder, truth.url],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert again.stdout == told and len(truth.asked) == asked


def test_ctrl_c_pauses_and_calls_in_flight_are_kept(db, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    truth.latency = 0.05
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, f"sqlite:///{tmp_path}/partita.db", folder, truth.url],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and len(truth.asked) < 50:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    (record,) = list_sessions(db)
    assert record.status == "paused" and record.why == f"stopped; {AS_BEFORE}" and "Paused" in err
    calls = tally(db, record.id)
    assert calls["describe"] + calls["membership"] + calls["merge"] == len(truth.asked)


def test_the_estimate_bounds_what_a_recipe_asks(truth, tmp_path):
    found = scan(truth.write(tmp_path / "c"))
    recipe = Recipe(epochs=10, pairs=100, nodes=32, merges=20, rehearsals=0, held_out_pairs=4)
    price = Price(2.0, 8.0)

    def of(what: str, **more: Any):
        return expected_teaching(found, PROMPTS, recipe, what, price=price, **more)

    embedder, agent, both = of("embedder"), of("agent"), of("both")
    for told in (embedder, agent, both):
        for span in (*told.calls.values(), told.total, told.cost, told.prompt_tokens, told.reply_tokens):
            assert 0 <= span.low <= span.likely <= span.high
        assert json.loads(json.dumps(told.to_json())) == told.to_json()
        assert [row[0] for row in told.rows()] == ["captions", "memberships", "merges", "calls", "tokens", "cost"]
    assert embedder.calls["describe"].high == 40 and embedder.calls["membership"].high == 36 * 35 / 2 + 4
    assert embedder.calls["merge"].high == 0 and agent.calls["describe"].high == 0
    assert agent.calls["merge"].high == 200 + 4 * 3 / 2 and agent.calls["membership"].low > 7 * 32
    practised = expected_teaching(found, PROMPTS, recipe.model_copy(update={"rehearsals": 30}), "agent", price=price)
    assert practised.calls["merge"].high == 10 * 30 + 30
    assert both.calls["membership"].high == embedder.calls["membership"].high + agent.calls["membership"].high
    had = of("both", had={"describe": 30, "membership": 10**6, "embed": 5})
    assert had.calls["membership"].likely == 0 and had.had == 10**6 + 30
    assert had.calls["describe"].likely == both.calls["describe"].likely - 30
    assert had.total.high == both.total.high  # they may be the answers to another training's questions
    assert of("both", took={"membership": Usual(1.0, 1.0, 1.0, 9)}).cost.high < both.cost.high
    assert expected_teaching(found, PROMPTS, recipe, "both", price=FREE).cost.high == 0
    assert make_parameters({}).longest_side == 768
