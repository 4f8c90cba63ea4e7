"""The page of two sessions side by side: matrix, groups, cells, choosing; whatever names hold, it is words."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from graphs.partition import PARTITION, NamedCluster, Partition
from partita.evaluation import agreement
from partita.prices import Prices
from partita.result import TEACHER
from partita.web.app import build_app
from partita.web.desk import Desk
from storage import artefacts
from storage.database import open_database
from storage.items import Item
from storage.sessions import SessionRecord, create_session
from tests.partita.made import make_session
from tests.truth import draw

HARM = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}"
NAMES = [f"{i:02d}.png" for i in range(38)] + ["<script>alert(3)<p>.png", "'><b>\u202e.png"]


class Page(HTMLParser):
    """What a browser would find."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += " ".join(data.split()) + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def links(self, beginning: str) -> list[str]:
        return [a["href"] for a in self.all("a") if (a.get("href") or "").startswith(beginning)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A client of the page over: `a` and `b` over copies of a folder, `texts`, `new` without clusters, a teacher's."""
    folder = tmp_path_factory.mktemp("compare")
    for one in ("one", "two"):
        (folder / one).mkdir()
        for i, name in enumerate(NAMES):
            draw(1000 + i).save(folder / one / name)
    draw(7).save(folder / "two" / "more.png")
    (folder / "texts.csv").write_text("text\nTo be or not\n<script>alert(4)</script>\nthree\n")
    with open_database(f"sqlite:///{folder}/p.db") as db:
        a = {HARM: NAMES[:20], "second": NAMES[20:39], "third": NAMES[39:]}
        make_session(db, folder / "one", a, name="a", criterion=HARM, prompt_set_hash="feedbeef0123456789")
        b = {"zwei": [*NAMES[20:39], *NAMES[:1]], "eins": NAMES[1:20], "neu": ["more.png"], HARM: NAMES[39:]}
        make_session(db, folder / "two", b, name="b", prompt_set_hash="c0ffee")
        make_session(db, folder / "texts.csv", {"x": ["row 1", "row 2"], "y": ["row 3"]}, name="texts", odds=False)
        make_session(db, folder / "texts.csv", {"x": ["row 1"], "y": ["row 2", "row 3"]}, name="texts & more")
        make_session(db, folder / "one", {}, name="new")
        teacher = SessionRecord("t", "kind", TEACHER, str(folder / "one"))
        create_session(db, teacher, [Item("0.png", "0" * 64, "image")])
        yield TestClient(build_app(Desk(db, Prices((), None))), follow_redirects=False)


def get(site, address: str, status: int = 200) -> Page:
    answer = site.get(address)
    assert answer.status_code == status, answer.text
    page = Page(answer.text)
    assert all("page.js" in (s.get("src") or "") for s in page.all("script"))
    assert not any(name.startswith("on") or name == "style" for _, given in page.tags for name in given)
    return page


def test_the_matrix_has_matching_clusters_on_its_diagonal(site):
    page = get(site, "/compare?a=a&b=b")
    squares = [td for td in page.all("td") if td["class"] != "sum"]
    assert [td["class"] for td in squares] == [
        *("shade-10 matched", "shade-1", "shade-0"),
        *("shade-0", "shade-10 matched", "shade-0"),
        *("shade-0", "shade-0", "shade-10 matched"),
    ]
    figures = page.words[page.words.index("NMI") :].split()
    nmi, ari = agreement({(1, 1): 1, (1, 2): 19, (2, 1): 19, (3, 3): 1})
    assert figures[:4] == ["NMI", f"{nmi:.3f}", "ARI", f"{ari:.3f}"] and figures[4:8] == ["items", "in", "common", "40"]
    assert "97.5 %" in page.words and "feedbeef0123" in page.words and "c0ffee" in page.words
    assert "Left out: 1 only in B" in page.words and "The 1 item on which they differ" in page.words
    assert page.words.count("done") >= 2


def test_a_cell_leads_to_its_items_and_they_to_both_sessions(site):
    cells = [a for a in get(site, "/compare?a=a&b=b").links("/compare?") if "row=" in a and "column=" in a]
    asked = [{key: value[0] for key, value in parse_qs(urlsplit(href).query).items()} for href in cells]
    assert {"a": "a", "b": "b", "row": "1", "column": "1"} in asked and all(one["a"] == "a" for one in asked)
    found = get(site, "/compare?a=a&b=b&row=1&column=1")
    assert "1 item in A" in found.words and "zwei" in found.words
    at = found.links("/s/a/i/")[0].rpartition("/")[2]
    assert NAMES[0] in get(site, f"/s/a/i/{at}").words and found.links("/s/b/i/")
    assert NAMES[0] in get(site, found.links("/s/b/i/")[0]).words
    assert site.get(found.all("img")[0]["src"]).headers["content-type"] == "image/jpeg"
    assert "0 items in A" in get(site, "/compare?a=a&b=b&row=3&column=1").words
    whole = get(site, "/compare?a=a&b=b&column=1")
    assert "Where the 20 items of B’s “ zwei ” stand" in whole.words and "which match" in whole.words
    assert len(whole.links("/s/b/i/")) == 20


def test_names_are_words(site):
    for address in ("/", "/compare?a=a&b=b", "/compare?a=b&b=a&row=4", "/compare?a=a&b=b&row=2&column=1",
                    "/compare", "/s/a/compare", f"/compare?a={HARM}&b=b"):  # fmt: skip
        page = get(site, address, 404 if HARM in address else 200)
        assert not any(img.get("src") == "x" for img in page.all("img")) and "49" not in page.words
    shown = get(site, "/compare?a=a&b=b&row=2&column=1")
    assert "<script>alert(1)</script>" in get(site, "/compare?a=a&b=b").words
    assert any("<script>alert(3)<p>.png" in img["alt"] for img in shown.all("img"))
    assert "\u202e" not in site.get("/compare?a=a&b=b&row=3").text


def test_texts_are_shown_by_what_they_say(site):
    page = get(site, "/compare?a=texts&b=texts %26 more")
    assert "<script>alert(4)</script>" in page.words and not page.all("img")
    assert page.links("/s/texts%20%26%20more/i/1")


def test_more_of_a_cell_and_more_groups(site, monkeypatch):
    monkeypatch.setattr("partita.web.compare.MORE", 8)
    monkeypatch.setattr("partita.web.compare.GROUPS", 2)
    monkeypatch.setattr("partita.web.compare.FIRST", 5)
    page, seen = get(site, "/compare?a=a&b=b&row=1&column=2"), []
    while True:
        seen += [tile["href"] for tile in page.all("a") if "data-tile" in tile]
        following = [a for a in page.all("a") if "data-more" in a]
        if not following:
            break
        assert get(site, following[0]["href"]).links("/s/a/i/")  # the same without script
        page = get(site, following[0]["data-more"])
    assert len(seen) == len(set(seen)) == 19 and not page.all("html")
    first = get(site, "/compare?a=b&b=a&row=1")
    assert "All 19" in first.words and not [a for a in first.all("a") if a.get("rel") == "next"]
    monkeypatch.setattr("partita.web.compare.GROUPS", 1)
    following = next(a["href"] for a in get(site, "/compare?a=b&b=a&row=1").all("a") if a.get("rel") == "next")
    assert [a for a in get(site, following).all("a") if a.get("rel") == "prev"]
    assert get(site, "/compare?a=b&b=a&row=1&start=99999").words


def test_two_are_chosen_from_the_list(site):
    boxes = [box["value"] for box in get(site, "/").all("input") if box.get("form") == "compare"]
    assert sorted(boxes) == ["a", "b", "new", "texts", "texts & more"]
    answer = site.get("/compare", params={"of": ["a", "texts & more"]})
    assert answer.status_code == 303
    assert parse_qs(urlsplit(answer.headers["location"]).query) == {"a": ["a"], "b": ["texts & more"]}
    for of in ("of=b", "of=b&of=b", "of=b&of=a&of=new"):
        page = get(site, f"/compare?{of}")
        assert "Two are compared" in page.words
        assert next(o["value"] for o in page.all("option") if "selected" in o) == "b"
    offered = get(site, "/s/a/compare")
    assert [o["value"] for o in offered.all("option")] == ["", "new", "texts & more", "texts", "b"]
    assert [g["label"] for g in offered.all("optgroup")] == ["Of the same collection", "Of others"]
    assert {"type": "hidden", "name": "a", "value": "a"} in offered.all("input")


def test_what_cannot_be_compared_is_said(site):
    assert "'new' has no partition yet" in get(site, "/compare?a=a&b=new").words
    assert "holds a teacher's answers" in get(site, "/compare?a=t&b=a").words
    assert "no item in common" in get(site, "/compare?a=a&b=texts").words
    assert "did you mean" in get(site, "/compare?a=a&b=textx", 404).words
    assert "has no cluster 77" in get(site, "/compare?a=a&b=b&row=77", 400).words
    assert "row" in get(site, "/compare?a=a&b=b&row=x", 400).words


def test_a_large_matrix_is_bounded(tmp_path):
    names = [f"{i:03d}.png" for i in range(120)]
    items = [Item(name, f"{i:064x}", "image") for i, name in enumerate(names)]
    with open_database(f"sqlite:///{tmp_path}/p.db") as db:
        for session, step in (("a", 0), ("b", 1)):
            made = create_session(db, SessionRecord(session, "kind", "paper", str(tmp_path), status="done"), items)
            found = Partition(tuple(NamedCluster(f"c{i}", (i, (60 + i + step) % 120)) for i in range(60)))
            artefacts.put(db, made.id, PARTITION, found.to_bytes())
        page = get(TestClient(build_app(Desk(db, Prices((), None)))), "/compare?a=a&b=b")
    assert len(page.all("td")) == 41 * 42 and "20 others" in page.words
