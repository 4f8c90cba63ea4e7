"""The report: one HTML file that is whole, small, and safe whatever the session holds."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import re
import tracemalloc
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

import partita.report_page
from partita import Session
from partita.html import percent
from partita.steering import Steering
from storage.database import Database, open_database
from storage.ledger import Answer, Ledger
from storage.sessions import SessionRecord
from tests.partita.made import make_session
from tests.partita.test_sessions import run
from tests.truth import Truth, draw, numbers, serving

HARM = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}</title></style>"
"""What breaks out of an attribute, an element, a title, a style and a template."""


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said, self.style = "", ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style" and not self.style:
            self.style = data
        else:
            self.said += " ".join(data.split()) + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def check(self) -> None:
        """Nothing runs, nothing is fetched, and every picture is told of in words."""
        assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & {tag for tag, _ in self.tags}
        for tag, attributes in self.tags:
            assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
            for name in ("src", "href", "srcset", "poster", "action"):
                if (value := attributes.get(name)) is not None:
                    assert value.startswith(("data:image/jpeg;base64,", "#")), value
        assert all(image["alt"] for image in self.all("img"))
        policy = next(m["content"] for m in self.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
        style = base64.b64encode(hashlib.sha256(self.style.encode()).digest()).decode()
        assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
        assert f"style-src 'sha256-{style}';" in policy and "unsafe" not in policy
        assert "url(" not in self.style and "@import" not in self.style
        identities = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(set(identities)) == len(identities)
        assert {a["href"] for a in self.all("a")} <= {f"#{identity}" for identity in identities}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/p.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def pictures(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    names = [f"{number:05d}.png" for number in range(count)]
    for number, name in enumerate(names):
        draw(number + 1).save(folder / name)
    return names


def test_a_session_is_told(any_cli, tmp_path):
    with serving(Truth(numbers(60, 5), noise=1.2, error=0.05)) as truth:
        result = any_cli(*run(truth.write(tmp_path / "c"), truth)).json
        spent = any_cli("spend", "s", "--json").json["total"]
        rows = [json.loads(row) for row in any_cli("trace", "s", "--json", "--kind", "membership").out.splitlines()]
    done = any_cli("export", "s", "--to", tmp_path / "r.HTML", "--thumbnails", 5)
    assert done.code == 0 and done.err == f"written: {tmp_path / 'r.HTML'}\n"
    page = Page(tmp_path / "r.HTML")
    page.check()
    for told in ("“kind”", "60 items in", "Session s", "truth (endpoint)", "Learnt from labels no", "Policy evidence"):
        assert told in page.said
    assert f"total {spent['calls']:,} {spent['images']:,}" in page.said
    for c in result["clusters"]:
        assert f"{c['size']} item" in page.said and c["name"] in page.said
        assert c["size"] <= 5 or f"{c['size']} items, 5 shown" in page.said
    shown = sum(min(5, c["size"]) for c in result["clusters"])
    assert len(page.all("img")) == shown + 12

    sure = {item: p for c in result["clusters"] for item, p in zip(c["items"], c["confidence"], strict=True)}
    doubtful = sorted(sure.values())[:12]
    assert re.findall(r'class="sure">([^<]+)<', page.source) == [percent(p) for p in doubtful]
    least = page.source[page.source.index('id="doubts"') : page.source.index('id="took"')]
    for item in re.findall(r'class="item"><bdi>([^<]+)<', least):
        last = [row for row in rows if row["candidates"] == [item]]
        if last:
            assert re.search(
                rf"{item}</bdi>.*?>{last[-1]['conclusion']}</span>\s*<bdi>“{last[-1]['reason']}”", least, re.S
            )


def test_what_a_person_said_is_no_answer_of_an_agent(tmp_path):
    """Corrections are rows of the trace, too; those that only name a cluster are not about its items."""
    names = pictures(tmp_path / "c", 4)
    with open_database(url := f"sqlite:///{tmp_path}/p.db") as db:
        record = make_session(db, tmp_path / "c", {"a": names[:2], "b": names[2:]})
        asyncio.run(_no(db, record))  # of the first
        hands = Steering(db, "s")
        hands.rename(1, "x")
        hands.unite([1, 2])
        hands.undo()
        hands.move([names[3]], 1)
        hands.move([names[1]], 2)
        hands.undo()
    page = Page(Session("s", url).export(tmp_path / "r.html"))
    page.check()
    said = " ".join(page.said.split()).partition("Least certain The items")[2].partition("What it took Stage")[0]
    assert "UNKNOWN" not in said and "“”" not in said and said.count("a person:") == 1
    assert f"{names[0]} NO “" in said
    assert f"{names[3]} a person: move {names[3]} to where {names[0]}" in said
    assert said.count("No question was about it") == 2


async def _no(db: Database, record: SessionRecord) -> None:
    """The model has said NO of item 0, beside item 1."""
    subject = {"representatives": [1], "candidates": [0]}
    answer = Answer(
        "k", "membership", 0, 1, 0, subject, "", HARM, "NO", HARM, HARM, 1, 1, 1.0, 1, "model", datetime.now(UTC)
    )
    with Ledger(db, record.id) as ledger:
        await ledger.record(answer)


def test_nothing_of_a_session_gets_out_of_its_place(url, tmp_path):
    folder = tmp_path / "c"
    folder.mkdir()
    names = [f"{HARM.replace('/', '')}{number}.png" for number in range(3)]
    for number, name in enumerate(names):
        draw(number + 1).save(folder / name)
    (folder / f"{HARM.replace('/', '')}.jpg").write_text("no image")
    with open_database(url) as db:
        prompts = {"name": HARM, "membership": HARM, "describe": HARM, "merge": HARM}
        record = make_session(
            db, folder, {HARM: names[:2], "b\u202e\x07": names[2:]}, criterion=HARM, why=HARM, prompt_set=prompts,
            parameters={"model": f"{HARM}-supervised", "endpoint": "http://127.0.0.1:1/v1"}, prompt_set_hash=HARM,
        )  # fmt: skip
        asyncio.run(_no(db, record))
    page = Page(Session("s", url).export(tmp_path / "r.html"))
    page.check()
    assert "\u202e" not in page.source and "\x07" not in page.source and "49" not in page.said
    assert page.said.count("<script>alert(1)</script>") >= 8 and "Supervised:" in page.said
    said = " ".join(page.said.split())
    assert f"NO “{HARM}”" in said and "1 item could not be read" in said


def test_pictures_are_small_copies(tmp_path):
    """No byte of a file is passed on: no EXIF, no comment, and no more pixels than are shown."""
    folder = tmp_path / "c"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "canary-EXIF", 6
    for number in range(3):
        image = Image.effect_noise((1200, 600), 100 + number)
        image.save(folder / f"{number}.jpg", exif=exif, comment=b"canary-COMMENT")
    with open_database(url := f"sqlite:///{tmp_path}/p.db") as db:
        make_session(db, folder, {"a": ["0.jpg", "1.jpg"], "b": ["2.jpg"]}, odds=False)
    (folder / "1.jpg").unlink()
    page = Page(Session("s", url).export(tmp_path / "r.html"))
    page.check()
    found = [base64.b64decode(image["src"].partition(",")[2]) for image in page.all("img")]
    assert len(found) == 2 and "no picture any more: 1.jpg" in page.said and "keeps no odds" in page.said
    for jpeg in found:
        assert b"canary" not in jpeg and b"Exif" not in jpeg
        with Image.open(io.BytesIO(jpeg)) as image:
            assert image.size == (88, 176)


def test_many_items_and_many_clusters_make_no_large_file(tmp_path, monkeypatch):
    names = pictures(tmp_path / "c", 300)
    clusters = {"large": names[:200]} | {f"c{number}": [name] for number, name in enumerate(names[200:])}
    with open_database(url := f"sqlite:///{tmp_path}/p.db") as db:
        make_session(db, tmp_path / "c", clusters)
    session = Session("s", url)
    assert len(Page(session.export(tmp_path / "r.html")).all("img")) == 24 + 100 + 12
    monkeypatch.setattr(partita.report_page, "MOST", 60)
    page = Page(session.export(tmp_path / "few.html"))
    page.check()
    assert len(page.all("img")) == 60 and "200 items, 1 shown" in page.said and "1 item, none shown" in page.said
    none = Page(session.export(tmp_path / "none.html", thumbnails=0))
    assert len(none.all("img")) == 12 and "200 items, none shown" in none.said


def test_copies_of_one_image_make_a_large_cluster(tmp_path):
    """Clusters are in the order of what is different in them, not of their items."""
    names = pictures(tmp_path / "c", 9)
    for name in names[3:]:
        draw(99).save(tmp_path / "c" / name)
    with open_database(url := f"sqlite:///{tmp_path}/p.db") as db:
        make_session(db, tmp_path / "c", {"few": names[:3], "copies": names[3:]})
    page = Page(Session("s", url).export(tmp_path / "r.html", thumbnails=6))
    bars = [float(bar["width"] or 0) for bar in page.all("rect") if bar["class"] == "bar"]
    assert bars == [50, 100] and len(page.all("img")) == 9 + 4


def test_memory_does_not_grow_with_the_pictures(tmp_path):
    names = pictures(tmp_path / "c", 200)
    with open_database(url := f"sqlite:///{tmp_path}/p.db") as db:
        make_session(db, tmp_path / "c", {"a": names})
    session, peaks = Session("s", url), []
    session.export(tmp_path / "warm.html", thumbnails=1)
    for thumbnails in (1, 200):
        tracemalloc.start()
        file = session.export(tmp_path / f"{thumbnails}.html", thumbnails=thumbnails)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grown = file.stat().st_size - (tmp_path / "1.html").stat().st_size
    assert grown > 200_000 and peaks[1] - peaks[0] < grown / 3


def test_texts_are_quoted(tmp_path):
    texts = [f"{HARM} {number}" for number in range(4)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with open_database(url := f"sqlite:///{tmp_path}/p.db") as db:
        make_session(db, tmp_path / "t.jsonl", {"a": ["row 1", "row 2"], "b": ["row 3", "row 4"]})
    page = Page(Session("s", url).export(tmp_path / "r.html"))
    page.check()
    assert not page.all("img") and len(page.all("blockquote")) == 8 and f"{HARM} 3" in page.said


@pytest.mark.parametrize(
    ("share", "told"),
    [(1, "100 %"), (0.99999, "99.9 %"), (0.5, "50 %"), (0.275, "27.5 %"), (0.0004, "< 0.1 %"), (0, "0 %")],
)
def test_shares_are_not_rounded_up(share, told):
    assert percent(share) == told
