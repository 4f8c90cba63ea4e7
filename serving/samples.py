"""Sample questions in the layout of CONTRACT 4 and 5, about small drawn shapes or about words for them."""

from __future__ import annotations

import io
import uuid
from functools import cache
from typing import Any

from serving.client import Endpoint, Reply, Vector
from serving.images import encode_image, image_part, text_part

Messages = list[dict[str, Any]]
LONGEST = 2048
"""Tokens of a reply, at most: what a run asks for (METHOD 4)."""


async def ask(endpoint: Endpoint, messages: Messages, max_tokens: int = LONGEST, pattern: str | None = None) -> Reply:
    """Ask a sample question; raises what `Endpoint.chat` raises."""
    return await endpoint.chat(messages, key=key(), max_tokens=max_tokens, temperature=0.2, seed=0, pattern=pattern)


async def ask_vector(endpoint: Endpoint, messages: Messages) -> Vector:
    """Embed a sample conversation; raises what `Endpoint.embed_messages` raises."""
    return await endpoint.embed_messages(messages, key=key())


def describe(instruction: str, *, images: bool = True) -> Messages:
    """A describe question about a red circle."""
    return [{"role": "user", "content": [text_part(instruction), text_part("Item:"), _shown("red", True, images)]}]


def membership(instruction: str, representatives: int, *, images: bool = True) -> Messages:
    """A membership question: red shapes, and a blue one as the candidate."""
    content = [text_part(instruction)]
    for k in range(1, representatives + 1):
        content += [text_part(f"Representative {k}:"), _shown("red", bool(k % 2), images)]
    content += [text_part("Candidate 1:"), _shown("blue", True, images)]
    return [{"role": "user", "content": content}]


def conversations(instruction: str) -> tuple[Messages, Messages]:
    """Two conversations to embed, as different as can be."""
    red = [*describe(instruction), {"role": "assistant", "content": "A red circle. <embedding>"}]
    asked = [text_part("What animal is it?"), text_part("Item:"), _shown("blue", False, True)]
    answer = {"role": "assistant", "content": "It is no animal but a blue square, as it seems. <embedding>"}
    return red, [{"role": "user", "content": asked}, answer]


def key() -> str:
    """An idempotency key of its own for every question."""
    return f"probe-{uuid.uuid4().hex}"


def _shown(colour: str, round_: bool, images: bool) -> dict[str, Any]:
    return _drawing(colour, round_) if images else text_part(f"A {colour} {'circle' if round_ else 'square'} on white.")


@cache
def _drawing(colour: str, round_: bool) -> dict[str, Any]:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (96, 96), "white")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if round_ else draw.rectangle)((16, 16, 80, 80), fill=colour)
    out = io.BytesIO()
    image.save(out, "PNG")
    return image_part(encode_image(out.getvalue()))
