"""The map of a session: drawn once in the background, coloured by the clusters of now, bounded and harmless."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import insert
from starlette.testclient import TestClient

from graphs.likeness import VECTORS, bytes_of, whole_vectors
from graphs.relational import GRAPH
from partita.prices import find_prices
from partita.steering import Steering
from partita.web import maps
from partita.web.app import build_app
from partita.web.desk import Desk
from partita.web.embeddings import Embeddings
from partita.web.maps import MAP, Map
from partita.web.palette import COLOURED, colours, mark
from storage import artefacts
from storage.database import open_database
from storage.tables import answers
from tests.partita.made import make_session

SIZE = 12
HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture
def db(tmp_path):
    with open_database(f"sqlite:///{tmp_path}/partita.db") as opened:
        yield opened


@pytest.fixture
def session(db, tmp_path):
    """Twelve pictures in two clusters, one with a hostile name."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = [f"{number:02}.png" for number in range(SIZE - 1)] + [HOSTILE]
    for number, name in enumerate(names):
        Image.new("RGB", (40, 30), (20 * number, 90, 255 - 20 * number)).save(folder / name)
    names = sorted(names)
    return make_session(db, folder, {"<b>low</b>": names[:7], "high": names[7:]})


def vectors(count=SIZE):
    rng = np.random.default_rng(1)
    return whole_vectors(rng.normal(size=(count, 8)) + 3 * (np.arange(count) >= 7)[:, None])


def store_map(db, session, stored=None):
    """A map as if it had been drawn."""
    stored = vectors() if stored is None else stored
    artefacts.put(db, session.id, VECTORS, bytes_of(stored))
    places = np.stack([np.linspace(0, 1, len(stored)), np.linspace(1, 0, len(stored))], axis=1).astype(np.float32)
    drawn = Map(artefacts.digest(db, session.id, VECTORS), places)
    artefacts.put(db, session.id, MAP, drawn.to_bytes())
    return drawn


def desk_of(db):
    return Desk(db, find_prices(None, None))


@pytest.fixture
def client(db, session):
    with TestClient(build_app(desk_of(db))) as opened:
        yield opened


def never(*_):
    raise AssertionError("this is drawn already")


def test_it_is_drawn_once_in_the_background_and_kept_with_the_session(db, session, monkeypatch):
    artefacts.put(db, session.id, VECTORS, bytes_of(vectors()))
    desk = desk_of(db)
    with TestClient(build_app(desk)) as client:
        page = client.get("/s/s/map")
        assert page.status_code == 200 and "is being drawn" in page.text
        desk.maps.settle()
        state = client.get("/s/s/map/state").text
        address = re.search(r'data-points="([^"]+)"', state)[1]
        points = client.get(address)
        assert "immutable" in points.headers["cache-control"]
        told = points.json()
    assert sorted(told["item"]) == list(range(SIZE))
    assert all(0 <= value <= told["grid"] for value in (*told["x"], *told["y"]))
    monkeypatch.setattr(maps, "apart", never)
    with TestClient(build_app(desk_of(db))) as again:
        assert again.get(address).json() == told
    assert artefacts.get(db, session.id, MAP) is not None


def test_other_embeddings_have_another_map(db, session, monkeypatch):
    store_map(db, session)
    monkeypatch.setattr(maps, "apart", lambda rows: np.full((len(rows), 2), 0.25, dtype=np.float32))
    artefacts.put(db, session.id, VECTORS, bytes_of(vectors()[::-1].copy()))
    desk = desk_of(db)
    desk.maps.of(session.id)
    desk.maps.settle()
    assert float(desk.maps.of(session.id).places.max()) == 0.25


def test_without_embeddings_the_page_says_so(client, db, session):
    assert "There is no map" in client.get("/s/s/map").text
    artefacts.put(db, session.id, GRAPH, b"a graph")
    app = client.app.state.desk
    client.get("/s/s/map")
    app.maps.settle()
    assert "could not be drawn: the ledger holds no embeddings" in client.get("/s/s/map").text
    assert client.get("/s/s/map/points").status_code == 400


def test_clusters_follow_corrections_and_positions_stay(client, db, session):
    store_map(db, session)
    before, points = client.get("/s/s/map/clusters").json(), client.get("/s/s/map/points").json()
    assert before["cluster"].count(1) == 7 and before["cluster"].count(2) == 5 and set(before["sure"]) == {50, 75}
    Steering(db, "s").move([session_items(client)[0]], 2)
    after = client.get("/s/s/map/clusters").json()
    assert after["partition"] != before["partition"]
    assert after["cluster"].count(1) == 6 and 100 in after["sure"]
    assert client.get("/s/s/map/points").json() == points


def attributes(html):
    """The names of all attributes of all elements."""
    found = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda _, given: found.update(name for name, _ in given)
    parser.feed(html)
    return found


def session_items(client):
    return client.app.state.desk.seen("s").result.cluster(1).items


def test_names_of_others_are_words_on_every_part_of_it(client, db, session):
    store_map(db, session)
    hostile = client.app.state.desk.seen("s").numbers[HOSTILE]
    for path in ("map", "map/state", "map/legend", f"map/card/{hostile}", "map/drawn.svg"):
        text = client.get(f"/s/s/{path}").text
        assert "<b>" not in text and "<img src=x" not in text and "<script>" not in text, path
        assert not {name for name in attributes(text) if name == "style" or name.startswith("on")}, path
    card = client.get(f"/s/s/map/card/{hostile}").text
    assert "&lt;img src=x" in card and f"/s/s/i/{hostile}/picture" in card
    assert "&lt;b&gt;low&lt;/b&gt;" in client.get("/s/s/map/card/0").text
    assert "&lt;b&gt;low&lt;/b&gt;" in client.get("/s/s/map/legend").text


def test_without_script_there_is_a_picture_of_it(client, db, session):
    drawn = store_map(db, session)
    page = client.get("/s/s/map").text
    still = re.search(r"<noscript>.*?</noscript>", page, re.DOTALL)[0]
    assert 'alt="Map of 12 items in 2 clusters' in still and "prefers-color-scheme: dark" in still
    for scheme in ("light", "dark"):
        answered = client.get(f"/s/s/map/drawn.svg?scheme={scheme}")
        assert answered.headers["content-type"] == "image/svg+xml"
        marks = list(ET.fromstring(answered.text))
        assert len(marks) == SIZE
        assert {one.get("fill") for one in marks} == set(colours(scheme)[1:3])
        assert {one.get("cx") for one in marks} == {f"{1000 * x:.1f}" for x in drawn.places[:, 0].tolist()}
    assert client.get("/s/s/map/drawn.svg?scheme=pink").status_code == 400


def test_items_without_an_embedding_are_not_on_it(client, db, session):
    stored = vectors()
    store_map(db, session, stored)
    places = Map.from_bytes(artefacts.get(db, session.id, MAP)).places
    places[3] = np.nan
    artefacts.put(db, session.id, MAP, Map(artefacts.digest(db, session.id, VECTORS), places).to_bytes())
    assert client.get("/s/s/map/points").json()["item"] == [n for n in range(SIZE) if n != 3]
    assert len(client.get("/s/s/map/clusters").json()["cluster"]) == SIZE - 1


def test_items_that_are_embedded_alike_are_said_to_be(client, db, session):
    stored = np.zeros_like(vectors())
    store_map(db, session, stored)
    assert "nothing to draw" not in client.get("/s/s/map").text
    nowhere = np.full((len(stored), 2), np.nan, dtype=np.float32)
    artefacts.put(db, session.id, MAP, Map(artefacts.digest(db, session.id, VECTORS), nowhere).to_bytes())
    with TestClient(build_app(desk_of(db))) as again:
        assert "There is nothing to draw" in again.get("/s/s/map").text
        assert "Its embedding tells nothing" in again.get("/s/s/i/3").text


# -- embeddings --------------------------------------------------------------------------------------------------------


def row(session, kind, node, **more):
    return {
        "session_id": session.id, "key": f"{kind} {node}", "kind": kind, "attempt": 0, "subject": {"item": node},
        "prompt_hash": "", "reply": "", "model": "m", "seconds": 0.0, "attempts": 1, "origin": "model",
        "at": datetime.now(UTC), "vector": None,
    } | more  # fmt: skip


def test_policy_paper_has_its_embeddings_from_the_ledger(db, session):
    raw = np.random.default_rng(4).normal(size=(SIZE, 6)).astype(np.float32)
    raw[5] = raw[2]
    rows = [row(session, "describe", node, reply=f"number {node}") for node in range(SIZE)]
    rows[5]["reply"] = "number 2"  # described alike, so one answer holds both embeddings
    rows += [row(session, "embed", node, vector=raw[node].tobytes()) for node in range(SIZE) if node != 5]
    with db.writing() as connection:
        connection.execute(insert(answers), rows)
    assert Embeddings(db).of(session.id) is None  # before the graph is made some may be missing
    artefacts.put(db, session.id, GRAPH, b"a graph")
    embedded = Embeddings(db).of(session.id)
    assert np.array_equal(embedded.vectors, whole_vectors(raw))
    (twin, cosine), *_ = embedded.nearest(2, 3)
    assert twin == 5 and cosine == pytest.approx(1, abs=1e-6)
    artefacts.put(db, session.id, VECTORS, bytes_of(whole_vectors(raw[::-1].copy())))
    assert np.array_equal(Embeddings(db).of(session.id).vectors, whole_vectors(raw[::-1].copy()))


def test_sessions_with_the_same_graph_have_maps_of_their_own(db, session, monkeypatch):
    other = make_session(db, Path(session.collection), {"all": ["00.png"]}, name="other")
    monkeypatch.setattr(maps, "apart", lambda rows: np.repeat(rows[:, :1].astype(np.float32), 2, axis=1))
    desk = desk_of(db)
    for number, one in enumerate((session, other), 1):
        raw = np.random.default_rng(number).normal(size=(SIZE, 6)).astype(np.float32)
        told = [row(one, "embed", node, vector=raw[node].tobytes()) for node in range(SIZE)]
        with db.writing() as connection:
            connection.execute(insert(answers), told)
        artefacts.put(db, one.id, GRAPH, b"no edges")
        desk.maps.of(one.id)
        desk.maps.settle()
    first, second = (float(desk.maps.of(one.id).places[0, 0]) for one in (session, other))
    assert first != second


def test_an_items_page_shows_the_nearest_and_reads_embeddings_once(client, db, session, monkeypatch):
    stored = vectors()
    stored[0] = 0
    artefacts.put(db, session.id, VECTORS, bytes_of(stored))
    page = client.get("/s/s/i/8").text
    assert "Nearest by their embeddings" in page
    order = np.argsort(
        [-float(np.dot(stored[8].astype(float), v.astype(float))) / (np.linalg.norm(v) or 1) for v in stored]
    )
    first = next(int(at) for at in order if at not in (0, 8))
    near = page[page.index("Nearest by") :]
    assert re.search(r"/s/s/i/(\d+)", near)[1] == str(first)
    monkeypatch.setattr("partita.web.embeddings.vectors_from", never)
    assert "Nearest by" in client.get("/s/s/i/3").text
    assert "Its embedding tells nothing" in client.get("/s/s/i/0").text


# -- colours -----------------------------------------------------------------------------------------------------------

# Machado, Oliveira and Fernandes (2009): what is left of linear RGB without one kind of cones.
SIGHTS = {
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_CONES = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
TO_LAB = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]


def linear(colour):
    value = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def seen(colour, sight):
    """In OKLab, where 0.02 is just a difference."""
    return np.cbrt(np.clip(np.array(SIGHTS[sight]) @ linear(colour), 0, 1) @ np.array(TO_CONES).T) @ np.array(TO_LAB).T


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_twelve_colours_and_grey_differ_for_everybody(scheme, sight):
    palette = colours(scheme)
    assert len(set(palette)) == 13
    away = [np.linalg.norm(seen(a, sight) - seen(b, sight)) for a, b in combinations(palette, 2)]
    assert min(away) > 0.07


@pytest.mark.parametrize(("scheme", "paper"), [("light", "#ffffff"), ("dark", "#1f2024")])
def test_colours_stand_out_from_the_page(scheme, paper):
    def light(colour):
        return float(linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05

    for colour in colours(scheme)[1:]:
        assert max(light(colour), light(paper)) / min(light(colour), light(paper)) > 2.7, colour


def test_clusters_have_marks_of_their_own_until_the_small_ones_are_grey():
    assert len({mark(number) for number in range(1, COLOURED + 1)}) == COLOURED
    assert {mark(number) for number in (0, COLOURED + 1, 10_000)} == {(0, "circle")}
