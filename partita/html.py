"""Templates of pages: escaped, strict about names, and the words that several of them use."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from partita.excerpts import excerpt

if TYPE_CHECKING:
    import jinja2

COLOURS = Path(__file__).parent / "web" / "static" / "colours.css"
"""What every page of ours begins its styles with."""


def templates(folder: Path) -> jinja2.Environment:
    """The templates in a folder. Whatever is put into them is escaped; a name that isn't given is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "plain": excerpt, "minute": minute}
    return environment


def percent(share: float) -> str:
    """A share for people, never rounded to all or nothing."""
    tenths = math.floor(share * 1000 + 1e-9)
    if share and not tenths:
        return "< 0.1 %"
    return f"{tenths // 10} %" if tenths % 10 == 0 else f"{tenths / 10:.1f} %"


def minute(at: datetime) -> str:
    """A time for people."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
