"""What handlers are given, as annotations of their parameters."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from partita.web.desk import Desk
from partita.web.pictures import Pictures


def desk_of(request: Request) -> Desk:
    """What the pages of this application are made from."""
    desk: Desk = request.app.state.desk
    return desk


def pictures_of(request: Request) -> Pictures:
    """The pictures that were shown lately."""
    pictures: Pictures = request.app.state.pictures
    return pictures


ADesk = Annotated[Desk, Depends(desk_of)]
SomePictures = Annotated[Pictures, Depends(pictures_of)]
