"""The page in a real browser: looking, choosing, correcting; on finished, paused and running sessions."""

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

from graphs.partition import PARTITION, NamedCluster, Partition
from partita import cluster
from partita.stored import result_of
from partita.web.rendering import STATIC
from storage import artefacts
from storage.database import Database
from storage.errors import Paused
from storage.locks import session_lock
from storage.sessions import load_session, update_session
from tests.command_line import Cli
from tests.truth import Truth, numbers
from tests.web.conftest import Finished, Site, Sites, Tabs, answering

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def standing(db: Database) -> dict[str, set[str]]:
    """The session's clusters by name."""
    return {c.name: set(c.items) for c in result_of(db, "s").clusters}


def clusters(db: Database) -> set[frozenset[str]]:
    """The session's clusters, whatever they are called."""
    return {frozenset(c.items) for c in result_of(db, "s").clusters}


def choose(tab: Page, *items: str) -> None:
    """Choose pictures by mouse."""
    for item in items:
        tab.locator(f'.tile:has(img[alt^="{item}"])').first.hover()
        tab.get_by_label(f"choose {item}", exact=True).first.check()


def send(tab: Page, button: Locator) -> None:
    """Press a button of a form, and wait for what comes of it."""
    with tab.expect_navigation():
        button.click()


def open_session(tabs: Tabs, site: Site, path: str = "", **look: Any) -> Page:
    tab = tabs(site.opening, **look)
    tab.goto(f"{site.base}/s/s{path}")
    return tab


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


# -- choosing and correcting ------------------------------------------------------------------------------------------


def test_back_leads_to_what_a_form_was_answered_with(site: Site, tabs: Tabs) -> None:
    tab = tabs(site.opening)
    tab.goto(f"{site.base}/prompts/edit?session=s&from=suit")
    text = tab.locator("textarea[name=text]:visible")
    text.fill(text.input_value().replace("name: suit", "name: mine"))
    tab.get_by_role("button", name="Check").click()
    tab.get_by_text("Fine: the set mine").wait_for()
    tab.get_by_role("link", name="Prompts").first.click()
    tab.get_by_role("heading", level=1, name="Prompts", exact=True).wait_for()
    tab.go_back()
    tab.get_by_text("Fine: the set mine").wait_for()
    tab.go_back()
    text.wait_for()


def test_by_mouse(site: Site, tabs: Tabs) -> None:
    before = result_of(site.db, "s").clusters
    one, other, third = before[0], before[1], before[2]
    tab = open_session(tabs, site)
    assert not tab.locator("#steer").is_visible()
    choose(tab, *one.items[:2])
    assert tab.locator("[data-chosen]").inner_text() == "2 items chosen"
    move = tab.get_by_role("button", name="Move there")
    assert move.is_disabled() and tab.get_by_role("button", name="Unite clusters").is_disabled()
    tab.locator("#steer").get_by_label("cluster").select_option(str(other.id))
    tab.get_by_label("why").fill("they lean left")
    send(tab, move)
    tab.wait_for_url(f"{site.base}/s/s")
    assert set(one.items[:2]) <= standing(site.db)[other.name]

    choose(tab, *one.items[2:4])
    tab.get_by_label("new name").fill("two of them")
    send(tab, tab.get_by_role("button", name="Split off"))
    assert standing(site.db)["two of them"] == set(one.items[2:4])

    for name in (one.name, third.name):
        tab.locator(f".cluster:has(bdi:text-is('{name}'))").get_by_label("unite").check()
    assert tab.locator("[data-chosen]").inner_text() == "2 clusters chosen"
    send(tab, tab.get_by_role("button", name="Unite clusters"))
    assert {*one.items[4:], *third.items} in standing(site.db).values()

    tab.get_by_role("link", name="two of them", exact=True).click()
    tab.get_by_label("Call it").fill("a pair")
    send(tab, tab.get_by_role("button", name="Rename"))
    assert standing(site.db)["a pair"] == set(one.items[2:4])
    assert tab.locator("#cluster-title").inner_text() == "a pair"

    tab.get_by_role("link", name="Corrections 4").click()
    said = tab.locator(".corrections li")
    assert said.count() == 4 and "they lean left" in said.last.inner_text()
    for _ in range(4):
        send(tab, tab.get_by_role("button", name="Take back").first)
    assert clusters(site.db) == {frozenset(c.items) for c in before}
    assert tab.locator(".undone").count() == 4
    send(tab, tab.get_by_role("button", name="Bring back").first)  # what was taken back last: the move
    assert len(clusters(site.db) & {frozenset(c.items) for c in before}) < 5


def test_by_keys(site: Site, tabs: Tabs) -> None:
    before = result_of(site.db, "s").clusters
    first, second = before[0], before[1]
    tab = open_session(tabs, site)
    press = tab.keyboard.press
    press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    for key in ("j", "x", "j", "j", "x"):
        press(key)
    chosen = tab.locator(".tile:has(:checked) img").evaluate_all("(all) => all.map((one) => one.alt.split(',')[0])")
    assert chosen == [first.items[0], first.items[2]]
    press("x")
    press("k")
    press("x")
    press("n")
    press("j")
    press("x")
    assert tab.locator("[data-chosen]").inner_text() == "3 items chosen"
    press("Escape")
    assert tab.locator(":checked[form=steer]").count() == 0 and not tab.locator("#steer").is_visible()
    press("?")
    assert tab.locator("#keys").is_visible()
    press("Escape")
    assert not tab.locator("#keys").is_visible()

    press("p")
    press("j")
    press("x")
    picked = tab.locator(".tile:has(:checked) img").get_attribute("alt").partition(",")[0]
    for _ in range(400):  # with Tab alone to the form, which stands at the end
        press("Tab")
        if tab.evaluate("document.activeElement.name") == "to":
            break
    press(str(second.id))  # its label begins with the number
    assert tab.locator("#steer [name=to]").input_value() == str(second.id)
    press("Tab")
    with tab.expect_navigation():
        press("Enter")
    assert picked in first.items and picked in standing(site.db)[second.name]

    for key in ("j", "x", "m"):
        press(key)
    assert tab.evaluate("document.activeElement.name") == "to", "at once, however many pictures stand between"
    press("Escape")
    assert tab.evaluate("document.activeElement.closest('.tile') !== null"), "back at the picture"
    assert tab.locator(":checked[form=steer]").count() == 1
    press("Escape")
    assert tab.locator(":checked[form=steer]").count() == 0
    for key in ("x", "m"):
        press(key)
    tab.locator("#steer [name=called]").focus()
    tab.keyboard.type("by itself")
    with tab.expect_navigation():
        press("Enter")
    assert len(standing(site.db)["by itself"]) == 1

    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/i/*")


def test_together_and_not_with_these(site: Site, tabs: Tabs) -> None:
    before = result_of(site.db, "s").clusters
    first, second = before[0], before[1]
    tab = open_session(tabs, site)
    choose(tab, second.items[0], *first.items[:3])
    send(tab, tab.get_by_role("button", name="Belong together"))
    assert second.items[0] in standing(site.db)[first.name]
    choose(tab, first.items[1])
    number = result_of(site.db, "s").cluster(1).id
    tab.locator("#steer").get_by_label("cluster").select_option(str(number))
    send(tab, tab.get_by_role("button", name="Not with these"))
    assert {first.items[1]} in standing(site.db).values()
    tab.goto(f"{site.base}/s/s/i/0")
    tab.get_by_label("It belongs in").select_option(index=1)
    target = tab.get_by_label("It belongs in").input_value()
    held = set(result_of(site.db, "s").cluster(int(target)).items)
    send(tab, tab.get_by_role("button", name="Move", exact=True))
    assert any(held < now for now in clusters(site.db))


def test_what_was_done_is_said_and_undone_on_the_spot(site: Site, tabs: Tabs) -> None:
    before = clusters(site.db)
    first, second, third, *_, last = result_of(site.db, "s").clusters
    tab = open_session(tabs, site)
    line = tab.locator(".said-line")
    choose(tab, *first.items[:2])
    tab.locator("#steer").get_by_label("cluster").select_option(str(second.id))
    send(tab, tab.get_by_role("button", name="Move there"))
    assert line.inner_text().startswith(f"Moved 2 items to “{second.name}” ({second.size + 2} items)")
    assert line.get_by_role("link").get_attribute("href") == "/s/s/c/1", "the largest by now"
    tab.reload()
    assert line.count() == 0, "it is told once"
    choose(tab, *first.items[2:4])
    tab.get_by_label("new name").fill("<b>two</b>")
    send(tab, tab.get_by_role("button", name="Split off"))
    assert line.inner_text().startswith("Split off 2 items as “<b>two</b>”")
    line.get_by_role("link").click()
    assert tab.locator("#cluster-title").inner_text() == "<b>two</b>"
    tab.get_by_label("Call it").fill("pair")
    send(tab, tab.get_by_role("button", name="Rename"))
    assert line.inner_text().startswith("Renamed a cluster: it is now “pair”")
    send(tab, line.get_by_role("button", name="Undo"))
    assert "Taken back: call the cluster" in line.inner_text()
    assert tab.locator("#cluster-title").inner_text() == "<b>two</b>"
    send(tab, line.get_by_role("button", name="Bring back"))
    assert (
        "Brought back: call the cluster" in line.inner_text() and tab.locator("#cluster-title").inner_text() == "pair"
    )

    # Of three that were united at once, none is left over.
    now = clusters(site.db)
    tab = open_session(tabs, site)
    for name in (second.name, third.name, last.name):
        tab.locator(f".cluster:has(bdi:text-is('{name}'))").get_by_label("unite").check()
    send(tab, tab.get_by_role("button", name="Unite clusters"))
    assert tab.locator(".said-line").inner_text().startswith("United 3 clusters in “")
    send(tab, tab.locator(".said-line").get_by_role("button", name="Undo"))
    assert clusters(site.db) == now != before
    # What is said is looked up: an address alone says nothing.
    for address in ("/s/s?said=999999", "/s/s?said=1", f"/s/s?said={'9' * 30}"):
        tab.goto(f"{site.base}{address}")
        assert tab.locator(".said-line").count() == 0 and tab.locator(".cluster").count() > 3


def test_what_a_person_placed_is_told_apart_from_odds(site: Site, tabs: Tabs) -> None:
    first, second, *_ = result_of(site.db, "s").clusters
    moved = first.items[0]
    with site.client() as client:
        number = re.search(r'value="(\d+)" form="steer" aria-label="choose ' + moved, client.get("/s/s").text)
        assert number is not None
        client.post("/s/s/correct", data={"did": "move", "item": number[1], "to": str(second.id)}).raise_for_status()
        assert "100 %" not in client.get(f"/s/s/i/{number[1]}").text.partition("How it came to its place")[0]
    tab = open_session(tabs, site)
    mark = tab.get_by_role("img", name="placed by a person")
    assert mark.count() == 1 and mark.is_visible()
    tab.locator(f'.tile:has(img[alt^="{moved}"])').filter(has=mark).get_by_role("link").click()
    assert f"Stands in {second.name}, placed by a person." in tab.locator(".facts-of").inner_text()
    tab.get_by_role("link", name="Least certain").click()
    assert tab.locator(".under", has_text="by a person").count() == 1
    choose(tab, moved)
    tab.get_by_label("new name").fill("alone")
    send(tab, tab.get_by_role("button", name="Split off"))
    tab.goto(f"{site.base}/s/s")
    assert "least certain" not in tab.locator(".cluster", has_text="alone").inner_text()


def test_a_page_of_a_cluster_leads_to_where_it_is_by_now(site: Site, tabs: Tabs) -> None:
    *_, last = result_of(site.db, "s").clusters
    tab = open_session(tabs, site, f"/c/{last.id}")
    choose(tab, *last.items[:-1])
    tab.locator("#steer").get_by_label("cluster").select_option("1")
    send(tab, tab.get_by_role("button", name="Move there"))
    assert tab.locator(".said-line").is_visible() and tab.locator(".cluster").count() == 5, "it was all but taken apart"
    send(tab, tab.locator(".said-line").get_by_role("button", name="Undo"))
    first = result_of(site.db, "s").clusters[0]
    tab.goto(f"{site.base}/s/s/c/1")
    choose(tab, *first.items[:4])
    tab.locator("#steer").get_by_label("cluster").select_option("2")
    send(tab, tab.get_by_role("button", name="Move there"))
    assert tab.locator("#cluster-title").inner_text() == first.name and not tab.url.endswith("/c/1")


def test_a_page_that_is_older_than_the_clusters_hits_no_other(site: Site, tabs: Tabs) -> None:
    first, _, third, *_ = result_of(site.db, "s").clusters
    tab = open_session(tabs, site)
    choose(tab, first.items[0])
    with site.client() as client:
        client.post("/s/s/correct", data={"did": "unite", "cluster": ["1", "2"]}).raise_for_status()
    now = clusters(site.db)
    tab.locator("#steer").get_by_label("cluster").select_option("2")
    send(tab, tab.get_by_role("button", name="Move there"))
    assert "nothing was done" in tab.locator("main").inner_text()
    assert clusters(site.db) == now

    # What is plainly there still is found, whatever its number is by now; and who only names items needs none.
    tab = open_session(tabs, site)
    choose(tab, first.items[0])
    shown = tab.locator("#steer [name=to] option", has_text=third.name).get_attribute("value")
    with site.client() as client:
        client.post("/s/s/correct", data={"did": "split", "item": "0", "called": "small"}).raise_for_status()
        client.post("/s/s/correct", data={"did": "unite", "cluster": ["3", "4"]}).raise_for_status()
        client.post("/s/s/undo").raise_for_status()
    tab.locator("#steer").get_by_label("cluster").select_option(shown)
    send(tab, tab.get_by_role("button", name="Move there"))
    assert first.items[0] in standing(site.db)[third.name]
    tabs.wrong = [said for said in tabs.wrong if "400" not in said]  # as it should be


def test_back_from_a_refusal_the_same_pictures_are_chosen(site: Site, tabs: Tabs) -> None:
    come_to(site.db, "a", "b", "c")
    tab = open_session(tabs, site)
    picked = [
        seen.get_attribute("alt").partition(",")[0] for seen in tab.locator(".cluster").nth(1).locator("img").all()
    ]
    choose(tab, picked[1], picked[3])
    tab.locator("#steer").get_by_label("cluster").select_option(label="3 · c (20)")
    tab.get_by_label("why").fill("they lean left")
    come_to(site.db, "e", "f")
    send(tab, tab.get_by_role("button", name="Move there"))
    assert "nothing was done" in tab.locator("main").inner_text()
    tab.go_back()
    tab.locator(".cluster h2", has_text="e").wait_for()
    assert tab.locator("[data-chosen]").inner_text() == "2 items chosen" and tab.locator("#steer").is_visible()
    chosen = tab.locator(".tile:has(:checked) img").evaluate_all("(all) => all.map((one) => one.alt.split(',')[0])")
    assert set(chosen) == {picked[1], picked[3]}
    # A number that means another cluster on the page as it is now is not chosen by itself.
    assert (
        tab.locator("#steer [name=to]").input_value() == ""
        and tab.get_by_label("why").input_value() == "they lean left"
    )
    assert tab.get_by_role("button", name="Move there").is_disabled()
    stamp = tab.locator("#sheet").get_attribute("data-partition")
    assert tab.locator("#steer [name=partition]").input_value() == stamp
    tab.locator("#steer").get_by_label("cluster").select_option("2")
    send(tab, tab.get_by_role("button", name="Move there"))
    assert set(chosen) <= standing(site.db)["f"]
    tabs.wrong = [said for said in tabs.wrong if "400" not in said]  # as it should be


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_was_corrected_in_the_page_holds_after_resume(
    kind: str, request: pytest.FixtureRequest, cli: Cli, sites: Sites, tabs: Tabs, tmp_path: Path
) -> None:
    if kind == "postgresql":
        cli.db = request.getfixturevalue("postgres_url")
    with answering(Truth(numbers(60, 5))) as truth:
        folder = truth.write(tmp_path / "c")
        with pytest.raises(Paused):
            cluster(folder, "kind", session="s", db=cli.db, endpoint=truth.url, embed_mode="native", max_calls=125)
        site = sites(cli.db)
        kinds = [f"images/{at:04d}.png" for at in range(60)]
        of = dict(zip(kinds, truth.kinds.values(), strict=True))
        groups = sorted(({i for i in kinds if of[i] == k} for k in set(of.values())), key=lambda g: min(g))
        one, other, third = (sorted(group) for group in groups[:3])

        tab = open_session(tabs, site)
        choose(tab, one[0], *other[:3])
        send(tab, tab.get_by_role("button", name="Belong together"))
        choose(tab, *third[:2])
        tab.get_by_label("new name").fill("kept by hand")
        send(tab, tab.get_by_role("button", name="Split off"))
        made = next(c for c in result_of(site.db, "s").clusters if set(c.items) == set(third[:2]))
        tab.goto(f"{site.base}/s/s/c/{made.id}")
        tab.get_by_label("Call it").fill("renamed by hand")
        send(tab, tab.get_by_role("button", name="Rename"))
        assert tab.get_by_role("link", name="Corrections 3").is_visible()

        done = cli("resume", "s", "--json")
        assert done.code == 0, done.err
    home = {item: frozenset(c["items"]) for c in done.json["clusters"] for item in c["items"]}
    assert done.json["corrections"] == 3 and len(home) == 60
    assert home[one[0]] == home[other[0]] == home[other[1]] == home[other[2]] != home[one[1]]
    assert home[third[0]] == frozenset(third[:2])
    assert {c["name"]: set(c["items"]) for c in done.json["clusters"]}["renamed by hand"] == set(third[:2])
    tab.goto(f"{site.base}/s/s")
    assert "done" in tab.locator(".pill").inner_text()
    assert tab.get_by_role("link", name="renamed by hand", exact=True).is_visible()
    assert {frozenset(c["items"]) for c in done.json["clusters"]} == clusters(site.db)


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


def come_to(db: Database, *names: str) -> None:
    """The agents of the session come to clusters of these names, each of so many items."""
    come_to_these(db, {name: tuple(range(at, 60, len(names))) for at, name in enumerate(names)})


def come_to_these(db: Database, found: dict[str, tuple[int, ...]]) -> None:
    """The agents of the session come to these clusters of nodes."""
    named = tuple(NamedCluster(name, nodes) for name, nodes in found.items())
    artefacts.put(db, load_session(db, "s").id, PARTITION, Partition(named).to_bytes())


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
