"""Choosing and correcting on the page, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from partita import cluster
from partita.stored import result_of
from storage.errors import Paused
from tests.command_line import Cli
from tests.truth import Truth, numbers
from tests.web.conftest import Site, Sites, Tabs, answering
from tests.web.hands import choose, clusters, come_to, open_session, send, standing


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
