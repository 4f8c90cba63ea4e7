"""The page in a real browser: looking, on finished, paused and running sessions."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from partita import cluster
from partita.stored import result_of
from partita.web.rendering import STATIC
from storage.database import Database
from storage.locks import session_lock
from storage.sessions import load_session, update_session
from tests.command_line import Cli
from tests.truth import Truth, numbers
from tests.web.conftest import Finished, Site, Sites, Tabs, answering
from tests.web.hands import choose, clusters, come_to, come_to_these, open_session, send, standing

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


# -- looking ----------------------------------------------------------------------------------------------------------


def test_from_the_list_to_a_picture_and_why_it_is_there(site: Site, tabs: Tabs) -> None:
    tab = tabs(site.opening)
    assert tab.title() == "Sessions · Partita"
    tab.get_by_role("link", name="s", exact=True).click()
    assert tab.get_by_role("heading", level=1).inner_text() == "By “kind”"
    assert tab.locator(".cluster").count() == 5 and tab.locator(".tile img").count() == 60
    last = tab.locator(".cluster").last.locator(".tile img").last
    last.scroll_into_view_if_needed()
    tab.wait_for_function("(one) => one.complete && one.naturalWidth > 0", arg=last.element_handle())
    name = (last.get_attribute("alt") or "").partition(",")[0]
    last.click()
    assert tab.get_by_role("heading", level=2, name=name).is_visible()
    story = tab.locator(".step")
    assert story.count() > 0 and tab.locator("#near-title ~ ul .tile").count() == 12
    assert tab.get_by_text("Described as").is_visible()
    tab.locator(".step").first.locator("summary").click()
    assert "CONCLUSION" in tab.locator(".step pre").nth(1).inner_text()
    number = story.first.locator("a").first.inner_text()
    story.first.get_by_role("link", name=number, exact=True).click()
    assert tab.url.endswith(f"/s/s/a/{number}") and tab.locator(".step").count() == 1
    assert tab.locator(".side").count() == 2 and tab.locator(".side img").count() >= 2
    tab.locator(".side a").last.click()
    tab.locator(".facts-of a").first.click()
    assert re.search(r"/s/s/c/\d+$", tab.url) and tab.locator(".tile").count() > 5
    tab.get_by_role("link", name="Least certain").click()
    shown = [float(words.removesuffix(" %")) for words in tab.locator(".under b").all_inner_texts()]
    assert shown == sorted(shown) and len(shown) == 60


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_filtered_forked_and_compared(
    kind: str, request: pytest.FixtureRequest, sites: Sites, tabs: Tabs, tmp_path: Path
) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else f"sqlite:///{tmp_path}/own.db"
    with answering(Truth(numbers(60, 5))) as truth:
        folder = truth.write(tmp_path / "c")
        cluster(folder, "kind", session="s", db=url, endpoint=truth.url, embed_mode="native")
        site = sites(url)
        tab = open_session(tabs, site)
        tab.get_by_role("link", name="Trace").click()
        everything = tab.locator(".step").count()
        tab.locator("select[name=kind]").select_option("membership")
        tab.locator("select[name=conclusion]").select_option("NO")
        send(tab, tab.get_by_role("button", name="Filter"))
        verdicts = tab.locator(".step .verdict").all_inner_texts()
        assert verdicts and set(verdicts) == {"NO"} and len(verdicts) < everything
        tab.locator("select[name=conclusion]").select_option("")
        send(tab, tab.get_by_role("button", name="Filter"))
        first = tab.locator(".step").first.locator("a").first.inner_text()
        while (later := tab.get_by_role("link", name="Later answers")).count():
            later.click()
        assert int(tab.locator(".step").first.locator("a").first.inner_text()) > int(first)
        tab.locator("input[name=item]").fill("images/0007.png")
        send(tab, tab.get_by_role("button", name="Filter"))
        assert all("images/0007.png" in step for step in map(inner, tab.locator(".step").all()))
        tab.locator(".step").first.locator("a").first.click()
        tab.locator(".side a").last.click()
        tab.locator(".facts-of a").first.click()

        tab.get_by_role("link", name="Fork", exact=True).click()
        yaml = tab.locator("textarea")
        yaml.fill(yaml.input_value().replace("single odd representative", "single odd picture"))
        send(tab, tab.get_by_role("button", name="Check"))
        assert "merge" in tab.locator("main").inner_text()
        tab.get_by_label("name of the new session").fill("forked")
        send(tab, tab.get_by_role("button", name="Fork and run"))
        assert tab.url.endswith("/s/forked") and tab.get_by_text("answers taken over: 60 describe").first.is_visible()
        tab.locator(".pill.done").first.wait_for(timeout=60_000)
        assert clusters(site.db) == {frozenset(c.items) for c in result_of(site.db, "forked").clusters}

        tab.goto(f"{site.base}/")
        tab.get_by_label("compare s", exact=True).check()
        tab.get_by_label("compare forked", exact=True).check()
        send(tab, tab.get_by_role("button", name="Compare two"))
        assert "1.000" in tab.locator(".figures").inner_text() and tab.locator(".matched").count() == 5
        tab.locator(".matched a").first.click()
        assert tab.locator(".tile").count() >= 5


def inner(step: Locator) -> str:
    """What is in a step, names in addresses and titles too."""
    return step.inner_html()


LOOKS = {"light": {"scheme": "light"}, "dark": {"scheme": "dark"}, "narrow": {"width": 390, "has_touch": True}}
PAGES = (
    "/", "/s/s", "/s/s/c/1", "/s/s/i/0", "/s/s/doubts", "/s/s/corrections", "/s/s/a/150", "/s/nobody", "/s/s/trace",
    "/s/s/tree", "/s/s/map", "/s/s/compare", "/s/s/fork", "/new", "/prompts", "/prompts/suit", "/prompts/draft",
    "/prompts/edit?session=s",
)  # fmt: skip
_PLAIN = """() => {
  const named = (one) => (one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim() || one.alt);
  const shown = (one) => one.checkVisibility();
  const controls = [...document.querySelectorAll("input:not([type=hidden]), select, button, textarea, a[href]")];
  const unnamed = (one) => !named(one) && ![...one.querySelectorAll("img")].some((picture) => picture.alt);
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  return {
    h1: document.querySelectorAll("h1").length,
    wide: document.scrollingElement.scrollWidth - innerWidth,
    silent: [...document.images].filter((one) => !one.alt).length,
    unnamed: controls.filter(shown).filter(unnamed).map((one) => one.outerHTML),
    unreached: controls.filter(shown).filter((one) => one.tabIndex < 0).length,
    twice: ids.filter((id, at) => ids.indexOf(id) != at),
    main: document.querySelectorAll("main").length, lang: document.documentElement.lang, title: document.title,
    paper: getComputedStyle(document.body).backgroundColor,
  };
}"""


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_in_every_light_and_on_a_telephone(look: str, site: Site, tabs: Tabs) -> None:
    with site.client() as client:
        client.post("/s/s/correct", data={"did": "move", "item": "0", "to": "5", "why": "w" * 300})
        client.post("/s/s/correct", data={"did": "rename", "to": "1", "called": "n" * 150})
        client.post("/s/s/undo")
    tab = tabs(site.opening, **LOOKS[look])
    for path in PAGES:
        tab.goto(f"{site.base}{path}")
        seen = tab.evaluate(_PLAIN)
        assert seen["h1"] == 1 and seen["main"] == 1 and seen["lang"] == "en", path
        assert seen["wide"] <= 0, (path, seen["wide"])
        assert not seen["silent"] and not seen["unnamed"] and not seen["unreached"] and not seen["twice"], (path, seen)
        assert seen["title"].endswith("· Partita") and len(seen["title"]) > len("· Partita")
        assert (sum(map(int, re.findall(r"\d+", seen["paper"])[:3])) < 200) == (look == "dark"), path
    if look == "narrow":
        tab.goto(f"{site.base}/s/s/corrections")
        bar = tab.locator(".tabs").bounding_box()
        current = tab.locator(".tabs [aria-current]").bounding_box()
        assert bar is not None and current is not None
        assert bar["height"] < 60 and current["x"] >= 0 and current["x"] + current["width"] <= 390, "one row, scrolled"
        tab.goto(f"{site.base}/s/s")
        tab.locator(".choose input").first.check()
        form = tab.locator("#steer").bounding_box()
        assert form is not None and form["width"] <= 390 and form["height"] <= 0.46 * 800
        assert tab.evaluate(_PLAIN)["wide"] <= 0
    tabs.wrong = [said for said in tabs.wrong if "404" not in said]  # of the session that isn't there


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_stand_out_from_what_they_stand_on() -> None:
    light, dark = (STATIC / "colours.css").read_text().split("@media")
    for scheme in (light, dark):
        token = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", scheme))
        on = dict.fromkeys(("ink", "soft"), ("paper", "card", "tile", "note"))
        on |= dict.fromkeys(("accent", "yes", "no", "unknown"), ("paper", "card", "tile"))
        for ink, grounds in [*on.items(), ("paper", ("accent",))]:
            for ground in grounds:
                dim, bright = sorted((luminance(token[ink]), luminance(token[ground])))
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ink, ground, token[ink], token[ground])
    assert "opacity" not in re.sub(r"[^{}]*(:disabled|\.choose)[^{}]*\{[^}]*\}", "", (STATIC / "page.css").read_text())


def test_it_can_be_read_without_script(site: Site, tabs: Tabs) -> None:
    tab = open_session(tabs, site, java_script_enabled=False)
    assert tab.locator(".cluster").count() == 5 and tab.locator("#steer").is_visible()
    item = result_of(site.db, "s").clusters[0].items[-1]
    tab.get_by_label(f"choose {item}", exact=True).check()
    tab.get_by_label("new name").fill("by hand")
    send(tab, tab.get_by_role("button", name="Split off"))
    assert standing(site.db)["by hand"] == {item}
    tab.goto(f"{site.base}/s/s/c/1")
    assert tab.get_by_role("button", name="Rename").is_visible()


# -- live -------------------------------------------------------------------------------------------------------------


class Held(Truth):
    """Answers so many questions as it is let, and holds the others back."""

    def __init__(self, kinds: dict[int, int]) -> None:
        super().__init__(kinds)
        self._let, self._came = 0, 0
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._lock = threading.Lock()

    def let(self, more: int) -> None:
        """So many more may be answered."""
        with self._lock:
            self._let += more
            woken, self._waiting = self._waiting, []
        for loop, event in woken:
            loop.call_soon_threadsafe(event.set)

    async def _fault(self) -> Any:
        with self._lock:
            self._came += 1
            number = self._came
        while True:
            event = asyncio.Event()
            with self._lock:
                if number <= self._let:
                    break
                self._waiting.append((asyncio.get_running_loop(), event))
            await event.wait()
        return await super()._fault()


def test_a_running_session_is_followed_without_loading_it_again(
    cli: Cli, sites: Sites, tabs: Tabs, tmp_path: Path
) -> None:
    truth = Held(numbers(60, 5))
    site = sites(cli.db)
    tab = tabs(site.opening)
    tab.evaluate("window.same = true")
    assert "No sessions yet" in tab.locator("main").inner_text()
    with answering(truth):
        words = ("run", truth.write(tmp_path / "c"), "--by", "kind", "--endpoint", truth.url)
        process = cli.start(*words, "--embed-mode", "native", "--session", "s", "--json")
        try:
            truth.let(60)
            tab.locator(".session .pill.running").wait_for(timeout=30_000)
            tab.locator(".numbers b", has_text=re.compile(r"[1-9]")).wait_for()
            assert tab.evaluate("window.same")
            tab.get_by_role("link", name="s", exact=True).click()
            tab.evaluate("window.same = true")
            assert tab.locator(".pill").inner_text() == "running" and tab.locator(".cluster").count() == 0
            told = tab.locator(".state")
            before = told.inner_text()
            truth.let(70)
            tab.wait_for_function("(before) => document.querySelector('.state').innerText != before", arg=before)
            truth.let(10_000)
            tab.locator(".pill.done").wait_for(timeout=30_000)
            tab.locator(".cluster").nth(4).wait_for()
            assert tab.evaluate("window.same"), "it was loaded again"
            assert tab.locator(".tile img").count() == 60
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 0, err
    assert len(json.loads(out.splitlines()[-1])["clusters"]) == 5
    assert tab.locator("#steer [name=to] option").count() == 6


@contextmanager
def at_work(db: Database) -> Iterator[None]:
    """The session as one that another process works on."""
    record = load_session(db, "s")
    with session_lock(db, record.id, "s"):
        update_session(db, record.id, status="running")
        yield
    update_session(db, record.id, status="done")


def test_who_is_choosing_is_not_disturbed(site: Site, tabs: Tabs) -> None:
    with at_work(site.db):
        come_to(site.db, "early a", "early b")
        tab = open_session(tabs, site)
        tab.evaluate("window.same = true")
        box = tab.locator(".choose input").nth(2)
        box.focus()
        box.check()
        told = tab.locator("#live").get_attribute("data-partition")
        come_to(site.db, "later a", "later b", "later c")
        tab.wait_for_function("(old) => document.querySelector('#live').dataset.partition != old", arg=told)
        assert tab.locator(".cluster h2").all_inner_texts() == ["early a", "early b"]
        assert tab.locator(".choose input:checked").count() == 1 and tab.locator("#steer").is_visible()
        tab.keyboard.press("Escape")
        tab.locator("h2", has_text="later c").wait_for()
        assert tab.locator("#steer [name=to] option").all_inner_texts()[1:] == [
            f"{number} · later {name} (20)" for number, name in enumerate("abc", 1)
        ]
        # Whoever only looks stays where they are, though the clusters around it change.
        tab.keyboard.press("j")
        tab.keyboard.press("j")
        at = tab.evaluate("document.activeElement.getAttribute('href')")
        come_to(site.db, "last a", "last b")
        tab.locator("h2", has_text="last a").wait_for()
        assert at.startswith("/s/s/i/") and tab.evaluate("document.activeElement.getAttribute('href')") == at
        assert tab.evaluate("window.same")
        # What was chosen after that is done to the clusters of now.
        tab.locator(".choose input").first.check()
        tab.locator("#steer").get_by_label("cluster").select_option("2")
        send(tab, tab.get_by_role("button", name="Move there"))
        assert [c.size for c in result_of(site.db, "s").clusters] == [31, 29]


def test_a_running_session_is_corrected_while_its_clusters_change(site: Site, tabs: Tabs) -> None:
    def shown_first(tab: Page, many: int) -> list[str]:
        pictures = tab.locator(".cluster").first.locator("img").evaluate_all("(all) => all.map((one) => one.alt)")
        return [alt.partition(",")[0] for alt in pictures[:many]]

    with at_work(site.db):
        come_to(site.db, "a", "b", "c")  # 1, 4, 7 ... stand in b
        tab = open_session(tabs, site)
        moved = shown_first(tab, 2)
        choose(tab, *moved)
        told = tab.locator("#live").get_attribute("data-partition")
        come_to_these(site.db, {"others": tuple(at for at in range(60) if at % 3 != 1), "b": tuple(range(1, 60, 3))})
        tab.wait_for_function("(old) => document.querySelector('#live').dataset.partition != old", arg=told)
        come_to_these(
            site.db, {"b now": tuple(range(1, 60, 3)), "others": tuple(at for at in range(60) if at % 3 != 1)}
        )
        tab.locator("#steer").get_by_label("cluster").select_option(label="2 · b (20)")
        send(tab, tab.get_by_role("button", name="Move there"))
        assert set(moved) <= standing(site.db)["b now"]

        chosen = shown_first(tab, 3)
        choose(tab, *chosen)
        told = tab.locator("#live").get_attribute("data-partition")
        come_to(site.db, "d", "e")
        tab.wait_for_function("(old) => document.querySelector('#live').dataset.partition != old", arg=told)
        tab.get_by_label("new name").fill("by hand")
        send(tab, tab.get_by_role("button", name="Split off"))
        assert standing(site.db)["by hand"] == set(chosen)


def test_a_server_that_is_gone_is_told(finished: Finished, tmp_path: Path, tabs: Tabs) -> None:
    from tests.web.conftest import shown

    with shown(finished.copy(tmp_path)) as site, at_work(site.db):
        tab = open_session(tabs, site)
    tab.get_by_text("No answer from partita web").wait_for()
    assert tab.locator(".cluster").count() == 5, "what was shown is still there"
    tabs.wrong = [said for said in tabs.wrong if "net::ERR" not in said]
