"""Corrections by hand, from the command line: stored, undone, kept when agents go on, and counted nowhere."""

from __future__ import annotations

import csv
import json

import pytest

from partita import Session
from partita.steering import Steering
from partita.stored import result_of
from storage.database import open_database
from storage.errors import UsageError
from tests.partita.made import make_session
from tests.truth import Truth, draw, numbers, serving


def run(folder, truth, *more):
    asked = ("run", folder, "--by", "kind", "--endpoint", truth.url, "--embed-mode", "native")
    return (*asked, "--session", "s", "--json", *more)


@pytest.fixture
def truth():
    with serving(Truth(numbers(60, 5))) as t:
        yield t


def clusters(result) -> set[frozenset[str]]:
    return {frozenset(c["items"]) for c in result["clusters"]}


def test_a_word_holds_is_listed_and_taken_back(any_cli, truth, tmp_path):
    cli, folder = any_cli, truth.write(tmp_path / "c")
    before = cli(*run(folder, truth)).json
    spent = cli("spend", "s", "--json").json["total"]["calls"]
    first, second, third = before["clusters"][:3]
    one, other = first["items"][0], second["items"][0]

    told = cli("correct", "s", "move", one, "--to", second["id"], "--why", "it leans left\x1b[31m")
    assert told.code == 0 and "`partita correct s undo " in told.err
    moved = cli("show", "s", "--json").json
    assert moved["corrections"] == 1
    holder = next(c for c in moved["clusters"] if other in c["items"])
    assert one in holder["items"] and holder["confidence"][holder["items"].index(one)] == 1.0
    assert holder["name"] == second["name"]
    assert moved["calls"] == before["calls"]
    assert cli("spend", "s", "--json").json["total"]["calls"] == spent
    assert "corrected by hand: 1" in cli("show", "s").out

    number = {c["name"]: c["id"] for c in moved["clusters"]}
    assert cli("correct", "s", "unite", number[second["name"]], number[third["name"]]).code == 0
    united = cli("show", "s", "--json").json
    assert len(united["clusters"]) == 4 and united["clusters"][0]["size"] > 20
    assert cli("correct", "s", "rename", 1, "<b>both</b>").code == 0
    assert cli("correct", "s", "split", *first["items"][1:3], "--name", "two of them").code == 0
    made = cli("show", "s", "--json").json
    assert made["clusters"][0]["name"] == "<b>both</b>"
    assert frozenset(first["items"][1:3]) in clusters(made)
    score = cli("score", "s", "--labels", folder / "labels.csv", "--column", "kind", "--json").json
    assert score["corrections"] == 4 and score["nmi"] < 1

    listed = [json.loads(row) for row in cli("correct", "s", "list", "--json").out.splitlines()]
    assert [row["did"] for row in listed] == ["move", "unite", "rename", "split"]
    assert all(row["holds"] for row in listed) and listed[0]["items"] == [one]
    traced = [json.loads(row) for row in cli("trace", "s", "--json", "--kind", "correction").out.splitlines()]
    assert [row["origin"] for row in traced] == ["human"] * 4 and traced[0]["candidates"] == [one]
    assert traced[0]["correction"]["did"] == "move" and traced[0]["reason"].startswith("it leans left")
    assert all(json.loads(row)["kind"] != "describe" for row in cli("trace", "s", "--json").out.splitlines())
    story = cli("trace", "s", "--item", one).out
    assert "a person: move" in story and "by hand" in story and "\x1b" not in story.replace("\\x1b", "")
    nothing = cli("trace", "s", "--model", "nobody").err
    assert "4 correction" in nothing and nothing.rstrip().endswith("by truth")
    shown = cli("correct", "s", "list").out
    assert "\x1b[31m" not in shown and "it leans left" in shown

    for _ in range(4):
        assert cli("correct", "s", "undo").code == 0
    assert cli("show", "s", "--json").json == before
    assert cli("correct", "s", "undo").code == 2
    undoing = [json.loads(row) for row in cli("correct", "s", "list", "--json").out.splitlines()][-1]
    assert undoing["did"] == "undo"
    assert cli("correct", "s", "undo", undoing["id"]).code == 0  # it was the move
    assert clusters(cli("show", "s", "--json").json) == clusters(moved)


def test_a_word_said_in_a_pause_holds_when_the_agents_are_done(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    assert cli(*run(folder, truth, "--max-calls", 90)).code == 3
    paused = cli("show", "s", "--json").json
    with (folder / "labels.csv").open() as file:
        kinds = {row["file"]: row["kind"] for row in csv.DictReader(file)}
    assert set(kinds) == {item for c in paused["clusters"] for item in c["items"]}
    of_kind = {kind: [item for item in kinds if kinds[item] == kind] for kind in set(kinds.values())}
    (_, some), (_, others), *_ = sorted(of_kind.items())
    assert cli("correct", "s", "together", some[0], *others[:3]).code == 0
    assert cli("correct", "s", "apart", others[4], "--from", others[5]).code in (0, 2)  # they may be apart already
    done = cli("resume", "s", "--json")
    assert done.code == 0, done.err
    home = {item: c["id"] for c in done.json["clusters"] for item in c["items"]}
    assert home[some[0]] == home[others[0]] == home[others[1]] == home[others[2]]
    assert home[some[0]] != home[some[1]]
    untouched = [items for kind, items in sorted(of_kind.items())[2:]]
    assert all(len({home[item] for item in items}) == 1 for items in untouched)


def test_what_can_not_be_done_says_why_and_stores_nothing(cli, truth, tmp_path):
    before = cli(*run(truth.write(tmp_path / "c"), truth)).json
    first = before["clusters"][0]
    inside = first["items"][:2]
    for words, said in (
        (("move", "nobody.png", "--to", 1), "no cluster holds nobody.png"),
        (("move", inside[0], "--to", 1), "already"),
        (("move", inside[0], "--to", 99), "has no cluster 99; there are 1 to 5"),
        (("split", *first["items"]), "all of cluster 1"),
        (("unite", 1), "two clusters"),
        (("unite", 1, 99), "has no cluster 99"),
        (("rename", 1, "  "), "empty"),
        (("rename", 1, "n" * 201), "the name has 201 characters: give one of up to 200"),
        (("split", inside[0], "--name", "n" * 201), "201 characters"),
        (("together", inside[0]), "two items"),
        (("together", *inside), "together already"),
        (("apart", inside[0], "--from", inside[0]), "not apart from itself"),
        (("apart", inside[0], "--from", before["clusters"][1]["items"][0]), "apart already"),
        (("undo",), "no correction to undo"),
        (("undo", 7), "no correction 7"),
    ):
        done = cli("correct", "s", *words)
        assert done.code == 2 and said in done.err, (words, done.err)
    assert cli("correct", "nobody", "list").code == 2
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    for words in (
        ("s", "--db", elsewhere, "list"),
        ("s", "list", f"--db={elsewhere}"),
        ("--db", elsewhere, "s", "list"),
    ):
        done = cli("correct", *words)
        assert done.code == 2 and "elsewhere.db has none yet" in done.err, done.err
    assert cli("show", "s", "--json").json == before
    assert "nothing was corrected" in cli("correct", "s", "list").err


def test_from_python(cli, truth, tmp_path):
    result = cli(*run(truth.write(tmp_path / "c"), truth)).json
    session = Session("s", cli.db)
    with session.steering() as hands:
        number = hands.move([result["clusters"][0]["items"][0]], to=2)
        assert hands.undo().id == number
        with pytest.raises(UsageError, match="undone already"):
            hands.undo(number)
    assert session.result().corrections == 0


@pytest.fixture
def db(tmp_path):
    (tmp_path / "few").mkdir()
    for number in range(4):
        draw(number * 4099).save(tmp_path / "few" / f"{number}.png")
    draw(0).save(tmp_path / "few" / "copy.png")
    with open_database(f"sqlite:///{tmp_path}/few.db") as opened:
        yield opened


def grouped(db) -> set[frozenset[str]]:
    return {frozenset(c.items) for c in result_of(db, "s").clusters}


def test_a_name_that_is_a_number_follows_the_numbers(db, tmp_path):
    clusters = {"cluster 1": ["0.png", "1.png"], "b": ["2.png"], "cluster 3": ["3.png"]}
    make_session(db, tmp_path / "few", clusters)
    hands = Steering(db, "s")
    assert [c.name for c in result_of(db, "s").clusters] == ["cluster 1", "b", "cluster 3"]
    hands.move(["1.png"], 3)
    assert [(c.name, c.items[0]) for c in result_of(db, "s").clusters] == [
        ("cluster 1", "3.png"), ("cluster 2", "0.png"), ("b", "2.png"),
    ]  # fmt: skip
    hands.split(["1.png"])
    assert [(c.name, c.items[0]) for c in result_of(db, "s").clusters] == [
        ("cluster 1", "0.png"), ("cluster 2", "1.png"), ("b", "2.png"), ("cluster 4", "3.png"),
    ]  # fmt: skip
    hands.rename(4, "cluster 1")  # a person's word
    assert [c.name for c in result_of(db, "s").clusters][2:] == ["b", "cluster 1"]


def test_all_of_a_cluster_and_more_are_moved_into_it(db, tmp_path):
    make_session(db, tmp_path / "few", {"a": ["0.png", "1.png"], "b": ["2.png", "3.png"]})
    Steering(db, "s").move(["2.png", "0.png", "copy.png", "3.png"], 2)
    assert grouped(db) == {frozenset(["0.png", "copy.png", "2.png", "3.png"]), frozenset(["1.png"])}


def test_a_copy_is_the_item(db, tmp_path):
    made = make_session(db, tmp_path / "few", {"a": ["0.png", "1.png", "2.png"], "b": ["3.png"]})
    hands = Steering(db, "s")
    with pytest.raises(UsageError, match="not apart from itself"):
        hands.apart(["0.png"], ["copy.png"])
    hands.apart(["0.png"], ["copy.png", "1.png", "2.png"])
    alone = frozenset(["0.png", "copy.png"])
    assert grouped(db) == {alone, frozenset(["1.png", "2.png"]), frozenset(["3.png"])}
    number = next(c.id for c in result_of(db, made.name).clusters if "copy.png" in c.items)
    with pytest.raises(UsageError, match=f"all of cluster {number}"):
        hands.split(["copy.png"], "again")
