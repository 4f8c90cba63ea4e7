"""A report as one HTML page that needs nothing else: no network, no script, its pictures and styles within.

Whatever items, clusters, criteria and replies say is escaped, and the page forbids itself to fetch anything.
"""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from partita.excerpts import excerpt
from partita.html import COLOURS, minute, templates
from partita.report import Report
from partita.result import ClusterResult
from partita.settings import BUILT_IN, EMBEDDED
from serving.images import encode_image
from storage.errors import CollectionError
from storage.items import read_bytes

MOST = 2000
"""Pictures in a page, 15 to 25 MB of them: with many clusters each shows fewer."""
_SIDE, _QUALITY = 176, 75
_FAILED = 20
"""Items that could not be read and are told by name."""
_HERE = Path(__file__)


@dataclass(frozen=True, slots=True)
class Tile:
    """An item as it is shown."""

    name: str
    source: str | None
    """Its picture as a data URL."""
    text: str | None
    """The beginning of a text."""


def page(report: Report, thumbnails: int) -> Iterator[bytes]:
    """The page in UTF-8, part by part: a picture is read when it is its turn, and not kept.

    An item whose file is gone is shown without its picture.

    Args:
        thumbnails: items shown of each cluster; fewer where that would make more than `MOST`, and none of the smallest
            clusters where there are more clusters than that.
    """
    from markupsafe import Markup

    css = "".join(path.read_text(encoding="utf-8") for path in (COLOURS, _HERE.with_name("report.css")))
    template = templates(_HERE.parent).get_template("report.html")
    for part in template.generate(
        css=Markup(css),
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        tiles=partial(_tiles, report),
        shown_of=_shown(report, thumbnails),
        tile=partial(_tile, report),
        largest=max(c.size for c in report.result.clusters),
        least=min((sure for c in report.result.clusters for sure in c.confidence or ()), default=None),
        names={c.id: c.name for c in report.result.clusters},
        told_failed=report.result.failed_items[:_FAILED],
        facts=_facts(report),
        now=datetime.now(UTC),
        report=report,
        result=report.result,
        record=report.record,
        spend=report.spend,
        stages=report.spend.stages | {"total": report.spend.total},
    ):
        yield part.encode("utf-8", "replace")


def _facts(report: Report) -> list[tuple[str, str]]:
    record, result = report.record, report.result
    parameters: dict[str, Any] = record.parameters
    model = str(parameters.get("model") or BUILT_IN)
    where = "built in" if parameters.get("endpoint") == EMBEDDED else "endpoint"
    return [
        ("Session", record.name),
        ("Status", result.status),
        ("Model", f"{model} ({where})"),
        ("Learnt from labels", "yes: supervised" if result.supervised else "no"),
        ("Policy", record.policy),
        ("Began", minute(record.created_at)),
        ("Last change", minute(record.updated_at)),
        ("Questions per item", f"{result.calls_per_item:.2f}"),
        ("Spent", report.spend.line()),
    ]


def _shown(report: Report, thumbnails: int) -> list[int]:
    """How many items are shown of each cluster: `MOST` in all, with those that are in doubt."""
    sizes, left = [c.size for c in report.result.clusters], MOST - len(report.doubts)
    steps = range(1, min(thumbnails, max(sizes), left) + 1)
    each = bisect_right(steps, left, key=lambda step: sum(min(step, size) for size in sizes))
    if each or not steps:
        return [min(each, size) for size in sizes]
    return [int(place < left) for place in range(len(sizes))]


def _tiles(report: Report, cluster: ClusterResult, count: int) -> Iterator[Tile]:
    return (_tile(report, item) for item in cluster.items[:count])


def _tile(report: Report, name: str) -> Tile:
    item = report.items[name]
    if item.text is not None:
        return Tile(name, None, excerpt(item.text, 280))
    try:
        jpeg = encode_image(read_bytes(item), _SIDE, quality=_QUALITY)
    except CollectionError:
        return Tile(name, None, None)
    return Tile(name, f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", None)
