"""A form means the clusters that its page showed, whatever the agents and other people came to since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from graphs.partition import PARTITION, NamedCluster, Partition
from partita.prices import load_prices
from partita.steering import Steering
from partita.stored import result_of
from partita.web.app import build_app
from partita.web.desk import Desk
from partita.web.earlier import Earlier, come_to
from storage import artefacts
from storage.database import Database, open_database
from storage.sessions import load_session
from tests.partita.made import make_session
from tests.truth import draw


@pytest.mark.parametrize(
    ("before", "now", "number", "found"),
    [
        ([1, 1, 2, 2, 2], [2, 2, 1, 1, 1], 1, 2),  # another number
        ([1, 1, 1, 2, 3], [1, 1, 1, 1, 1], 1, 1),  # it has grown
        ([1, 1, 1, 2, 2], [1, 1, 1, 1, 1], 2, None),  # it was taken into a larger one
        ([1, 1, 2, 2], [1, 1, 1, 1], 1, None),  # of equals it can't be told
        ([1, 1, 1, 1], [1, 1, 2, 2], 1, None),  # it was taken apart
        ([1, 1, 1, 1], [1, 1, 1, 2], 1, 1),
        ([1, 1, 2], [0, 0, 1], 1, None),  # its items stand in none
        ([1, 1, 2], [1, 1, 2, 3, 3], 2, 2),  # items came since
        ([1, 2], [1, 2], 3, None),
        ([0, 0, 1], [1, 1, 2], 0, None),
    ],
)
def test_what_a_cluster_has_come_to(before: list[int], now: list[int], number: int, found: int | None) -> None:
    assert come_to(number, before, now) == found


def test_what_is_oldest_is_forgotten() -> None:
    earlier = Earlier(most=10)
    for stamp in "abc":
        earlier.keep("s", stamp, [1] * 4)
    earlier.keep("s", "c", [1] * 5)
    assert earlier.places("s", "a") is None and earlier.places("t", "b") is None
    assert earlier.places("s", "b") == [1] * 4 and earlier.places("s", "c") == [1] * 5
    earlier.keep("s", "large", [2] * 99)
    assert earlier.places("s", "large") == [2] * 99 and earlier.places("s", "c") is None


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "c").mkdir()
    for number in range(8):
        draw(number * 4099).save(tmp_path / "c" / f"{number}.png")
    with open_database(f"sqlite:///{tmp_path}/p.db") as opened:
        make_session(opened, tmp_path / "c", {"a": names(0, 1, 2), "b": names(3, 4), "c": names(5, 6, 7)})
        yield opened


def names(*numbers: int) -> list[str]:
    return [f"{number}.png" for number in numbers]


def find(db: Database, **found: tuple[int, ...]) -> None:
    """The agents come to these clusters."""
    partition = Partition(tuple(NamedCluster(name, nodes) for name, nodes in found.items()))
    artefacts.put(db, load_session(db, "s").id, PARTITION, partition.to_bytes())


def standing(db: Database) -> dict[str, list[str]]:
    return {c.name: sorted(c.items) for c in result_of(db, "s").clusters}


def test_a_form_of_an_earlier_partition_does_what_it_says(db: Database) -> None:
    find(db, a=(0, 1, 2), c=(5, 6, 7), b=(3, 4))
    desk = Desk(db, load_prices())
    asked = TestClient(build_app(desk), follow_redirects=False)
    stamp = desk.seen("s").partition  # 1: a, 2: c, 3: b

    def told(did: str, **form: object) -> int:
        return asked.post("/s/s/correct", data={"did": did, "partition": stamp} | form).status_code

    find(db, big=(3, 4, 2, 0), c=(5, 6, 7), rest=(1,))
    assert told("move", item="5", to="1") == 400, "a was taken apart"
    assert told("rename", to="1", called="mine") == 400 and told("unite", cluster=["1", "2"]) == 400
    assert Steering(db, "s").told() == []
    find(db, big=(3, 4, 2, 7), c=(5, 6), a=(0, 1))
    assert told("rename", to="1", called="first") == 303 and standing(db)["first"] == names(0, 1)
    assert told("move", item="3", to="1") == 303 and standing(db)["first"] == names(0, 1, 3)
    assert told("unite", cluster=["1", "2"]) == 303 and names(0, 1, 3, 5, 6) in standing(db).values()
    Steering(db, "s").undo()
    assert told("split", item="7", called="own") == 303 and standing(db)["own"] == names(7)
    assert told("together", item=["2", "4", "6"]) == 303 and names(2, 4, 6) in standing(db).values()


def test_apart_means_the_items_that_the_page_showed(db: Database) -> None:
    find(db, a=(0, 1, 2), c=(5, 6, 7), b=(3, 4))
    desk = Desk(db, load_prices())
    asked = TestClient(build_app(desk), follow_redirects=False)
    form = {"did": "apart", "item": "0", "to": "1", "partition": desk.seen("s").partition}
    find(db, one=(0, 1, 5, 6), two=(2, 7, 3, 4))
    assert asked.post("/s/s/correct", data=form).status_code == 303
    assert Steering(db, "s").told()[0].others == names(1, 2)
    assert names(1, 5, 6) in standing(db).values()


def test_a_form_that_is_too_old_does_what_names_items_only(db: Database) -> None:
    asked = TestClient(build_app(Desk(db, load_prices())), follow_redirects=False)
    old = {"partition": "0123456789abcdef.0"}
    refused = asked.post("/s/s/correct", data={"did": "move", "item": "0", "to": "2"} | old)
    assert refused.status_code == 400 and "too old" in refused.text and Steering(db, "s").told() == []
    assert asked.post("/s/s/correct", data={"did": "split", "item": "0"} | old).status_code == 303
