"""What an endpoint can do for us, found out by asking: `partita doctor`.

The questions have the layout of CONTRACT 4 and 5 and go out with small drawn images. A fault is a finding, never an
exception.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from serving.client import Endpoint, Reply
from serving.images import encode_image, image_part, text_part
from storage.errors import PartitaError

T = TypeVar("T")

SLOW = 20.0
"""Seconds for one membership question from which on we say that it is slow."""

DESCRIBE = "Describe the colour of the shape in the image in detail."
MEMBERSHIP = (
    "The representatives form a cluster of shapes of one colour. Decide by colour only, whatever the shape, whether "
    "the candidate belongs to the cluster. Reason in a sentence or two, then end with "
    "<CONCLUSION> YES </CONCLUSION> or <CONCLUSION> NO </CONCLUSION>."
)
_CONCLUSION = re.compile(r"<CONCLUSION>\s*(YES|NO)\s*</CONCLUSION>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `ok` is None where it was not tried; `advice` is "" where there is nothing to do."""

    name: str
    ok: bool | None
    detail: str
    advice: str = ""


async def probe(
    endpoint: Endpoint, embed: Endpoint, *, describe: str = DESCRIBE, membership: str = MEMBERSHIP
) -> list[Finding]:
    """Ask `endpoint` for chat and `embed` for embeddings, and report in the order of importance.

    Args:
        describe: instruction of the describe question; a prompt set's own shows how it fares with the model.
        membership: instruction of the membership question, which asks for a conclusion.
    """
    findings, usable = await _reach("chat endpoint", endpoint)
    if usable:
        one = await _attempt(lambda: endpoint.chat(_describe(describe), key=_key(), **_SAMPLING))
        findings.append(_chat_finding("chat with one image", one))
        several = await _attempt(lambda: endpoint.chat(_membership(membership), key=_key(), **_SAMPLING))
        findings.append(_chat_finding("chat with several images", several))
        if isinstance(several, Reply):
            findings += [_conclusion(several), _latency(several)]
    else:
        names = ("chat with one image", "chat with several images", "conclusion", "latency")
        findings += [Finding(name, None, "not tried") for name in names]
    if embed is not endpoint:
        reached, usable = await _reach("embedding endpoint", embed)
        findings += reached
    if not usable:
        return [*findings, *(Finding(name, None, "not tried") for name in (_NATIVE, _CAPTION))]
    return [*findings, *await _embeddings(embed, describe)]


_NATIVE, _CAPTION = "embeddings of a conversation", "embeddings of a text"
_SAMPLING: dict[str, Any] = {"max_tokens": 512, "temperature": 0.0, "seed": 0}


async def _reach(name: str, endpoint: Endpoint) -> tuple[list[Finding], bool]:
    listed = await _attempt(endpoint.list_models)
    if isinstance(listed, PartitaError):
        return [_failed(name, listed), Finding(f"{name}: model", None, "not tried")], False
    findings = [Finding(name, True, endpoint.url)]
    model = await _attempt(endpoint.resolve_model)
    if isinstance(model, PartitaError):
        return [*findings, _failed(f"{name}: model", model)], False
    others = f", one of {len(listed)}" if listed and len(listed) > 1 else ""
    return [*findings, Finding(f"{name}: model", True, model + others)], True


async def _embeddings(embed: Endpoint, describe: str) -> list[Finding]:
    answer = {"role": "assistant", "content": "A red shape on white. <embedding>"}
    native = await _attempt(lambda: embed.embed_messages([*_describe(describe), answer], key=_key()))
    caption = await _attempt(lambda: embed.embed_text("A red shape on white.", key=_key()))
    findings = []
    for name, got in ((_NATIVE, native), (_CAPTION, caption)):
        if isinstance(got, PartitaError):
            findings.append(Finding(name, False, str(got)))
        else:
            findings.append(Finding(name, True, f"{got.values.size} numbers in {got.seconds:.1f} s"))
    if findings[0].ok:
        advice = "--embed-mode native"
    elif findings[1].ok:
        advice = "--embed-mode caption"
    else:
        return [*findings, Finding("embed mode", False, "no embeddings here", "name an --embed-endpoint that has them")]
    return [*findings, Finding("embed mode", True, advice.rpartition(" ")[2], f"use {advice}")]


async def _attempt(ask: Callable[[], Awaitable[T]]) -> T | PartitaError:
    try:
        return await ask()
    except PartitaError as error:
        return error


def _failed(name: str, error: PartitaError) -> Finding:
    what, _, advice = str(error).partition(": ")
    return Finding(name, False, what, advice)


def _chat_finding(name: str, got: Reply | PartitaError) -> Finding:
    if isinstance(got, PartitaError):
        return Finding(
            name, False, str(got), "serve a vision-language model that takes this many images in one question"
        )
    if not got.text.strip():
        return Finding(name, False, "an empty reply", "look at the model's chat template and at its token limits")
    return Finding(name, True, _shorten(got.text))


def _conclusion(got: Reply) -> Finding:
    found = _CONCLUSION.findall(got.text)
    if found:
        return Finding("conclusion", True, found[-1].upper())
    return Finding(
        "conclusion",
        False,
        f"none in {_shorten(got.text)!r}",
        "use a model that follows instructions better: without conclusions nothing clusters",
    )


def _latency(got: Reply) -> Finding:
    retries = f", {got.attempts - 1} retries" if got.attempts > 1 else ""
    detail = f"{got.seconds:.1f} s for a membership question{retries}"
    slow = got.seconds > SLOW
    return Finding("latency", not slow, detail, "a smaller model or more hardware makes this bearable" if slow else "")


def _describe(instruction: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [text_part(instruction), text_part("Item:"), _drawing("red", round_=True)]}]


def _membership(instruction: str) -> list[dict[str, Any]]:
    content = [text_part(instruction)]
    for k, round_ in enumerate((True, False, True), 1):
        content += [text_part(f"Representative {k}:"), _drawing("red", round_=round_)]
    content += [text_part("Candidate 1:"), _drawing("blue", round_=True)]
    return [{"role": "user", "content": content}]


@cache
def _drawing(colour: str, *, round_: bool) -> dict[str, Any]:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (96, 96), "white")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if round_ else draw.rectangle)((16, 16, 80, 80), fill=colour)
    out = io.BytesIO()
    image.save(out, "PNG")
    return image_part(encode_image(out.getvalue()))


def _key() -> str:
    return f"probe-{uuid.uuid4().hex}"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"
