"""A session in one small picture: the first item of each of its largest clusters, side by side."""

from __future__ import annotations

import io

from fastapi import APIRouter, Request
from starlette.responses import Response

from partita.web.desk import Seen
from partita.web.given import ADesk, SomePictures
from partita.web.pictures import Pictures
from partita.web.rendering import SMALL
from storage.errors import CollectionError

router = APIRouter()
_MOST = 8
_SIDE = 96
"""Pixels; pages show it at half of that, for screens that have more of them."""
_GAP = 6


@router.get("/s/{name}/strip")
def strip(name: str, request: Request, desk: ADesk, pictures: SomePictures) -> Response:
    """The strip of a session of images; 404 where there is nothing to be seen."""
    seen = desk.seen(name)
    tag = f'"{seen.partition}"'
    headers = {"Cache-Control": "private, max-age=604800", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    png = _drawn(seen, pictures)
    return Response(png, media_type="image/png", headers=headers) if png else Response(status_code=404)


def _drawn(seen: Seen, pictures: Pictures) -> bytes | None:
    from PIL import Image, ImageOps

    squares = []
    for cluster in seen.result.clusters[:_MOST]:
        item = seen.items.get(cluster.items[0])
        if item is None or item.text is not None:
            continue
        try:
            jpeg = pictures.jpeg(item, SMALL, seen.collection.root)
        except CollectionError:  # it is gone, or another one by now
            continue
        with Image.open(io.BytesIO(jpeg)) as picture:
            squares.append(ImageOps.fit(picture.convert("RGB"), (_SIDE, _SIDE)))
    if not squares:
        return None
    drawn = Image.new("RGBA", (len(squares) * (_SIDE + _GAP) - _GAP, _SIDE))
    for place, square in enumerate(squares):
        drawn.paste(square, (place * (_SIDE + _GAP), 0))
    out = io.BytesIO()
    drawn.save(out, "PNG")
    return out.getvalue()
