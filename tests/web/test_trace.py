"""The page of all answers: the filters of `partita trace`, also from one page to the next, and what is no filter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from partita import Session
from partita.prices import load_prices
from partita.web import trace
from partita.web.app import build_app
from partita.web.desk import Desk
from storage.database import open_database
from tests.web.conftest import Finished


@pytest.fixture
def client(finished: Finished) -> Iterator[TestClient]:
    with open_database(f"sqlite:///{finished.file}") as db:
        yield TestClient(build_app(Desk(db, load_prices())), raise_server_exceptions=False)


def shown(client: TestClient, **filters: object) -> list[int]:
    """The answers on all pages."""
    address, found = f"/s/s/trace?{urlencode(filters)}", []
    while address:
        page = client.get(address)
        assert page.status_code == 200, page.text
        found += map(int, re.findall(r'class="step" id="a(\d+)"', page.text))
        following = re.search(r'href="([^"]+)" rel="next"', page.text)
        address = unescape(following[1]) if following else ""
    return found


def test_answers_are_filtered_as_the_command_filters_them(client, finished, monkeypatch):
    monkeypatch.setattr(trace, "STEPS", 25)
    session = Session("s", f"sqlite:///{finished.file}")
    rows = list(session.trace())
    middle, ids = rows[len(rows) // 2]["at"], [row["id"] for row in rows]
    assert shown(client) == ids and len(ids) > 50
    assert shown(client, since=middle) == [row["id"] for row in rows if row["at"] >= middle]
    assert shown(client, until=middle) == [row["id"] for row in rows if row["at"] <= middle]
    assert shown(client, since="1h", model="truth") == ids
    assert shown(client, until="1h") == [] == shown(client, model="nobody")
    kept = {"cluster": 2, "conclusion": "NO", "kind": "merge"}
    assert shown(client, **kept) == [row["id"] for row in session.trace(**kept)]


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"since": "nonsense"}, "since 'nonsense': give a time such as"),
        ({"until": "25:00"}, "until '25:00': give a time such as"),
        ({"cluster": "x"}, "cluster 'x': give a cluster's number"),
        ({"cluster": "99"}, "has no cluster 99; there are 1 to 5"),
        ({"kind": "guess"}, "There is no kind 'guess'"),
        ({"conclusion": "MAYBE"}, "There is no conclusion 'MAYBE'"),
        ({"item": "nobody.png"}, "There is no item 'nobody.png'"),
        ({"since": "<script>"}, "since '<script>'"),
    ],
)
def test_what_is_no_filter_is_said(client, filters, said):
    page = client.get(f"/s/s/trace?{urlencode(filters)}")
    assert page.status_code == 400 and said in unescape(page.text)
    assert 'class="step"' not in page.text and "<script>'" not in page.text
