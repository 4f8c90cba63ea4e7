"""The page as a browser sees it: a server, sessions to look at, a real chromium."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx
import pytest

from partita import cluster
from partita.prices import load_prices
from partita.web.app import build_app
from partita.web.desk import Desk
from partita.web.server import guarded, hosts
from serving.server import listen, uvicorn_server
from storage.database import Database, open_database
from tests.truth import Truth, numbers, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = "a-token-of-the-tests"


@dataclass
class Site:
    """A server that shows one database."""

    base: str
    db: Database

    @property
    def opening(self) -> str:
        """What `partita web` would print."""
        return f"{self.base}/?token={TOKEN}"

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Sends what the page's own forms send."""
        sent = {"Origin": self.base, "Sec-Fetch-Site": "same-origin"}
        with httpx.Client(base_url=self.base, headers=sent, follow_redirects=True) as client:
            client.get(f"/?token={TOKEN}").raise_for_status()
            yield client


@contextmanager
def shown(url: str) -> Iterator[Site]:
    """A server over the database at `url`, in a thread of its own."""
    with open_database(url) as db, listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        app = guarded(build_app(Desk(db, load_prices())), hosts("127.0.0.1", port, ()), TOKEN, port)
        server = uvicorn_server(app)
        server.config.timeout_graceful_shutdown = 1
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Site(f"http://127.0.0.1:{port}", db)
        finally:
            server.should_exit = True
            thread.join()


Sites = Callable[[str], Site]


@pytest.fixture
def sites() -> Iterator[Sites]:
    """Starts servers that end with the test."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(shown(url))


@contextmanager
def answering(truth: Truth) -> Iterator[Truth]:
    """The endpoint, begun in another thread: in this one Playwright may keep an event loop running."""
    endpoint = serving(truth)
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(endpoint.__enter__).result()
        thread.submit(endpoint.__exit__, None, None, None).result()


@dataclass
class Finished:
    """A session `s` that is done: 60 pictures in five clusters."""

    file: Path
    folder: Path

    def copy(self, to: Path) -> str:
        """A database of one's own with the session; its URL."""
        file = to / "copy.db"
        shutil.copy(self.file, file)
        return f"sqlite:///{file}"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "partita.db"
    with answering(Truth(numbers(60, 5))) as truth:
        collection = truth.write(folder / "pictures")
        cluster(collection, "kind", session="s", db=f"sqlite:///{file}", endpoint=truth.url, embed_mode="native")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Finished(file, collection)


@pytest.fixture
def site(finished: Finished, tmp_path: Path, sites: Sites) -> Site:
    """A server over a copy of the finished session."""
    return sites(finished.copy(tmp_path))


# -- the browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for all tests of a module: Playwright keeps an event loop running in this thread for as long."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("there is no chromium here: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"] if root else [])
        yield browser
        browser.close()


@dataclass
class Tabs:
    """Opens tabs; whatever a browser has to complain of in one of them fails the test at its end."""

    browser: Browser
    wrong: list[str] = field(default_factory=list)

    def __call__(
        self, address: str, *, scheme: Literal["light", "dark"] = "light", width: int = 1280, **more: Any
    ) -> Page:
        """A tab with cookies of its own at an address."""
        context = self.browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, **more)
        context.set_default_timeout(15_000)
        tab = context.new_page()
        tab.on("console", lambda said: self.wrong.append(f"{said.type}: {said.text} {said.location['url']}"))
        tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        tab.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        tab.on("request", self._asked)
        tab.goto(address)
        return tab

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "http://localhost:")):
            self.wrong.append(f"asked for {request.url}")


@pytest.fixture
def tabs(chromium: Browser) -> Iterator[Tabs]:
    opened = Tabs(chromium)
    yield opened
    for context in chromium.contexts:
        context.close()
    assert opened.wrong == []
