"""The saver: as LangGraph wants savers, by group commit, strict, small, and beside the ledger never 'locked'."""

from __future__ import annotations

import asyncio
import operator
import subprocess
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langgraph.checkpoint.base import ERROR, INTERRUPT, BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.conformance.test_utils import generate_checkpoint, generate_config, generate_metadata
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from sqlalchemy import event, func, select

from storage.checkpoints import open_checkpointer, strict_serializer
from storage.database import Database, open_database
from storage.errors import DatabaseError, SessionError
from storage.ledger import Ledger
from storage.sessions import SessionRecord
from storage.tables import graph_checkpoints, graph_writes
from storage.view import CheckpointView
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


async def test_conformance(db: Database) -> None:
    """LangGraph's own suite, all of what it knows."""

    @checkpointer_test(name="partita")
    async def opened() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
        async with open_checkpointer(db) as saver:
            yield saver

    report = await validate(opened)
    assert {name: (result.passed, result.failures) for name, result in report.results.items()} == {
        capability.value: (True, []) for capability in Capability
    }


async def test_it_goes_on_after_an_interrupt_and_an_error(url: str) -> None:
    """What LangGraph keeps in special writes, in three processes' worth of savers."""
    config: Any = {"configurable": {"thread_id": "t1"}}
    broken = True

    async def asking(state: State) -> dict[str, int]:
        said = interrupt("how many?")
        if broken:
            raise ValueError("no")
        return {"cursor": int(said)}

    for said, outcome in ((None, {"cursor": 1}), (5, ValueError), (5, {"cursor": 6})):
        with open_database(url) as db:
            async with open_checkpointer(db) as saver:
                built = StateGraph(State)
                built.add_node("asking", asking)
                built.add_edge(START, "asking")
                agent = built.compile(checkpointer=saver)
                start: Any = {"cursor": 1} if said is None else Command(resume=said)
                if isinstance(outcome, dict):
                    assert {"cursor": (await agent.ainvoke(start, config))["cursor"]} == outcome
                else:
                    with pytest.raises(outcome):
                        await agent.ainvoke(start, config)
                    broken = False
                there = await agent.aget_state(config)
                assert there.next == (("asking",) if outcome != {"cursor": 6} else ())


def test_without_an_event_loop(db: Database) -> None:
    def counted(state: State) -> dict[str, int]:
        return {"cursor": 1}

    async def opened() -> None:
        async with open_checkpointer(db) as saver:
            await asyncio.to_thread(use, saver)

    def use(saver: Any) -> None:
        built = StateGraph(State)
        built.add_node("count", counted)
        built.add_edge(START, "count")
        agent = built.compile(checkpointer=saver)
        for name in ("t1", "t2"):
            agent.invoke({"cursor": 1}, {"configurable": {"thread_id": name}})
        config: Any = {"configurable": {"thread_id": "t1"}}
        assert agent.get_state(config).values == {"cursor": 2}
        assert [one.metadata["step"] for one in saver.list(config)] == [1, 0, -1]
        assert [one.metadata["step"] for one in saver.list(None, limit=4)] == [1, 0, -1, 1]
        assert [one.values for one in agent.get_state_history(config)] == [{"cursor": 2}, {"cursor": 1}, {"cursor": 0}]
        saver.copy_thread("t1", "t3")
        saver.prune(["t3"])
        assert len(list(saver.list({"configurable": {"thread_id": "t3"}}))) == 1
        saver.delete_thread("t1")
        assert saver.get_tuple(config) is None and saver.get({"configurable": {"thread_id": "t2"}}) is not None
        with pytest.raises(ValueError, match="strategy"):
            saver.prune(["t2"], strategy="half")

    asyncio.run(opened())
    with db.reading() as connection:
        for table in (graph_checkpoints, graph_writes):
            left = connection.scalars(select(table.c.thread).distinct().order_by(table.c.thread)).all()
            assert len(left) == (2 if table is graph_checkpoints else 1)


async def test_all_is_listed_page_by_page(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.saver._PAGE", 3)
    config: Any = {"configurable": {"thread_id": "t1"}}
    async with open_checkpointer(db) as saver:
        for step in range(10):
            await put(saver, "t1", step)
            await put(saver, "t1", step, ns="inner:1")
        assert [one.metadata["step"] async for one in saver.alist(config | {})] == [
            s for s in range(9, -1, -1) for _ in "ab"
        ]
        assert len([one async for one in saver.alist(None, filter={"step": 4})]) == 2
        assert [one.metadata["step"] async for one in saver.alist(config, limit=5)] == [9, 9, 8, 8, 7]
        assert [one async for one in saver.alist(config, limit=0)] == []


async def test_the_first_of_a_write_counts_and_the_last_of_a_special_one(db: Database) -> None:
    async with open_checkpointer(db) as saver:
        where = await put(saver, "t1", 0)
        await saver.aput_writes(where, [("a", 1), (INTERRUPT, "x")], "task1", "path2")
        await saver.aput_writes(where, [("a", 2), ("b", [1, {"c": None}]), (INTERRUPT, "y")], "task1", "path2")
        await saver.aput_writes(where, [(ERROR, "first of all")], "task2", "path1")
        found = await saver.aget_tuple(where)
        assert found is not None and found.pending_writes == [
            ("task2", ERROR, "first of all"),
            ("task1", INTERRUPT, "y"),
            ("task1", "a", 1),
            ("task1", "b", [1, {"c": None}]),
        ]


async def put(saver: Any, thread: str, step: int, ns: str = "", **values: Any) -> Any:
    checkpoint = generate_checkpoint(channel_values=values, channel_versions=dict.fromkeys(values, step))
    return await saver.aput(generate_config(thread, checkpoint_ns=ns), checkpoint, generate_metadata(step=step), {})


async def test_a_thin_saver_keeps_the_newest_of_what_came_together(db: Database) -> None:
    async with open_checkpointer(db, thin=True) as saver:
        for step in range(20):
            for thread in ("t1", "t2"):
                where = await put(saver, thread, step, cursor=step)
                await saver.aput_writes(where, [("cursor", step + 1)], "task")
        for thread in ("t1", "t2"):
            found = [one async for one in saver.alist(generate_config(thread))]
            assert [one.metadata["step"] for one in found] == [19]
            assert found[0].checkpoint["channel_values"] == {"cursor": 19}
            assert found[0].pending_writes == [("task", "cursor", 20)]
        await put(saver, "t1", 20)
        # What is written already stays.
        assert [one.metadata["step"] async for one in saver.alist(generate_config("t1"))] == [20, 19]
        assert await graph(saver, 30).ainvoke(
            {"cursor": 0}, {"configurable": {"thread_id": "t3"}, "recursion_limit": 99}
        )
        assert (await graph(saver, 30).aget_state({"configurable": {"thread_id": "t3"}})).values == {"cursor": 30}


async def test_many_supersteps_share_a_commit(db: Database) -> None:
    async with open_checkpointer(db) as saver:
        commits: list[object] = []
        event.listen(db.engine, "commit", commits.append)
        for step in range(500):
            await put(saver, f"t{step % 7}", step)
        assert (await saver.aget_tuple(generate_config("t0"))) is not None
        assert 1 <= len(commits) <= 50
        assert len([one async for one in saver.alist(None)]) == 500


class Component(TypedDict, total=False):
    session: str
    component: int
    size: int
    step: int
    clusters: int
    seed: int
    members: int
    candidate: int
    representatives: list[int]
    conclusion: str


async def test_a_superstep_is_small_however_many_there_were(tmp_path: Any) -> None:
    async def candidate(state: Component) -> Command[Literal["assess"]]:
        return Command(goto="assess", update={"candidate": 7, "representatives": [1, 2, 3]})

    async def assess(state: Component) -> Command[Literal["update", "prune"]]:
        taken: Literal["update", "prune"] = "update" if state["step"] % 3 else "prune"
        return Command(goto=taken, update={"step": state["step"] + 1, "conclusion": "YES"})

    async def update(state: Component) -> Command[Literal["candidate", "__end__"]]:
        return Command(
            goto="__end__" if state["step"] >= 150 else "candidate", update={"members": state["members"] + 1}
        )

    built = StateGraph(Component)
    for name, node in {"candidate": candidate, "assess": assess, "update": update, "prune": update}.items():
        built.add_node(name, node)
    built.add_edge(START, "candidate")
    session = str(uuid.uuid4())
    config: Any = {
        "configurable": {"thread_id": str(uuid.uuid4())},
        "recursion_limit": 10**6,
        "metadata": {"session": session, "part": "component 0"},
    }
    start: Component = {"session": session, "component": 0, "size": 1500, "step": 0, "clusters": 13, "members": 44}
    with open_database(f"sqlite:///{tmp_path}/small.db") as db:
        before = pages(db)
        async with open_checkpointer(db) as saver:
            await built.compile(checkpointer=saver).ainvoke(start, config)
        with db.reading() as connection:
            size = func.length(graph_checkpoints.c.payload)
            early, late = (
                connection.scalars(select(size).order_by(order).limit(100)).all()
                for order in (graph_checkpoints.c.checkpoint, graph_checkpoints.c.checkpoint.desc())
            )
            supersteps = connection.scalar(select(func.count()).select_from(graph_checkpoints))
        assert supersteps == 452
        assert sum(late) < sum(early) * 1.1
        assert (pages(db) - before) * 4096 / supersteps < 1000


def pages(db: Database) -> int:
    with db.reading() as connection:
        return int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())


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
    with pytest.raises(Broken):
        await breaking(db, config)


async def breaking(db: Database, config: Any) -> None:
    async with open_checkpointer(db) as saver:
        running = graph(saver, 3)
        await running.ainvoke({"cursor": 0}, config)
        found = await saver.aget_tuple(config)
        assert found is not None
        with db.writing() as connection:
            for name in ("graph_writes", "graph_checkpoints"):
                connection.exec_driver_sql(f"DROP TABLE {name}")
        await saver.aput(found.config, found.checkpoint, found.metadata, {})
        for fails in (
            saver.aget_tuple(config),
            saver.aput(found.config, found.checkpoint, found.metadata, {}),
            saver.aput_writes(found.config, [("cursor", 1)], "task"),
            anext(aiter(saver.alist(config))),
            saver.adelete_thread("t1"),
            running.ainvoke({"cursor": 0}, config),
        ):
            with pytest.raises(DatabaseError) as caught:
                await fails
            assert "\n" not in str(caught.value)
        with pytest.raises(DatabaseError):
            saver.close()
        raise Broken  # the first error is not covered up by that of closing


class Broken(Exception):
    pass


async def test_closing_tells_of_what_could_not_be_written(db: Database) -> None:
    with pytest.raises(DatabaseError):
        async with open_checkpointer(db) as saver:
            await put(saver, "t1", 0)
            with db.writing() as connection:
                connection.exec_driver_sql("DROP TABLE graph_checkpoints")


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


async def test_a_view_reads_what_a_saver_writes_and_refuses_to_write(db: Database) -> None:
    config = {"configurable": {"thread_id": "t1"}}
    view = CheckpointView(db)
    async with open_checkpointer(db) as saver:
        await graph(saver, 3).ainvoke({"cursor": 0}, config)
        written = [one async for one in saver.alist(config)]
        assert [one async for one in view.alist(config)] == written and len(written) == 5
        assert (await graph(view, 3).aget_state(config)).values == {"cursor": 3}
        assert view.thread_ids() == {"t1"}

        run = {**config, "metadata": {}}
        for refused in (
            graph(view, 4).ainvoke({"cursor": 0}, config),
            graph(view, 4).ainvoke({"cursor": 0}, {"configurable": {"thread_id": "t2"}}),
            graph(view, 4).aupdate_state(config, {"cursor": 1}),
            view.aput(run, generate_checkpoint(), generate_metadata(), {}),
            view.aput_writes(written[0].config, [("cursor", 1)], "task"),
            view.adelete_thread("t1"),
            view.adelete_for_runs(["r"]),
            view.acopy_thread("t1", "t2"),
            view.aprune(["t1"]),
        ):
            with pytest.raises(SessionError, match="only shown"):
                await refused
        await view.adelete_thread("t2")  # which isn't there
        assert [one async for one in saver.alist(None)] == written
