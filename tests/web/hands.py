"""What hands do on the page of session `s`, and what stands in the session afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphs.partition import PARTITION, NamedCluster, Partition
from partita.stored import result_of
from storage import artefacts
from storage.database import Database
from storage.sessions import load_session
from tests.web.conftest import Site, Tabs

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def standing(db: Database) -> dict[str, set[str]]:
    """The session's clusters by name."""
    return {c.name: set(c.items) for c in result_of(db, "s").clusters}


def clusters(db: Database) -> set[frozenset[str]]:
    """The session's clusters, whatever they are called."""
    return {frozenset(c.items) for c in result_of(db, "s").clusters}


def choose(tab: Page, *items: str) -> None:
    """Choose pictures by mouse."""
    for item in items:
        tab.locator(f'.tile:has(img[alt^="{item}"])').first.hover()
        tab.get_by_label(f"choose {item}", exact=True).first.check()


def send(tab: Page, button: Locator) -> None:
    """Press a button of a form, and wait for what comes of it."""
    with tab.expect_navigation():
        button.click()


def open_session(tabs: Tabs, site: Site, path: str = "", **look: Any) -> Page:
    tab = tabs(site.opening, **look)
    tab.goto(f"{site.base}/s/s{path}")
    return tab


def come_to(db: Database, *names: str) -> None:
    """The agents of the session come to clusters of these names, each of so many items."""
    come_to_these(db, {name: tuple(range(at, 60, len(names))) for at, name in enumerate(names)})


def come_to_these(db: Database, found: dict[str, tuple[int, ...]]) -> None:
    """The agents of the session come to these clusters of nodes."""
    named = tuple(NamedCluster(name, nodes) for name, nodes in found.items())
    artefacts.put(db, load_session(db, "s").id, PARTITION, Partition(named).to_bytes())
