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
_TAG = re.compile(r"</?CONCLUSION>", re.IGNORECASE)
_AT_THE_END = re.compile(r"<CONCLUSION>\s*(YES|NO)\s*</CONCLUSION>\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        ok: None where it neither works nor fails: not tried, not needed, or slow.
        advice: "" where there is nothing to do.
        essential: nothing can be clustered where this fails.
    """

    name: str
    ok: bool | None
    detail: str
    advice: str = ""
    essential: bool = False


def concludes(reply: str) -> bool:
    """Whether a reply has exactly one conclusion, and ends with it (CONTRACT 4)."""
    return len(_TAG.findall(reply)) == 2 and _AT_THE_END.search(reply) is not None


async def probe(
    endpoint: Endpoint,
    embed: Endpoint,
    *,
    describe: str = DESCRIBE,
    membership: str = MEMBERSHIP,
    concludes: Callable[[str], bool] = concludes,
) -> list[Finding]:
    """Ask `endpoint` for chat and `embed` for embeddings, and report in the order of importance.

    Args:
        describe: instruction of the describe question; a prompt set's own shows how it fares with the model.
        membership: instruction of the membership question, which asks for a conclusion.
        concludes: whether a run would find a conclusion in a reply to it.
    """
    findings, usable = await _reach("chat endpoint", endpoint)
    if usable:
        one = await _attempt(lambda: endpoint.chat(_describe(describe), key=_key(), **_SAMPLING))
        findings.append(_chat_finding("chat with one image", one))
        several = await _attempt(lambda: endpoint.chat(_membership(membership), key=_key(), **_SAMPLING))
        findings.append(_chat_finding("chat with several images", several))
        if isinstance(several, Reply):
            findings += [_conclusion(several, concludes(several.text)), _latency(several)]
    else:
        names = ("chat with one image", "chat with several images", "conclusion")
        findings += [*map(_not_tried, names), Finding("latency", None, "not tried")]
    if embed is not endpoint:
        reached, usable = await _reach("embedding endpoint", embed)
        findings += reached
    if not usable:
        return [*findings, *(Finding(name, None, "not tried") for name in _FORMS), _not_tried("embed mode")]
    return [*findings, *await _embeddings(embed, describe)]


_FORMS = {"embeddings of a conversation": "native", "embeddings of a text": "caption"}
"""What is asked of the embedding endpoint, and the --embed-mode that needs it."""
_SAMPLING: dict[str, Any] = {"max_tokens": 512, "temperature": 0.0, "seed": 0}


async def _reach(name: str, endpoint: Endpoint) -> tuple[list[Finding], bool]:
    listed = await _attempt(endpoint.list_models)
    if isinstance(listed, PartitaError):
        return [_failed(name, listed), _not_tried(f"{name}: model")], False
    findings = [Finding(name, True, endpoint.url, essential=True)]
    model = await _attempt(endpoint.resolve_model)
    if isinstance(model, PartitaError):
        return [*findings, _failed(f"{name}: model", model)], False
    others = f", one of {len(listed)}" if listed and len(listed) > 1 else ""
    return [*findings, Finding(f"{name}: model", True, model + others, essential=True)], True


async def _embeddings(embed: Endpoint, describe: str) -> list[Finding]:
    answer = {"role": "assistant", "content": "A red shape on white. <embedding>"}
    native = await _attempt(lambda: embed.embed_messages([*_describe(describe), answer], key=_key()))
    caption = await _attempt(lambda: embed.embed_text("A red shape on white.", key=_key()))
    tried = dict(zip(_FORMS, (native, caption), strict=True))
    mode = next((_FORMS[name] for name, got in tried.items() if not isinstance(got, PartitaError)), None)
    findings = []
    for name, got in tried.items():
        if not isinstance(got, PartitaError):
            findings.append(Finding(name, True, f"{got.values.size} numbers in {got.seconds:.1f} s"))
        elif mode is None:
            findings.append(Finding(name, False, str(got)))
        else:
            findings.append(Finding(name, None, f"not offered; not needed with --embed-mode {mode}"))
    if mode is None:
        advice = "name an --embed-endpoint that has them"
        return [*findings, Finding("embed mode", False, "no embeddings here", advice, essential=True)]
    return [*findings, Finding("embed mode", True, mode, f"use --embed-mode {mode}", essential=True)]


async def _attempt(ask: Callable[[], Awaitable[T]]) -> T | PartitaError:
    try:
        return await ask()
    except PartitaError as error:
        return error


def _not_tried(name: str) -> Finding:
    return Finding(name, None, "not tried", essential=True)


def _failed(name: str, error: PartitaError) -> Finding:
    what, _, advice = str(error).partition(": ")
    return Finding(name, False, what, advice, essential=True)


def _chat_finding(name: str, got: Reply | PartitaError) -> Finding:
    if isinstance(got, PartitaError):
        advice = "serve a vision-language model that takes this many images in one question"
        return Finding(name, False, str(got), advice, essential=True)
    if not got.text.strip():
        advice = "look at the model's chat template and at its token limits"
        return Finding(name, False, "an empty reply", advice, essential=True)
    return Finding(name, True, _shorten(got.text), essential=True)


def _conclusion(got: Reply, found: bool) -> Finding:
    end = " ".join(got.text.split())[-80:]
    if found:
        return Finding("conclusion", True, end, essential=True)
    advice = "use a model that follows instructions better: without conclusions nothing clusters"
    return Finding("conclusion", False, f"no clear one at the end of {end!r}", advice, essential=True)


def _latency(got: Reply) -> Finding:
    retries = f", {got.attempts - 1} retries" if got.attempts > 1 else ""
    detail = f"{got.seconds:.1f} s for a membership question{retries}"
    slow = got.seconds > SLOW
    return Finding(
        "latency",
        None if slow else True,
        detail,
        "a smaller model or more hardware makes this bearable" if slow else "",
    )


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
