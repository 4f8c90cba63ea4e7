"""``partita studio``: sessions in LangGraph's own server, for LangGraph Studio and its API."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import click

from partita.commands import options
from storage.database import Database, open_database
from storage.errors import UsageError

CONFIG = Path(__file__).parents[1] / "langgraph.json"
FOLDER = Path(".partita/studio")
"""Where the server runs, and leaves what it remembers."""


@click.command("studio")
@options.database
@click.option("--port", type=click.IntRange(1, 65535), default=2024, show_default=True, help="On loopback only.")
def command(db: str, port: int) -> None:
    """Show sessions in LangGraph's own server, finished and running ones; Ctrl-C stops it.

    The same as `langgraph dev` with Partita's langgraph.json, and nothing is sent to anyone.
    """
    if not (find_spec("langgraph_cli") and find_spec("langgraph_api")):
        raise UsageError("LangGraph's server is not installed: `pip install 'partita[studio]'`")
    with open_database(db) as database:
        environment = server_environment(os.environ, database)
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.chdir(FOLDER)
    shutil.rmtree(".langgraph_api", ignore_errors=True)  # threads of an earlier run, perhaps of another database
    words = ("dev", "--config", str(CONFIG), "--no-browser", "--no-reload", "--port", str(port))
    os.execve(sys.executable, [sys.executable, "-m", "langgraph_cli", *words], environment)


def server_environment(environ: Mapping[str, str], db: Database) -> dict[str, str]:
    """The server's environment: which database, and no word to LangChain unless LangSmith's tracing is switched on."""
    given = {"PARTITA_DB": db.url.render_as_string(hide_password=False), "LANGGRAPH_CLI_NO_ANALYTICS": "1"}
    tracing = ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2")
    if not any(environ.get(name, "").lower() in ("true", "1") for name in tracing):
        # With a key alone the server would trace, and tell LangSmith how it is used.
        given |= {"LANGSMITH_TRACING": "false", "LANGSMITH_CONTROL_PLANE_API_KEY": ""}
    return {**environ, **given}
