"""What a session has spent: it adds up by stage, model and cluster, for machines and on a terminal of 80 columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from graphs.budget import Budget
from graphs.partition import PARTITION, NamedCluster, Partition
from partita import Session
from partita.commands.spend import _adding_up
from partita.prices import load_prices
from partita.settings import Parameters
from partita.spend import Amount, spend_of
from partita.verbs import cli as cli_of_partita
from storage import artefacts
from storage.database import open_database
from storage.items import Item
from storage.ledger import Ledger
from storage.sessions import create_session
from tests.command_line import Cli
from tests.partita.test_bad_input import refused
from tests.partita.test_sessions import run
from tests.storage.conftest import answer, record
from tests.truth import Truth, numbers, serving

PRICES = "prices: {truth: {input: 10, output: 20}}"


@pytest.fixture
def truth():
    with serving(Truth(numbers(40, 4))) as t:
        yield t


@pytest.fixture
def prices(tmp_path) -> dict[str, str]:
    (tmp_path / "prices.yaml").write_text(PRICES)
    return {"PARTITA_PRICES": str(tmp_path / "prices.yaml"), "COLUMNS": "80"}


def flat(amount: dict) -> dict[str, float]:
    costs = {f"cost {name}": value for name, value in amount["cost"].items()}
    return {name: value for name, value in amount.items() if name not in ("cost", "id", "name", "size")} | costs


def added(amounts) -> dict[str, float]:
    listed = list(map(flat, amounts))
    return {name: pytest.approx(sum(one[name] for one in listed), abs=1e-6) for name in listed[0]}


def test_it_adds_up_to_the_calls_of_the_session(any_cli, truth, tmp_path, prices):
    """Every chat call of this endpoint counts 90 + 10 tokens, an embedding 1."""
    assert any_cli(*run(truth.write(tmp_path / "c"), truth)).code == 0
    result = any_cli("show", "s", "--json").json
    said = any_cli("spend", "s", "--json", **prices).json
    total, calls = said["total"], result["calls"]
    chat = calls["describe"] + calls["membership"] + calls["merge"]
    assert {stage: amount["calls"] for stage, amount in said["stages"].items()} == {
        kind: calls[kind] for kind in ("describe", "embed", "membership", "merge")
    }
    assert total["calls"] == chat + calls["embed"] == len(truth.asked)
    assert (total["prompt_tokens"], total["completion_tokens"]) == (90 * chat + calls["embed"], 10 * chat)
    dollars = (10 * total["prompt_tokens"] + 20 * total["completion_tokens"]) / 1e6
    assert total["cost"] == {
        "total": pytest.approx(dollars),
        "known": pytest.approx(dollars),
        "assumed": 0,
        "uncounted": 0,
    }
    rows = [json.loads(row) for row in any_cli("trace", "s", "--json").out.splitlines()]
    assert total["images"] == calls["describe"] + calls["embed"] + sum(row["images"] for row in rows)
    assert all(row["images"] == len(row["representatives"]) + 1 for row in rows if row["kind"] == "membership")
    assert added(said["stages"].values()) == added(said["models"].values()) == flat(total)
    assert added([*said["clusters"], said["not_in_a_cluster"]]) == flat(total)
    assert said["not_in_a_cluster"]["calls"] == 0
    assert [(c["id"], c["name"], c["size"]) for c in said["clusters"]] == [
        (c["id"], c["name"], c["size"]) for c in result["clusters"]
    ]
    assert all(c["calls"] >= 2 * c["size"] for c in said["clusters"])  # each of its items was described and embedded


@pytest.fixture(scope="module")
def done(tmp_path_factory, warm) -> Iterator[Cli]:
    """A database with the sessions `s`, which is done, and `early` and `none`, which paused at 10 calls and at none."""
    folder = tmp_path_factory.mktemp("spend")
    cli = Cli(folder, f"sqlite:///{folder}/partita.db", warm)
    with serving(Truth(numbers(40, 4))) as truth:
        words = run(truth.write(folder / "c"), truth)
        assert cli(*words).code == 0
        for name, most in (("early", 10), ("none", 0)):
            words = run(folder / "c", truth, name)
            assert cli(*words, "--max-calls", most).code == 3
    yield cli


@pytest.fixture
def verb(done, prices):
    """Runs a verb in this process; gives what it prints."""

    def call(name: str, *words: str, priced: bool = True) -> str:
        environment = prices if priced else {"COLUMNS": "80", "XDG_CONFIG_HOME": str(done.folder)}
        ran = CliRunner().invoke(
            cli_of_partita, [name, *words, "--db", done.db], env=environment, catch_exceptions=False
        )
        assert ran.exit_code == 0
        return ran.stdout

    return call


def test_the_tables_add_up_at_80_columns(verb):
    out = verb("spend", "s")
    lines = [line.rstrip() for line in out.splitlines()]
    assert max(map(len, lines)) <= 80 and "…" not in out and "assumed" not in out
    stages, clusters = (table.strip().splitlines() for table in out.split("\n\n")[1:])
    for heading, *rows in (stages, clusters):
        columns = [[Decimal(n.replace(",", "")) for n in row.split()[-6:]] for row in rows]
        assert heading.split()[-6:] == ["calls", "images", "prompt", "reply", "seconds", "USD"]
        assert [sum(column[:-1]) for column in zip(*columns, strict=True)] == columns[-1]
    assert [row.split()[0] for row in stages[1:]] == ["describe", "embed", "membership", "merge", "total"]
    assert [row.split()[0] for row in clusters[1:]] == ["1", "2", "3", "4", "total"]
    assert lines[0] == "session s is done" and lines[1].startswith("spent: ") and lines[1].endswith(" USD")
    assert " calls and 40 embeddings, " in lines[1], "calls are those of --max-calls"
    assert verb("show", "s").splitlines()[-1] == lines[1]


def test_one_table(verb):
    stage, cluster, model = (verb("spend", "s", "--by", by) for by in ("stage", "cluster", "model"))
    assert "membership" in stage and "items" not in stage
    assert "items" in cluster and "membership" not in cluster
    assert model.split("\n\n")[1].splitlines()[1].startswith("truth ")


def test_before_there_is_a_partition(verb):
    said = json.loads(verb("spend", "early", "--json"))
    assert said["clusters"] == [] and said["not_in_a_cluster"] == said["total"] and said["total"]["calls"] >= 10
    shown = verb("spend", "early", priced=False)
    assert "session early is paused" in shown and "there is no partition yet; `partita resume early`" in shown
    assert "under 0.01 USD" in shown and "no price of truth is known" in shown


def test_nothing_was_spent(verb):
    assert verb("spend", "none", priced=False).splitlines() == ["session none is paused", "spent: nothing"]
    assert verb("show", "none").splitlines()[-1] == "spent: nothing"
    said = json.loads(verb("spend", "none", "--json"))
    assert said["total"]["cost"]["total"] == 0 and list(said["stages"]) == ["describe", "embed", "membership", "merge"]


def test_bad_input(cli):
    refused(cli("spend", "nobody"), 2, "nobody", "partita run")


async def test_known_assumed_uncounted_cached_and_reused(tmp_path: Path):
    (tmp_path / "prices.yaml").write_text("prices: {mini: {input: 10, cached: 1, output: 20}}")
    prices = load_prices(tmp_path / "prices.yaml")
    parameters = {"endpoint": "http://x/v1", "model": "mini", "embed_model": "embedder", "embed_mode": "caption"}
    with open_database(f"sqlite:///{tmp_path}/p.db") as db:
        items = [Item(f"{name}.png", name[0] * 64, "image") for name in ("a", "b", "c", "copy of c")]
        session = create_session(db, record("one", parameters=parameters), items)
        with Ledger(db, session.id) as ledger:
            about = {"representatives": [0], "candidates": [1, 2]}
            await ledger.record(answer("a", kind="embed", model="embedder-2", subject={"item": 0}))
            await ledger.record(answer("b", prompt_tokens=1000, cached_tokens=900, completion_tokens=50, subject=about))
            await ledger.record(answer("c", prompt_tokens=None, completion_tokens=None, subject=about))
            await ledger.record(answer("d", kind="describe", prompt_tokens=0, completion_tokens=0, seconds=0.0))
            await ledger.record(answer("e", origin="reused"))
        found = Partition((NamedCluster("x", (0, 1)), NamedCluster("y", (2,))))
        artefacts.put(db, session.id, PARTITION, found.to_bytes())
        said = spend_of(db, "one", prices)
        rates = prices.rates(Parameters.model_validate(parameters))
        budget = Budget(cost=lambda kind, *tokens: rates.of(kind).cost_of_call(kind, *tokens))
        with Ledger(db, session.id) as ledger:
            for one in ledger.load().values():
                budget.count(one)
    assert said.total.cost == pytest.approx(budget.cost)  # what --max-cost goes by
    embed = (10 * 2.5 + 5 * 10) / 1e6  # as for a dear model
    known = (100 * 10 + 900 * 1 + 50 * 20) / 1e6
    uncounted = (3500 * 10 + 100 * 20) / 1e6
    assert said.total == Amount(4, 6, 1010, 900, 55, 0.75, 1, *map(pytest.approx, (known, embed, uncounted)))
    assert said.total.cost == pytest.approx(known + embed + uncounted) and said.reused == 1
    assert set(said.models) == {"embedder-2", "mini"} and said.stages["merge"] == Amount()
    assert [c.spent.calls for c in said.clusters] == [2, 2] and [c.size for c in said.clusters] == [2, 2]
    assert [c.spent.known for c in said.clusters] == [pytest.approx(known / 2)] * 2
    assert "no price of embedder is known" in said.remarks[0] and "1 calls were answered without" in said.remarks[1]
    assert said.to_json()["prices"]["mini"] == {"input": 10, "cached": 1, "output": 20, "known": True}


def test_the_same_from_python(done, verb, monkeypatch):
    monkeypatch.delenv("PARTITA_PRICES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(done.folder))
    said = Session("s", done.db).spend()
    assert said.to_json() == json.loads(verb("spend", "s", "--json", priced=False))
    assert said.total.cost == said.total.assumed > 0


@given(st.lists(st.floats(0, 1e9), max_size=20), st.integers(0, 4))
def test_rounded_numbers_add_up(numbers, decimals):
    *each, total = (Decimal(number.replace(",", "")) for number in _adding_up(numbers, decimals))
    assert sum(each) == total
    unit = 10.0**-decimals
    assert abs(float(total) - sum(numbers)) <= unit and all(
        abs(float(shown) - number) <= unit * 1.001 + 1e-6 for shown, number in zip(each, numbers, strict=True)
    )
