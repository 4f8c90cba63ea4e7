"""LangGraph's savers beside the ledger: strict, and never 'database is locked'."""

from __future__ import annotations

import asyncio
import operator
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from storage.checkpoints import open_checkpointer, strict_serializer
from storage.database import Database, open_database
from storage.errors import DatabaseError
from storage.ledger import Ledger
from storage.sessions import SessionRecord
from tests.storage.conftest import answer


class State(TypedDict):
    cursor: Annotated[int, operator.add]


async def count(state: State) -> dict[str, int]:
    return {"cursor": 1}


def graph(saver: Any, steps: int) -> Any:
    built = StateGraph(State)
    built.add_node("count", count)
    built.add_edge(START, "count")
    built.add_conditional_edges("count", lambda state: END if state["cursor"] >= steps else "count")
    return built.compile(checkpointer=saver)


async def test_a_graph_goes_on_after_reopening(url: str) -> None:
    config = {"configurable": {"thread_id": "t1"}}
    for _ in range(2):
        with open_database(url) as db:
            async with open_checkpointer(db) as saver:
                found = await graph(saver, 3).aget_state(config)
                if not found.values:
                    await graph(saver, 3).ainvoke({"cursor": 0}, config)
    assert found.values == {"cursor": 3}


async def test_checkpoints_and_ledger_write_side_by_side(db: Database, session: SessionRecord) -> None:
    """Two writers, no pause: one component's checkpoints a step, 32 calls in flight."""

    async def component(saver: Any, number: int) -> None:
        await graph(saver, 15).ainvoke(
            {"cursor": 0}, {"configurable": {"thread_id": f"t{number}"}, "recursion_limit": 100}
        )

    async def caller(ledger: Ledger, number: int) -> None:
        for step in range(30):
            await ledger.record(answer(f"{number}-{step}"), "prompt")

    with Ledger(db, session.id) as ledger:
        async with open_checkpointer(db) as saver:
            await asyncio.gather(
                *(component(saver, number) for number in range(12)), *(caller(ledger, number) for number in range(32))
            )
            assert [(await graph(saver, 15).aget_state({"configurable": {"thread_id": f"t{number}"}})).values
                    for number in range(12)] == [{"cursor": 15}] * 12  # fmt: skip
        assert len(ledger.load()) == 32 * 30


async def test_a_database_that_breaks_in_a_run_is_one_line(db: Database) -> None:
    config: Any = {"configurable": {"thread_id": "t1", "checkpoint_ns": ""}}
    async with open_checkpointer(db) as saver:
        running = graph(saver, 3)
        await running.ainvoke({"cursor": 0}, config)
        found = await saver.aget_tuple(config)
        assert found is not None
        with db.writing() as connection:
            for name in ("checkpoints", "writes" if db.kind == "sqlite" else "checkpoint_writes"):
                connection.exec_driver_sql(f"DROP TABLE {name}")
        for fails in (
            saver.aput(found.config, found.checkpoint, found.metadata, {}),
            saver.aput_writes(found.config, [("cursor", 1)], "task"),
            saver.aget_tuple(config),
            anext(aiter(saver.alist(config))),
            running.ainvoke({"cursor": 0}, config),
        ):
            with pytest.raises(DatabaseError) as caught:
                await fails
            assert "\n" not in str(caught.value)


SETUP = """
import asyncio, sys
from storage.checkpoints import open_checkpointer
from storage.database import open_database
async def main(url):
    with open_database(url) as db:
        async with open_checkpointer(db) as saver:
            print(type(saver).__name__)
asyncio.run(main(sys.argv[1]))
"""


def test_many_processes_may_set_it_up_at_once(url: str, python: Callable[..., subprocess.Popen[str]]) -> None:
    outcomes = [process.communicate(timeout=120) for process in [python(SETUP, url) for _ in range(3)]]
    assert [err for _, err in outcomes] == [""] * 3
    assert len({out for out, _ in outcomes}) == 1


@dataclass
class Own:
    number: int


def test_the_serialiser_is_strict() -> None:
    plain = strict_serializer()
    kind, payload = plain.dumps_typed({"cursor": [1, 2], "own": Own(3)})
    assert plain.loads_typed((kind, payload)) == {"cursor": [1, 2], "own": {"number": 3}}
    assert strict_serializer(Own).loads_typed((kind, payload))["own"] == Own(3)
    with pytest.raises(Exception, match=r"(?i)pickle|NotImplemented|Unknown"):
        plain.loads_typed(("pickle", b"cos\nsystem\n(S'true'\ntR."))
    with pytest.raises(TypeError):
        plain.dumps_typed({"f": lambda: None})
