"""Sessions are read when they have changed, as far as they have changed, and pictures without them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert
from starlette.testclient import TestClient

from partita.prices import load_prices
from partita.steering import Steering
from partita.stored import result_of
from partita.web.app import build_app
from partita.web.desk import Desk
from partita.web.steer import _names as steer_names
from storage.database import Database, open_database
from storage.items import scan
from storage.locks import session_lock
from storage.sessions import SessionRecord, add_items, load_session, update_session
from storage.tables import answers
from tests.partita.made import make_session
from tests.truth import draw


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    kind = request.param
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else f"sqlite:///{tmp_path}/p.db"
    with open_database(url) as opened:
        yield opened


@pytest.fixture
def session(db: Database, tmp_path: Path) -> SessionRecord:
    for number in range(5):
        (tmp_path / "c").mkdir(exist_ok=True)
        draw(number * 4099).save(tmp_path / "c" / f"{number}.png")
    made = make_session(db, tmp_path / "c", {"a": ["0.png", "1.png", "2.png"], "b": ["3.png", "4.png"]})
    answered(db, made, 1)
    return made


def answered(db: Database, of: SessionRecord, number: int) -> None:
    """One more question about item 0."""
    row = {
        "session_id": of.id, "key": str(number), "kind": "describe", "attempt": 0, "subject": {"item": 0},
        "prompt_hash": "", "reply": "a", "model": "m", "prompt_tokens": 90, "completion_tokens": 10, "seconds": 0.5,
        "attempts": 1, "origin": "model", "at": datetime.now(UTC),
    }  # fmt: skip
    with db.writing() as connection:
        connection.execute(insert(answers), row)


def test_a_session_is_read_again_when_it_has_changed(
    db: Database, session: SessionRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read: list[str] = []
    monkeypatch.setattr("partita.web.desk.load_items", lambda *a: (read.append("items"), _load_items(*a))[1])
    desk = Desk(db, load_prices())
    seen = desk.seen("s")
    assert desk.seen("s") is seen and len(read) == 1

    answered(db, session, 2)
    update_session(db, session.id, status="paused", why="tea", seconds={"describe": 2.0})
    gone_on = desk.seen("s")
    assert len(read) == 1, "the clusters are still the same"
    assert gone_on.result.calls["describe"] == 2 and gone_on.result.seconds == {"describe": 2.0}
    assert (gone_on.result.status, gone_on.result.why) == ("paused", "tea") and gone_on.record.why == "tea"
    assert gone_on.partition == seen.partition and gone_on.result.clusters == seen.result.clusters

    Steering(db, "s").move(["0.png"], 2)
    moved = desk.seen("s")
    assert moved.partition != seen.partition and "0.png" in moved.result.cluster(1).items
    Steering(db, "s").undo()
    assert desk.seen("s").partition not in (seen.partition, moved.partition)
    assert [c.items for c in desk.seen("s").result.clusters] == [c.items for c in seen.result.clusters]

    draw(99).save(tmp_path / "c" / "later.png")
    add_items(db, session.id, scan(tmp_path / "c"))
    assert desk.seen("s").numbers["later.png"] == 5


def test_numbers_of_clusters_never_go_by_the_stamp_of_others(
    db: Database, session: SessionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, hands = Desk(db, load_prices()), Steering(db, "s")
    read = result_of
    moves = iter([(["0.png"], 2), (["1.png"], 1), (["2.png"], 1)])

    def read_late(*given: object) -> object:
        if (move := next(moves, None)) is not None:
            hands.move(*move)  # between the stamp and the clusters
        return read(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("partita.web.desk.result_of", read_late)
    stamps = {desk.partition(session.id)}
    assert desk.seen("s").partition not in stamps, "it changed at each of the readings"
    seen = desk.seen("s")
    assert seen.partition == desk.partition(session.id) and seen.result == read(db, "s")


def test_a_form_s_clusters_are_those_that_it_was_made_from(
    db: Database, session: SessionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(db, load_prices())
    asked = TestClient(build_app(desk), follow_redirects=False)
    stamp = desk.seen("s").partition
    checked = steer_names

    def names_late(*given: object) -> object:
        Steering(db, "s").move(["0.png"], 2)  # now the other cluster is the first
        return checked(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("partita.web.steer._names", names_late)
    told = {"did": "rename", "to": "1", "called": "mine", "partition": stamp}
    assert asked.post("/s/s/correct", data=told).status_code == 303
    assert {c.name: c.items for c in result_of(db, "s").clusters}["mine"] == ["1.png", "2.png"]


def _load_items(*given: object) -> object:
    from storage.sessions import load_items

    return load_items(*given)  # type: ignore[arg-type]


def test_a_picture_needs_its_item_only(db: Database, session: SessionRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partita.web.desk.result_of", pytest.fail)
    monkeypatch.setattr("partita.web.desk.load_items", pytest.fail)
    asked = TestClient(build_app(Desk(db, load_prices())))
    answer = asked.get("/s/s/i/3/picture?side=384")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    assert asked.get("/s/s/i/3/picture?side=384", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert asked.get("/s/s/i/5/picture").status_code == 400


def test_spending_is_as_old_as_its_sum_took_while_a_session_runs(
    db: Database, session: SessionRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("partita.web.desk.time.monotonic", lambda: clock.append(clock[-1] + 1.0) or clock[-1])
    desk = Desk(db, load_prices())
    assert desk.spend("s").total.calls == 1 and desk.tally(load_session(db, "s"))["describe"] == 1
    answered(db, session, 2)
    assert desk.spend("s").total.calls == 2 and desk.tally(load_session(db, "s"))["describe"] == 2
    with session_lock(db, session.id, "s"):
        update_session(db, session.id, status="running")
        assert desk.spend("s").total.calls == 2
        answered(db, session, 3)
        assert desk.spend("s").total.calls == 2, "adding up took a second: it rests for some"
        clock.append(clock[-1] + 10)
        assert desk.spend("s").total.calls == 3
    update_session(db, session.id, status="done")
    answered(db, session, 4)
    assert desk.spend("s").total.calls == 4
