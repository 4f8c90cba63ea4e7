"""What others wrote or put there does nothing: names, replies, prompts, links, numbers, addresses."""

from __future__ import annotations

import html
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from sqlalchemy import insert

from partita.steering import Steering
from storage.database import open_database
from storage.sessions import SessionRecord, create_session, load_items, load_session
from storage.tables import answers, decisions, prompts
from tests.partita.made import make_session
from tests.truth import draw
from tests.web.conftest import TOKEN, Finished, Site, Sites, Tabs

EVIL = """'"><script>alert(1)</script><img src=x onerror=alert(2)><a href="javascript:alert(3)">x</a>{{7*7}}\x1b[31m"""
NAMED = "'\"><img src=x onerror=alert(1)>{{7*7}}&amp;"
"""As a file's name."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with the session `s` of pictures and `texts` of texts, all of whose words are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    pictures = folder / NAMED
    pictures.mkdir()
    for number in range(6):
        draw(number * 4099).save(pictures / f"{number}{NAMED}.png")
    (pictures / f"broken{NAMED}.png").write_bytes(b"<script>")
    url = f"sqlite:///{folder}/hostile.db"
    with open_database(url) as db:
        names = [f"{number}{NAMED}.png" for number in range(6)]
        made = make_session(
            db, pictures, {EVIL: names[:4], "b" + EVIL: names[4:]}, criterion=EVIL, parameters={"model": EVIL}
        )
        said = {"session_id": made.id, "attempt": 0, "prompt_hash": EVIL, "reply": EVIL, "reason": EVIL, "model": EVIL,
                "seconds": 0.1, "attempts": 1, "origin": EVIL, "at": datetime.now(UTC)}  # fmt: skip
        rows = [
            {"kind": "describe", "subject": {"item": 0}, "conclusion": None},
            {"kind": "membership", "subject": {"representatives": [0, 1], "candidates": [2]}, "conclusion": EVIL},
            {"kind": "merge", "subject": {"representatives": [[0], [4]], "clusters": [[0], [4]]}, "conclusion": "NO"},
        ]
        with db.writing() as connection:
            connection.execute(insert(prompts), {"hash": EVIL, "text": EVIL})
            for number, row in enumerate(rows, 1):
                connection.execute(insert(answers), said | row | {"id": number, "key": str(number)})
            decided = [{"item": EVIL, "did": EVIL, "odds": 1.5, "bound": 1.0}, {"item": 2, "did": EVIL}]
            connection.execute(insert(decisions), {"answer": 2, "decided": decided})
        hands = Steering(db, "s")
        hands.move([names[0]], 2, EVIL)
        hands.rename(1, EVIL + "c", EVIL)
        hands.undo()
        table = folder / "texts.jsonl"
        table.write_text("\n".join(f'{{"text": "{number} </script><script>alert(1)</script>"}}' for number in range(4)))
        later = SessionRecord("texts", "tone", "paper", str(table), status="failed", why=EVIL)
        from storage.items import scan

        create_session(db, later, scan(table))
    return url


class Page(HTMLParser):
    """What a page is made of, as a browser would take it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def addresses(self) -> Iterator[str]:
        """Where it leads, and what it loads."""
        for _, given in self.elements:
            yield from (given[name] for name in ADDRESSES if given.get(name))


ADDRESSES = ("href", "src", "action", "data-live", "data-sheet", "data-more")
FOREIGN = {"iframe", "frame", "object", "embed", "base", "style", "applet", "portal", "audio", "video", "math"}
"""Elements that no page of ours has."""


def crawled(client: httpx.Client, start: str = "/", each: int = 3) -> dict[str, httpx.Response]:
    """Pages and files of ours that can be come to by links: so many of each kind, which differ in numbers only."""
    found: dict[str, httpx.Response] = {}
    kinds: Counter[str] = Counter()
    todo = [start]
    while todo:
        path = todo.pop(0)
        kind = re.sub(r"\d+", "1", path.partition("&v=")[0])
        if path in found or kinds[kind] == each:
            continue
        kinds[kind] += 1
        found[path] = client.get(path)
        if found[path].headers.get("content-type", "").startswith("text/html"):
            for address in Page(found[path].text).addresses():
                led = urlsplit(urljoin(f"{client.base_url}{path}", address))
                assert led.scheme == "http" and led.netloc == client.base_url.netloc.decode(), (path, address)
                todo.append(led.path + (f"?{led.query}" if led.query else ""))
    return found


def test_what_others_wrote_is_text_on_every_page(hostile: str, sites: Sites) -> None:
    with sites(hostile).client() as client:
        pages = crawled(client, each=8)
        pages |= {
            path: client.get(path)
            for path in ("/s/s/a/2", "/s/s/i/99", f"/s/{'%3Cscript%3E'}", "/s/texts/live", "/s/texts/i/0")
        }
        sent = {"did": EVIL, "item": "0", "to": EVIL, "back": EVIL}
        pages["refused"] = client.post("/s/s/correct", data=sent)
        pages["no number"] = client.post("/s/s/correct", data={"did": "move", "item": EVIL})
    assert {"/", "/s/s", "/s/s/c/1", "/s/s/i/0", "/s/s/doubts", "/s/s/corrections", "/s/texts"} <= set(pages)
    read = {path: Page(one.text) for path, one in pages.items() if one.headers["content-type"].startswith("text/html")}
    for path, page in read.items():
        assert pages[path].status_code < 500, path
        assert not re.search(r"onerror=alert\(\d\)>\s*49", page.text), "no template runs what was put into it"
        for tag, given in page.elements:
            assert tag not in FOREIGN, (path, tag)
            assert not any(name.startswith("on") or name in ("style", "srcdoc", "formaction") for name in given), path
            assert given.get("src") != "x" and "javascript:" not in given.get("href", ""), (path, given)
            assert tag != "script" or re.fullmatch(r"/static/[a-z]+\.js\?v=[0-9a-f]+", given["src"]), (path, given)
    told = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    for path in (
        "/",
        "/s/s",
        "/s/s/c/1",
        "/s/s/i/0",
        "/s/s/i/2",
        "/s/s/a/2",
        "/s/s/corrections",
        "refused",
        "/s/texts",
    ):
        assert told in read[path].text, path
    assert "</script><script>alert(1)</script>" in read["/s/texts/i/0"].text
    assert any(NAMED in given.get("alt", "") for _, given in read["/s/s"].elements)
    assert html.escape("<img src=x onerror=alert(1)>", quote=False) in pages["/s/s/i/0"].text


def test_a_browser_runs_none_of_it(hostile: str, sites: Sites, tabs: Tabs) -> None:
    tab = tabs(sites(hostile).opening)
    tab.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('CSP ' + e.violatedDirective))"
    )
    base = tab.url.rstrip("/")
    paths = ("/s/s", "/s/s/c/1", "/s/s/i/0", "/s/s/a/2", "/s/s/doubts", "/s/s/corrections", "/s/texts", "/s/texts/i/0")
    for path in ("/", *paths):
        tab.goto(f"{base}{path}")
        tab.wait_for_function("() => [...document.images].every((one) => one.complete || one.loading == 'lazy')")
        assert (
            tab.evaluate("document.querySelectorAll('script:not([src^=\"/static/\"]), iframe, [onerror]').length") == 0
        )


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(finished: Finished, tmp_path: Path, sites: Sites) -> tuple[Site, Path]:
    """The finished session, with a collection that a test may change."""
    from storage.tables import sessions

    url, pictures = finished.copy(tmp_path), tmp_path / "pictures"
    shutil.copytree(finished.folder, pictures)
    with open_database(url) as db, db.writing() as connection:
        connection.execute(sessions.update().values(collection=str(pictures)))
    return sites(url), pictures


def test_a_link_that_came_later_is_not_followed_outside(own: tuple[Site, Path], tmp_path: Path) -> None:
    site, pictures = own
    secret = tmp_path / "secret.png"
    draw(77).save(secret)
    rows = load_items(site.db, load_session(site.db, "s").id)
    first, second, third, fourth, fifth, sixth = [pictures / row.name for row in rows[:6]]
    outside = tmp_path / "outside.png"
    shutil.copy(second, outside)
    for path, target in ((first, secret), (second, outside), (third, Path("/dev/zero")), (fourth, first.parent)):
        path.unlink()
        path.symlink_to(target)
    fifth.unlink()
    os.mkfifo(fifth)  # nobody writes to it: whoever opens it waits for ever
    sixth.unlink()
    with site.client() as client:
        for number in range(6):
            answer = client.get(f"/s/s/i/{number}/picture?side=192")
            assert answer.status_code == 404 and not answer.content, rows[number].name
            page = client.get(f"/s/s/i/{number}")
            assert page.status_code == 200, "a picture that is gone leaves a page"
        assert client.get("/s/s/i/6/picture?side=192").headers["content-type"] == "image/jpeg"


def test_a_collection_that_became_a_link_shows_nothing_else(own: tuple[Site, Path], tmp_path: Path) -> None:
    site, pictures = own
    rows = load_items(site.db, load_session(site.db, "s").id)
    elsewhere = tmp_path / "elsewhere"
    for row in rows[:3]:
        (elsewhere / row.name).parent.mkdir(parents=True, exist_ok=True)
        draw(5).save(elsewhere / row.name)
    pictures.rename(tmp_path / "away")
    pictures.symlink_to(elsewhere, target_is_directory=True)
    with site.client() as client:
        assert [client.get(f"/s/s/i/{n}/picture?side=192").status_code for n in range(4)] == [404] * 4
        pictures.unlink()
        pictures.symlink_to(tmp_path / "away", target_is_directory=True)
        assert client.get("/s/s/i/0/picture?side=192").status_code == 200, "it was moved, and is the same"


def test_pictures_have_no_metadata_and_few_sizes(site: Site) -> None:
    with site.client() as client:
        for side in ("192", "384", "1024", "model"):
            answer = client.get(f"/s/s/i/3/picture?side={side}")
            assert (
                answer.status_code == 200 and answer.content.startswith(b"\xff\xd8") and b"Exif" not in answer.content
            )
        for side in ("0", "-1", "193", "99999999", "1e9", "MODEL", "", "٣٨٤", "192\n", "9" * 5000, "../model", "²"):
            assert client.get("/s/s/i/3/picture", params={"side": side}).status_code == 400, side


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_odd_numbers_and_names_are_refused_in_one_line(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, sites: Sites
) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else f"sqlite:///{tmp_path}/p.db"
    folder = tmp_path / "c"
    folder.mkdir()
    for number in range(4):
        draw(number * 4099).save(folder / f"{number}.png")
    with open_database(url) as db:
        make_session(db, folder, {"a": ["0.png", "1.png"], "b": ["2.png", "3.png"]})
    odd = ["-1", "4", str(2**31), str(2**63), "9" * 5000, "x", "%00"]
    with sites(url).client() as client:
        for number in odd:
            for path in ("i/{}", "i/{}/picture", "c/{}", "a/{}"):
                answer = client.get(f"/s/s/{path.format(number)}")
                assert answer.status_code in (400, 404), (path, number[:30], answer.status_code)
                assert "Traceback" not in answer.text and len(answer.text) < 20_000
            for path in ("", "/c/1/more", "/i/1"):
                answer = client.get(f"/s/s{path}?start={number}")
                assert answer.status_code in (200, 400), (path, number[:30])
            for form in ({"did": "move", "to": number, "item": "0"}, {"did": "unite", "cluster": ["1", number]},
                         {"did": "split", "item": number}):  # fmt: skip
                answer = client.post("/s/s/correct", data=form)
                assert answer.status_code == 400, (form["did"], number[:30], answer.text)
            assert client.post("/s/s/undo", data={"number": number}).status_code == 400
        for name in ("%00", "nobody", "%2e%2e%2f%2e%2e%2fetc", "%ff%fe", "a" * 5000, "s%00"):
            for path in ("", "/i/0/picture"):
                assert client.get(f"/s/{name}{path}").status_code == 404, (name[:30], path)
            assert client.post(f"/s/{name}/undo").status_code == 404
        for form in (b"did=rename&to=1&called=a%00b%ed%a0%80", b"did=split&item=0&why=%00%ff"):
            sent = {"Content-Type": "application/x-www-form-urlencoded"}
            assert client.post("/s/s/correct", content=form, headers=sent).is_success


@pytest.mark.parametrize(
    "back",
    ["//evil.example", "/\\evil.example", "http://evil.example", "https:evil.example", "/s/other", "/s/s-else",
     "javascript:alert(1)", " /s/s/", "\t//evil.example", "/s/s\r\nLocation: http://evil.example", "/s/sx", ""],
)  # fmt: skip
def test_a_form_leads_back_to_its_own_session_only(back: str, site: Site) -> None:
    with site.client() as client:
        form = {"did": "rename", "to": "1", "called": f"name {len(back)}", "back": back}
        answer = client.post("/s/s/correct", data=form, follow_redirects=False)
        assert answer.status_code == 303 and re.fullmatch(r"/s/s\?said=\d+", answer.headers["location"])
        answer = client.post("/s/s/undo", data={"back": back}, follow_redirects=False)
        assert answer.status_code == 303 and re.fullmatch(r"/s/s\?said=\d+", answer.headers["location"])
        if not back:
            for own in ("/s/s/c/1?", "/s/s?start=30&", "/s/s/i/3?start=40&"):
                answer = client.post("/s/s/correct", data=form | {"back": f"{own}said=7"}, follow_redirects=False)
                assert re.fullmatch(re.escape(own) + r"said=\d+", answer.headers["location"]) and "=7" not in own


def test_a_key_in_the_environment_shows_up_nowhere(
    finished: Finished, tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch, caplog, capfd
) -> None:
    canary = "sk-Canary-5f1e77"
    for name in ("PARTITA_API_KEY", "PARTITA_EMBED_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, canary)
    caplog.set_level(logging.DEBUG)
    with sites(finished.copy(tmp_path)).client() as client:
        pages = crawled(client, "/s/s")
        pages["refused"] = client.post("/s/s/correct", data={"did": "move"})
        pages["nothing"] = client.get("/nothing")
    assert len(pages) > 20
    for path, answer in pages.items():
        assert canary.encode() not in answer.content and canary not in repr(answer.headers), path
    said = capfd.readouterr()
    logged = "\n".join(f"{record.getMessage()} {record.__dict__!r}" for record in caplog.records)
    assert canary not in logged + said.out + said.err + repr(client.cookies)
    assert TOKEN not in said.out + said.err
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or canary.encode() not in file.read_bytes()
