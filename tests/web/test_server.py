"""`partita web` as a user starts and ends it."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from partita.web.server import hosts, run
from storage.database import open_database
from storage.errors import UsageError
from tests.command_line import ROOT, Cli
from tests.web.conftest import Finished, Tabs

CANARY = "sk-Canary-5f1e77"


def test_opened_by_the_line_that_is_printed_and_ended_by_ctrl_c(cli: Cli, finished: Finished, tabs: Tabs) -> None:
    shutil.copy(finished.file, cli.folder / "partita.db")
    process = cli.start("web", "--port", 0, PARTITA_API_KEY=CANARY, OPENAI_API_KEY=CANARY)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Partita shows the sessions of sqlite:///") and line.count("\n") == 1
        opening = line.split(" at ")[-1].strip()
        base, _, token = opening.partition("/?token=")
        assert base.startswith("http://127.0.0.1:") and len(token) >= 24
        tab = tabs(opening)
        assert tab.url == f"{base}/" and "token" not in tab.evaluate("location.href + document.cookie")
        tab.get_by_role("link", name="s", exact=True).click()
        (cookie,) = tab.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["value"]) == (True, "Strict", token)
        assert CANARY not in tab.content()
        with httpx.Client(base_url=base) as kept:
            assert kept.get("/").status_code == 401  # and its connection stays open
            tab.wait_for_load_state("networkidle")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()
        process.communicate()


def test_what_would_let_others_in_is_refused(cli: Cli) -> None:
    done = cli("web", "--host", "0.0.0.0", "--no-token")
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert "0.0.0.0 can be reached by others: leave --no-token out, or listen on 127.0.0.1" in done.err


def test_an_address_that_can_not_be_listened_on_is_told_in_one_line(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        open_database(f"sqlite:///{tmp_path}/p.db") as db,
    ):
        port = taken.getsockname()[1]
        for host, at, token, said in (
            ("127.0.0.1", port, "t", f"127.0.0.1:{port} can't be listened on (Address already in use): choose another"),
            ("::", 0, None, ":: can be reached by others"),
            ("192.0.2.1", 0, None, "192.0.2.1 can be reached by others"),
            ("192.0.2.1", 0, "t", "192.0.2.1:0 can't be listened on"),
            ("nowhere.invalid", 0, "t", "nowhere.invalid is no address of this machine"),
        ):
            with pytest.raises(UsageError, match=re.escape(said)) as refused:
                run(db, host, at, token=token, say=pytest.fail)
            assert refused.value.exit_code == 2 and "\n" not in str(refused.value)


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "python_multipart"])
def test_without_the_extra_it_says_what_to_install(missing: str, tmp_path: Path) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; from partita.__main__ import main; main()"
    words = [sys.executable, "-c", script, "web", "--port", "0", "--db", f"sqlite:///{tmp_path}/p.db"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "partita: the page needs more than the light core: pip install 'partita[web]'\n"


def test_the_page_is_there_before_the_agents_are() -> None:
    """What runs sessions is slow to import, and no page needs it to be shown."""
    script = "import sys, partita.web.app as a; a.build_app(None); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    slow = {
        "langgraph",
        "langchain_core",
        "torch",
        "transformers",
        "openai",
        "sklearn",
        "scipy",
        "pandas",
        "matplotlib",
    }
    assert slow.isdisjoint(done.stdout.split())


def test_names_under_which_browsers_come() -> None:
    assert hosts("127.0.0.1", 8400, ())[:2] == ["127.0.0.1:8400", "localhost:8400"]
    assert hosts("localhost", 80, ())[0] == "localhost:80" and "localhost" in hosts("localhost", 80, ())
    assert hosts("::1", 8400, ())[0] == "[::1]:8400"
    assert hosts("192.0.2.7", 8400, ("cards.example",)) == ["192.0.2.7:8400", "cards.example:8400"]
    everywhere = hosts("0.0.0.0", 8400, ("cards.example",))
    assert everywhere[0] == "cards.example:8400" and f"{socket.gethostname()}:8400" in everywhere
    assert "0.0.0.0:8400" not in everywhere
