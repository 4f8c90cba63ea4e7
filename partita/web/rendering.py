"""Pages from templates: addresses of sessions, items and pictures, and what every template is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from starlette.responses import HTMLResponse

from partita import __version__
from partita.display import how_far
from partita.excerpts import excerpt
from partita.html import templates
from partita.web.desk import Seen

if TYPE_CHECKING:
    import jinja2

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
SMALL, MIDDLE, LARGE = 192, 384, 1024
"""Longest sides of pictures on pages, in pixels."""
AS_SHOWN = "model"
"""The size in which the model was shown it."""


@dataclass(frozen=True, slots=True)
class Tile:
    """An item as a page shows it."""

    number: int
    """In addresses."""
    name: str
    href: str
    """Its own page."""
    source: str | None
    """Its picture; None for a text."""
    text: str | None
    """The beginning of a text."""
    cluster: int | None
    called: str
    """The cluster's name; empty where it stands in none."""
    sure: float | None
    """How probable it is that it belongs where it stands; None where a person placed it."""
    placed: bool
    """Whether a person placed it."""


def page(template: str, status: int = 200, **given: Any) -> HTMLResponse:
    """A page, or a part of one, from `templates/NAME.html`."""
    return HTMLResponse(words(template, **given), status)


def words(template: str, **given: Any) -> str:
    """The same as a text."""
    rendered = _environment().get_template(f"{template}.html").render(**given)
    return rendered.encode("utf-8", "replace").decode()


@cache
def _environment() -> jinja2.Environment:
    environment = templates(_HERE / "templates")
    environment.globals |= {"session_url": session_url, "version": __version__, "static": static, "how_far": how_far}
    return environment


@cache
def static(name: str) -> str:
    """The address of one of our files, which changes when the file does."""
    import hashlib

    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def session_url(name: str, *path: object, **query: object) -> str:
    """The address of a session's page, or of something below it."""
    parts = "".join("/" + quote(str(part), safe="") for part in path)
    asked = urlencode({key: value for key, value in query.items() if value is not None})
    return f"/s/{quote(name, safe='')}{parts}" + (f"?{asked}" if asked else "")


def tile(seen: Seen, name: str, side: int | str = SMALL) -> Tile:
    """An item by its name."""
    number = seen.numbers[name]
    row = seen.rows[number] if seen.rows[number].position == number else seen.item(number)
    session = seen.record.name
    source = None
    if row.text is None and row.content_hash is not None:
        source = session_url(session, "i", number, "picture", side=side, v=row.content_hash[:12])
    cluster = seen.place[name][0] if name in seen.place else None
    return Tile(
        number,
        name,
        session_url(session, "i", number),
        source,
        None if row.text is None else excerpt(row.text, 280),
        None if cluster is None else cluster.id,
        "" if cluster is None else cluster.name,
        seen.sure(name),
        name in seen.result.placed,
    )


def tiles(seen: Seen, names: Iterable[str], side: int | str = SMALL) -> Iterator[Tile]:
    """Items by their names; those that the session doesn't have are left out."""
    return (tile(seen, name, side) for name in names if name in seen.numbers)
