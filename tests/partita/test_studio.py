"""LangGraph's own server over a database with a finished and a running session, by its HTTP API."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from aiohttp import web
from click.testing import CliRunner
from sqlalchemy import select

from partita import cluster
from partita.commands.studio import command, server_environment
from partita.studio import Directory
from storage.database import open_database
from storage.errors import UsageError
from storage.sessions import list_sessions, update_session
from storage.tables import metadata
from storage.view import ONLY_SHOWN, CheckpointView
from tests.command_line import ROOT
from tests.truth import Truth, numbers, serving

T = TypeVar("T")
SECONDS = 90
"""After which whatever was waited for won't come."""

needs_server = pytest.mark.skipif(
    not (find_spec("langgraph_cli") and find_spec("langgraph_api")), reason="langgraph-cli[inmem] is not installed"
)


@dataclass
class Held(Truth):
    """Answers so many requests, and keeps the others waiting until it may answer more."""

    answers: int = 130
    more: threading.Condition = field(default_factory=threading.Condition)

    async def _fault(self) -> web.StreamResponse | str | None:
        found = await super()._fault()
        mine = self.served
        await asyncio.to_thread(self._wait, mine)
        return found

    def _wait(self, mine: int) -> None:
        with self.more:
            self.more.wait_for(lambda: mine <= self.answers, SECONDS)

    def allow(self, more: int) -> None:
        with self.more:
            self.answers += more
            self.more.notify_all()


@contextmanager
def begun(truth: Held, url: str, folder: Path) -> Iterator[None]:
    """The session `live`, as far as the endpoint lets it come; finished afterwards."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            cluster, folder, "kind", session="live", db=url, endpoint=truth.url, embed_mode="native", policy="paper"
        )
        try:
            yield
        finally:
            truth.allow(10**6)
        assert len(running.result(SECONDS).clusters) == 5


@contextmanager
def server(words: list[str], url: str, folder: Path) -> Iterator[httpx.Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    foreign = ("PARTITA_", "OPENAI_", "COV", "LANGSMITH_", "LANGCHAIN_", "LANGGRAPH_", "OTEL_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    own = {"PARTITA_DB": url, "PYTHONPATH": str(ROOT), "LANGGRAPH_CLI_NO_ANALYTICS": "1"}
    folder.mkdir()
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *words, "--port", str(port)], cwd=folder, env=inherited | own,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:

            def answers() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return client.get("/ok").is_success
                except httpx.TransportError:
                    return False

            eventually(answers, bool)
            yield client
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) is not None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def eventually(look: Callable[[], T], good: Callable[[T], Any]) -> T:
    """What `look` gives as soon as it is good."""
    deadline = time.monotonic() + SECONDS
    while not good(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def threads(client: httpx.Client, **wanted: Any) -> dict[str, dict[str, Any]]:
    """Those of a session's parts, by their names."""
    found = client.post("/threads/search", json={"metadata": wanted, "limit": 100}).raise_for_status().json()
    return {thread["metadata"]["part"]: thread for thread in found}


def registered(found: dict[str, dict[str, Any]]) -> bool:
    """The session's own thread is the last of its threads to be told of."""
    return "session" in found


def state(client: httpx.Client, thread: dict[str, Any]) -> dict[str, Any]:
    return client.get(f"/threads/{thread['thread_id']}/state").raise_for_status().json()


def history(client: httpx.Client, thread: dict[str, Any]) -> list[dict[str, Any]]:
    asked = client.post(f"/threads/{thread['thread_id']}/history", json={"limit": 1000})
    return asked.raise_for_status().json()


def digest(url: str) -> str:
    """Of everything in the database."""
    said = hashlib.sha256()
    with open_database(url) as db, db.reading() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(select(table).order_by(*table.primary_key)):
                said.update(repr(row).encode())
    return said.hexdigest()


@pytest.fixture
def url(request, cli):
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return cli.db


@needs_server
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite", ["langgraph_cli", "dev", "--config", str(ROOT / "langgraph.json"), "--no-browser", "--no-reload"]),
        ("postgresql", ["partita", "studio"]),
    ],
    indirect=["url"],
    ids=["sqlite-langgraph dev", "postgresql-partita studio"],
)
def test_the_server_shows_sessions_and_changes_none(url, words, tmp_path):
    with serving(Held(numbers(60, 5), answers=10**6)) as truth:
        folder = truth.write(tmp_path / "c")
        cluster(folder, "kind", session="old", db=url, endpoint=truth.url, embed_mode="native")
        truth.answers = truth.served + 130
        with server(words, url, tmp_path / "served") as client:
            graphs = client.post("/assistants/search", json={}).json()
            assert {one["graph_id"] for one in graphs} == {"session", "component", "merge"}
            for one in graphs:
                drawn = client.get(f"/assistants/{one['assistant_id']}/graph").raise_for_status().json()
                assert {"__start__", *NODES[one["graph_id"]]} <= {node["id"] for node in drawn["nodes"]}
                schemas = client.get(f"/assistants/{one['assistant_id']}/schemas").raise_for_status().json()
                assert "session" in schemas["state_schema"]["properties"]
            a_finished_session(client)
            with begun(truth, url, folder):
                a_running_session(client, truth)
            done = eventually(lambda: threads(client, session="live", status="done"), registered)
            assert state(client, done["session"])["values"]["clusters"] == 5
            before = digest(url)
            refusals(client, done["component 0"]["thread_id"])
            assert digest(url) == before


NODES = {
    "session": {"describe", "relate", "traverse", "unite", "conclude"},
    "component": {"seed", "candidate", "assess", "update", "prune", "finish"},
    "merge": {"pair", "compare", "unite", "keep"},
}


def a_finished_session(client: httpx.Client) -> None:
    found = eventually(lambda: threads(client, session="old"), lambda found: len(found) == 3)
    assert {name: thread["metadata"]["graph_id"] for name, thread in found.items()} == {
        "session": "session", "components": "component", "merge": "merge",
    }  # fmt: skip
    for name, thread in found.items():
        said = thread["metadata"]
        assert said["status"] == "done" and said["criterion"] == "kind" and said["policy"] == "evidence"
        now, earlier = state(client, thread), history(client, thread)
        assert now["next"] == [] and now["values"]["clusters"] == 5 and now["metadata"]["part"] == name
        assert now["checkpoint"] == earlier[0]["checkpoint"] and len(earlier) > 1
        # The beginning may have been written together with what followed; what is there is in order.
        steps = [one["metadata"]["step"] for one in earlier]
        assert steps == sorted(steps, reverse=True) and earlier[-1]["next"] != []


def a_running_session(client: httpx.Client, truth: Held) -> None:
    """Its endpoint has stopped answering in the middle of the component agents' work, and goes on a little."""

    def agents() -> dict[str, dict[str, Any]]:
        return threads(client, session="live", status="running", graph_id="component")

    # The endpoint waits, so what is stored of it stays as it is once there is a question in every component.
    found = eventually(agents, lambda found: len(found) == 5)
    assert all(thread["metadata"]["component"] == int(name.split()[1]) for name, thread in found.items())
    whole = state(client, eventually(lambda: threads(client, session="live"), registered)["session"])
    assert whole["next"] == ["traverse"] and whole["values"]["components"] == 5

    def waiting() -> dict[str, int]:
        return {name: now["values"]["step"] for name, thread in found.items() for now in [state(client, thread)]}

    before = eventually(waiting, lambda steps: sum(steps.values()) > 0)
    lengths = {name: len(history(client, thread)) for name, thread in found.items()}
    truth.allow(15)
    eventually(waiting, lambda steps: sum(steps.values()) >= sum(before.values()) + 10)
    assert any(len(history(client, thread)) > lengths[name] for name, thread in found.items())
    assert agents().keys() == found.keys()


def refusals(client: httpx.Client, thread: str) -> None:
    work = {"assistant_id": "component", "input": {"step": 0}}
    for method, path, body in (
        ("POST", f"/threads/{thread}/runs", work),
        ("POST", f"/threads/{thread}/runs/wait", work),
        ("POST", f"/threads/{thread}/runs/stream", work),
        ("POST", f"/threads/{thread}/state", {"values": {"clusters": 9}}),
        ("POST", f"/threads/{thread}/copy", None),
        ("PATCH", f"/threads/{thread}", {"metadata": {"session": "other"}}),
        ("DELETE", f"/threads/{thread}", None),
        ("POST", "/threads", {}),
        ("POST", "/runs/wait", work),
        ("POST", "/runs/crons", work | {"schedule": "* * * * *"}),
    ):
        for who in ({}, {"x-auth-scheme": "langsmith"}):  # LangGraph Studio says so
            answer = client.request(method, path, json=body, headers=who)
            assert (answer.status_code, answer.json()) == (403, {"detail": ONLY_SHOWN}), path
    for host in ("evil.test", "localhost.evil.test", ""):
        answer = client.get(f"/threads/{thread}", headers={"host": host, "origin": f"http://{host}"})
        assert answer.status_code == 400 and thread not in answer.text
    assert client.get(f"/threads/{thread}", headers={"host": "localhost:2024"}).is_success
    for origin, allowed in (
        ("https://smith.langchain.com", "https://smith.langchain.com"),
        ("https://evil.test", None),
    ):
        answer = client.get(f"/threads/{thread}", headers={"origin": origin})
        assert answer.headers.get("access-control-allow-origin") == allowed


def test_the_directory_says_what_a_thread_is(tmp_path):
    url = f"sqlite:///{tmp_path}/partita.db"
    with serving(Truth(numbers(60, 5))) as truth:
        folder = truth.write(tmp_path / "c")
        for policy in ("evidence", "paper"):
            cluster(folder, "kind", session=policy, db=url, endpoint=truth.url, embed_mode="native", policy=policy)
    with open_database(url) as db:
        directory = Directory(CheckpointView(db))
        told = list(directory.entries())
        assert [(said["session"], said["part"], said["graph_id"], said.get("component")) for _, said in told] == [
            ("evidence", "components", "component", None),
            ("evidence", "merge", "merge", None),
            ("evidence", "session", "session", None),
            *(("paper", f"component {n}", "component", n) for n in reversed(range(5))),
            ("paper", "merge", "merge", None),
            ("paper", "session", "session", None),
        ]
        newest = list_sessions(db)[0]
        update_session(db, newest.id, status="failed")
        again = dict(directory.entries())
        assert again.keys() == dict(told).keys()
        assert {said["status"] for said in again.values() if said["session"] == newest.name} == {"failed"}


def test_nothing_is_for_langchain_unless_tracing_is_on(tmp_path):
    with open_database(f"sqlite:///{tmp_path}/p@rtita.db") as db:
        key = {"LANGSMITH_API_KEY": "k", "PATH": "/bin"}
        silent = server_environment(key, db)
        assert silent["LANGGRAPH_CLI_NO_ANALYTICS"] == "1" and silent["PATH"] == "/bin"
        assert silent["LANGSMITH_TRACING"] == "false" and silent["LANGSMITH_CONTROL_PLANE_API_KEY"] == ""
        with open_database(silent["PARTITA_DB"]) as same:
            assert same.path == db.path
        for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
            asked = server_environment(key | {name: "true"}, db)
            assert asked[name] == "true" and "LANGSMITH_CONTROL_PLANE_API_KEY" not in asked


def test_without_the_server_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr("partita.commands.studio.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'partita\[studio\]'"):
        CliRunner().invoke(command, [], catch_exceptions=False)
