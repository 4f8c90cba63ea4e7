"""How clusters came about, as a page: unions with their answers and reasons, people's words, refusals; bounded."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from PIL import Image
from rich.console import Console
from sqlalchemy import insert
from starlette.testclient import TestClient

from partita import Session
from partita.prices import find_prices
from partita.steering import Steering
from partita.telling import tell_story
from partita.web import tree
from partita.web.app import build_app
from partita.web.desk import Desk
from storage.database import open_database
from storage.tables import answers, decisions
from tests.partita.made import make_session

REASON = "<script>alert(1)</script> both are low"
SIZE = 14


@pytest.fixture(params=["sqlite", "postgres"])
def db(request, tmp_path):
    here = f"sqlite:///{tmp_path}/partita.db"
    with open_database(here if request.param == "sqlite" else request.getfixturevalue("postgres_url")) as opened:
        yield opened


def name(number):
    return f"{number:02}.png"


def made(db, folder, clusters, **record):
    folder.mkdir()
    for number in range(SIZE):
        Image.new("RGB", (40, 30), (15 * number, 90, 30)).save(folder / name(number))
    return make_session(db, folder, {called: [name(n) for n in nodes] for called, nodes in clusters.items()}, **record)


class Tale:
    """Writes answers of agents as a session does."""

    def __init__(self, db, session):
        self.db, self.session, self.steps = db, session, 0

    def add(self, kind, subject, said, decided, reason=None):
        self.steps += 1
        row = {
            "session_id": self.session.id, "key": f"{kind} {self.steps}", "kind": kind, "attempt": 0,
            "subject": subject, "prompt_hash": "", "reply": "the reply", "model": "m", "seconds": 0.0, "attempts": 1,
            "origin": "model", "at": datetime.now(UTC), "step": self.steps, "conclusion": said, "reason": reason,
            "component": 0,
        }  # fmt: skip
        with self.db.writing() as connection:
            number = connection.execute(insert(answers).returning(answers.c.id), row).scalar_one()
            if decided is not None:
                connection.execute(insert(decisions), {"answer": number, "decided": decided})
        return number

    def joins(self, shown, node, did="joined", said="YES", decided=True):
        made = [{"item": node, "did": did, "odds": 5.0, "bound": 4.6}] if decided else None
        return self.add("membership", {"representatives": shown, "candidates": [node]}, said, made)

    def compares(self, one, other, did, odds=4.2, decided=True, reason=REASON):
        said = "YES" if did == "united" else "NO"
        made = [{"clusters": [one, other], "did": did, "odds": odds, "bound": 4.0}] if decided else None
        return self.add("merge", {"representatives": [one, other], "clusters": [one, other]}, said, made, reason)


def client_of(db):
    return TestClient(build_app(Desk(db, find_prices(None, None))))


def said(html):
    """The words of a page, without its tags."""
    words = []
    parser = HTMLParser()
    parser.handle_data = words.append
    parser.feed(html)
    return " ".join(" ".join(words).split())


def section(html, called):
    """The part of the page about one cluster."""
    parts = re.split(r'(?=<section class="cluster grown")', html)
    return next(part for part in parts if f"<bdi>{called}</bdi></h3>" in part)


def story(db, session, decided=True):
    """0-3 from a seed, 4-5 founded later and united with them; 6-13 of their own, kept apart."""
    tale = Tale(db, session)
    for node in (1, 2, 3):
        tale.joins([0], node, decided=decided)
    for node in range(7, 14):
        tale.joins([6], node, decided=decided)
    founded = tale.joins([6], 4, did="founded", said="NO", decided=decided)
    tale.joins([4], 5, decided=decided)
    apart = tale.compares([0, 1], [6, 7], "apart", odds=-3.5, decided=decided, reason="they differ")
    united = tale.compares([4, 5], [0, 1, 2], "united", decided=decided)
    return founded, united, apart


def test_a_union_is_told_with_answer_odds_and_reason(db, tmp_path):
    session = made(db, tmp_path / "p", {"high": range(6, 14), "low": range(6)})
    founded, united, apart = story(db, session)
    with client_of(db) as client:
        page = client.get("/s/s/tree")
        low, high = section(page.text, "low"), section(page.text, "high")
    assert page.status_code == 200
    assert "6 items · 2 founding groups" in said(low) and "8 items · 1 founding group" in said(high)
    assert "One of the seeds that the search began with. 3 more items joined" in said(low)
    assert "UNITED with a group of 2 · log-odds +4.2" in said(low)
    assert f"answer {united}" in said(low) and f'href="/s/s/a/{united}"' in low
    assert f"founded on answer {founded}" in said(low)
    assert "&lt;script&gt;" in low and "<script>alert" not in page.text
    assert "Kept apart from high" in said(low) and "Kept apart from low" in said(high)
    assert "log-odds -3.5" in said(high) and f'href="/s/s/a/{apart}"' in high and "they differ" in said(high)
    assert "low as it is now" in said(low) and "no decisions" not in said(page.text)


def test_people_s_words_stand_at_the_end(db, tmp_path):
    session = made(db, tmp_path / "p", {"high": range(6, 14), "low": range(6)})
    story(db, session)
    Steering(db, "s").move([name(13)], 2, "it is <i>low</i>")
    Steering(db, "s").split([name(6), name(7)], "apart")
    with client_of(db) as client:
        text = client.get("/s/s/tree").text
        assert "a person : move 13.png to where" in said(section(text, "low"))
        assert "“it is <i>low</i>”" in said(section(text, "low"))
        assert "1 item came from the group that is now high" in said(section(text, "low"))
        own = section(text, "apart")
        assert "2 items came from the group that is now high" in said(own) and "a person : split off" in said(own)
        Steering(db, "s").undo()
        Steering(db, "s").unite([1, 2])
        together = section(client.get("/s/s/tree").text, "low")
    assert "Also in it, by what people said: a group of 6" in said(together) and "UNITED" in said(together)
    assert "a person : unite the clusters of" in said(together)


def test_sizes_are_those_that_agents_left_whatever_people_did_since(db, tmp_path):
    session = made(db, tmp_path / "p", {"high": range(6, 14), "low": range(6)})
    story(db, session)
    Steering(db, "s").split([name(4), name(5)], "own")
    with client_of(db) as client:
        text = client.get("/s/s/tree").text
        low, own = section(text, "low"), said(section(text, "own"))
        Steering(db, "s").unite([1, 2])
        both = said(section(client.get("/s/s/tree").text, "high"))
    assert "4 items · 2 founding groups" in said(low) and "UNITED with a group of 2 " in said(low)
    assert "2 of its 6 stand elsewhere now, by what people said" in said(low) and "a person : split off" in said(low)
    assert "2 items came from the group that is now low , by what people said" in own and "founding group" in own
    assert "UNITED" not in own and "0 founding groups" in own
    assert "Also in it, by what people said: a group of 6" in both and "Kept apart" not in both
    assert "UNITED with a group of 2 " in both and "came from the group" not in both


def test_a_group_that_was_dissolved_later_is_as_large_as_who_stood_for_it(db, tmp_path):
    session = made(db, tmp_path / "p", {"high": [4, 5, *range(6, 14)], "low": range(4)})
    tale = Tale(db, session)
    for node in (1, 2, 3):
        tale.joins([0], node)
    tale.joins([6], 7)
    tale.compares([4, 5], [0, 1], "united")
    for node in (4, 5):
        tale.joins([6], node, did="moved")
    with client_of(db) as client:
        assert "UNITED with a group of 2 " in said(section(client.get("/s/s/tree").text, "low"))


def test_an_item_that_a_person_moved_keeps_the_story_of_the_cluster_that_agents_had_it_in(db, tmp_path):
    session = made(db, tmp_path / "p", {"high": range(6, 14), "low": range(6)})
    _, united, apart = story(db, session)
    moved = Steering(db, "s").move([name(13)], 2)
    Steering(db, "s").undo()
    undone = Steering(db, "s").told()[-1].id
    Steering(db, "s").undo(undone)
    again = Steering(db, "s").told()[-1].id
    with client_of(db) as client:
        steps = re.findall(r'class="step" id="a(\d+)"', client.get("/s/s/i/13").text)
        steps_of_low = re.findall(r'class="step" id="a(\d+)"', client.get("/s/s/i/5").text)
    assert list(map(int, steps[-4:])) == [apart, moved, undone, again] and str(united) not in steps
    assert {str(apart), str(united)} < set(steps_of_low)

    opened, out = Session("s", db.url.render_as_string(hide_password=False)), io.StringIO()
    rows, together = opened.story(name(13)), opened.found_with(name(13))
    assert together == {name(n) for n in range(6, 14)}
    tell_story(Console(file=out, width=200), name(13), name(13), rows, opened.result(), together)
    told = out.getvalue()
    assert "its cluster (06.png, 07.png) compared with that of 00.png, 01.png: NO" in told
    assert f"[{united}:" not in told and f"a person: undo {moved}" in told and "in cluster 1 “low”" in told


def test_a_session_without_decisions_says_so_and_tells_what_answers_say(db, tmp_path):
    session = made(db, tmp_path / "p", {"high": range(6, 14), "low": range(6)})
    story(db, session, decided=False)
    with client_of(db) as client:
        text = client.get("/s/s/tree").text
    assert "no decisions, as older versions left it" in said(text)
    assert "UNITED with a group of" in said(section(text, "low")) and "log-odds" not in said(text)


def test_nothing_that_was_judged_is_told_as_such(db, tmp_path):
    made(db, tmp_path / "p", {"all": range(SIZE)})
    with client_of(db) as client:
        assert "How 14 items came here the ledger does not tell" in said(client.get("/s/s/tree").text)


def test_pages_and_unions_are_bounded(db, tmp_path, monkeypatch):
    session = made(db, tmp_path / "p", {"low": range(12), "x": [12], "y": [13]})
    tale = Tale(db, session)
    for node in range(1, 12):
        tale.compares([0], [node], "united")
    monkeypatch.setattr(tree, "CLUSTERS", 2)
    monkeypatch.setattr(tree, "FOLD", 3)
    monkeypatch.setattr(tree, "GROUPS", 5)
    with client_of(db) as client:
        first = client.get("/s/s/tree").text
        low = section(first, "low")
        assert "12 items · 12 founding groups" in said(low) and low.count("UNITED") == 5
        assert "2 more unions" in said(low) and "… and 6 more unions, too many to show" in said(low)
        following = re.search(r'href="([^"]+)" rel="next"', first)[1]
        rest = client.get(following).text
        assert rest.count('class="cluster grown"') == 1 and 'rel="prev"' in rest and 'rel="next"' not in rest
        assert client.get("/s/s/tree?start=-5").text == first
        assert client.get("/s/s/tree?start=999").status_code == 200
