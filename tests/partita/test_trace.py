"""The trace in a terminal: an item's story, filters, what is said when nothing matches, and hostile words."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from partita import Session
from partita.moments import read_end, read_moment
from partita.plain import folded, plain
from partita.telling import tell_all, tell_story
from storage.database import open_database
from storage.errors import UsageError
from storage.items import Item
from storage.ledger import Ledger
from storage.sessions import create_session
from tests.command_line import Cli
from tests.partita.test_bad_input import refused
from tests.partita.test_sessions import run
from tests.storage.conftest import answer, record
from tests.truth import Truth, numbers, serving
from tests.warm import Warm

HOSTILE = "\x1b[31m[bold]x[/]\x1b]0;owned\x07\r\n\u202egnp.\x9b2J:smile:[link=http://x]"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Iterator[Cli]:
    """A session of forty images of which some answers are wrong, several candidates in a call."""
    folder = tmp_path_factory.mktemp("trace")
    cli = Cli(folder, f"sqlite:///{folder}/p.db", warm)
    with serving(Truth(numbers(40, 4), noise=1.0, error=0.05)) as truth:
        made = cli(*run(truth.write(folder / "c"), truth), "--candidates", 2)
    assert made.code == 0, made.err
    yield cli


def rows(cli: Cli, *words: object) -> list[dict]:
    return [json.loads(line) for line in cli("trace", "s", "--json", *words).out.splitlines()]


def test_an_items_story_is_in_order_and_ends_where_it_stands(done):
    result = done("show", "s", "--json").json
    for cluster in result["clusters"][:2]:
        item = cluster["items"][-1]
        told = done("trace", "s", "--item", item, COLUMNS="200").out
        lines = told.splitlines()
        assert lines[0] == item and lines[1].startswith("  described as “It is of kind ")
        assert f"in cluster {cluster['id']} “{cluster['name']}”" in lines[-1] and "probability of" in lines[-1]
        ids = [int(number) for number in re.findall(r"\[(\d+): ", told)]
        assert ids == sorted(ids)
        asked = [row for row in rows(done, "--item", item, "--kind", "membership") if item in row["candidates"]]
        assert {row["id"] for row in asked} <= set(ids)
        for row in asked:
            place = row["candidates"].index(item)
            with_whom = ", ".join(row["representatives"])
            assert f"asked with {with_whom}, beside" in told or f"asked with {with_whom}: " in told
            assert f"→ {row['decisions'][place]['did']}" in told.replace(f"→ {item} ", "→ ")


def test_every_assessment_is_told_without_an_item(done):
    told = done("trace", "s", COLUMNS="200").out
    everything = rows(done)
    heads = re.findall(r"^(membership|merge), .*\[(\d+): ", told, re.MULTILINE)
    assert [(kind, int(number)) for kind, number in heads] == [(row["kind"], row["id"]) for row in everything]
    assert "“They agree.”" in told and "“They differ.”" in told and "log-odds" in told
    assert "\x1b" not in told


def test_filters_hold_together(done):
    everything = rows(done)
    no = rows(done, "--conclusion", "no")
    assert no == [row for row in everything if "NO" in row["conclusion"].split()]
    assert rows(done, "--last", 3) == everything[-3:]
    assert (
        rows(done, "--kind", "merge", "--conclusion", "NO", "--last", 1) == [r for r in no if r["kind"] == "merge"][-1:]
    )
    middle = everything[len(everything) // 2]["at"]
    assert rows(done, "--until", middle) == [row for row in everything if row["at"] <= middle]
    assert rows(done, "--since", middle) == [row for row in everything if row["at"] >= middle]
    assert rows(done, "--since", "1h", "--model", "truth") == everything
    assert rows(done, "--until", "1h") == []


def test_when_nothing_matches_it_says_what_there_is(done):
    nothing = done("trace", "s", "--model", "gpt")
    assert nothing.code == 0 and nothing.out == ""
    assert re.search(
        r"nothing matches; the session has 40 describe, 40 embed, \d+ membership \(.* NO, .* YES\)", nothing.err
    )
    assert "by truth" in nothing.err
    quiet = done("trace", "s", "--json", "--since", "2999-01-01")
    assert quiet.code == 0 and quiet.out == "" and "nothing matches" in quiet.err
    refused(done("trace", "s", "--item", "0000.png"), 2, "did you mean 'images/0000.png'")
    refused(done("trace", "s", "--since", "yesterday"), 2, "--since", "10m")


def test_rows_in_a_file(done, tmp_path):
    written = done("trace", "s", "--to", tmp_path / "new" / "t.jsonl", "--kind", "merge")
    assert written.code == 0 and written.out == ""
    assert [json.loads(line) for line in (tmp_path / "new" / "t.jsonl").read_text().splitlines()] == rows(
        done, "--kind", "merge"
    )
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.jsonl"]
    (tmp_path / "kept.jsonl").write_text("as it was")
    refused(done("trace", "s", "--to", tmp_path / "kept.jsonl", "--item", "nobody"), 2, "nobody")
    assert (tmp_path / "kept.jsonl").read_text() == "as it was" and len(list(tmp_path.iterdir())) == 2


def test_copies_and_failed_items_have_stories_too(cli, tmp_path):
    with serving(Truth(numbers(12, 3))) as truth:
        folder = truth.write(tmp_path / "c")
        (folder / "images" / "copy.png").write_bytes((folder / "images" / "0003.png").read_bytes())
        (folder / "images" / "bad.png").write_bytes(b"nothing")
        assert cli(*run(folder, truth)).code == 0
    told = cli("trace", "s", "--item", "images/copy.png", COLUMNS="200").out.splitlines()
    assert told[0] == "images/copy.png" and told[1] == "  has the content of images/0003.png, and shares its story"
    assert told[2].startswith("  described as") and "→ stands with" in told[-1]
    assert "nothing matches" in cli("trace", "s", "--item", "images/bad.png").err


async def hostile(tmp_path: Path) -> Session:
    name = f"images/{HOSTILE}.png"
    url = f"sqlite:///{tmp_path}/h.db"
    with open_database(url) as db:
        session = create_session(db, record("h"), [Item(name, "0" * 64, "image"), Item("b.png", "1" * 64, "image")])
        with Ledger(db, session.id) as ledger:
            said = {"reply": HOSTILE, "reason": HOSTILE, "model": HOSTILE, "subject": {"item": 0}}
            await ledger.record(answer("d", kind="describe", conclusion=None, **said))
            said["subject"] = {"representatives": [1], "candidates": [0]}
            await ledger.record(answer("m", **said))
            ledger.decided("m", [{"item": 0, "odds": float("inf"), "bound": 4.6, "did": HOSTILE}, {"items": [0, 1]}])
            said["subject"] = {"representatives": [[0], [1]], "clusters": [[0], [1]]}
            await ledger.record(answer("x", kind="merge", **said | {"conclusion": HOSTILE}))
            ledger.load_decided()
    return Session("h", url)


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_hostile_words_have_no_effect(tmp_path, is_terminal):
    session = await hostile(tmp_path)
    item, result = f"images/{HOSTILE}.png", session.result()
    for told in range(2):
        out = io.StringIO()
        console = Console(
            file=out, force_terminal=is_terminal, width=100, color_system="truecolor" if is_terminal else None
        )
        if told:
            assert tell_story(console, item, item, session.story(item), result, {item}) == 3
        else:
            assert tell_all(console, session.trace(), {}) == 2
        shown = out.getvalue()
        # Only colours that are ours: no link, no title, no cursor, no bell.
        bare = re.sub(r"\x1b\[[0-9;]*m", "", shown) if is_terminal else shown
        assert all(c.isprintable() or c == "\n" for c in bare)
        unwrapped = re.sub(r"\s+", "", bare)
        assert "\\x1b[31m[bold]x[/]\\x1b]0;owned\\x07" in unwrapped and ":smile:[link=http://x]" in unwrapped
        assert "\\u202egnp.\\x9b2J" in unwrapped


@given(st.text())
def test_plain_words_are_printable_and_on_one_line(words):
    for shown in (plain(words), folded(words)):
        assert all(c.isprintable() or c in "\u200c\u200d" for c in shown)
    assert plain(plain(words)) == plain(words)


def test_what_is_harmless_stays():
    assert plain("Käse 漢字 👩\u200d🚀 'x' \\") == "Käse 漢字 👩\u200d🚀 'x' \\"
    assert plain("a\tb\nc\u00a0d\x1f") == "a b c d\\x1f" and folded(" a \n\n b ") == "a b"


def test_moments():
    now = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
    assert read_moment("10m", "--since", now) == now - timedelta(minutes=10)
    assert read_moment(" 90s", "--since", now) == now - timedelta(seconds=90)
    assert read_moment("2h", "--since", now) == now - timedelta(hours=2)
    assert read_moment("2026-01-02T03:04:05.678Z", "--since") == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert read_end("2026-01-02T03:04:05.678Z", "--until") >= datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    local = read_moment("9:30", "--since", now).astimezone()
    assert (local.hour, local.minute, local.date()) == (9, 30, now.astimezone().date())
    assert read_moment("2026-01-02", "--since").astimezone().hour == 0
    for wrong in ("", "soon", "10", "-5m", "999999999w", "25:00", "2026-13-01", "٣m", "0001-01-01"):
        with pytest.raises(UsageError, match="--since"):
            read_moment(wrong, "--since", now)
