"""What an endpoint can do for us, found out by asking: `partita doctor`.

The questions have the layout of CONTRACT 4 and 5 and go out with small drawn images. A fault is a finding, never an
exception. `serving.abilities.look` is the part of it that a run can afford.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from serving import samples
from serving.abilities import look
from serving.client import Endpoint, Reply, Vector
from serving.samples import ask, ask_vector
from storage.errors import LimitTooLow, PartitaError, RequestRejected

T = TypeVar("T")

SLOW = 20.0
"""Seconds for one membership question from which on we say that it is slow, and ask no more than is needed."""
IMAGES_NEEDED = 6
"""Images in the largest question of a run with defaults: two clusters by three representatives each."""
MORE_IMAGES = (8, 16)
"""Numbers of images that are tried beyond that."""
AT_ONCE = 8
"""Questions asked together, to see whether they are answered side by side."""
CONCURRENCY = 32
"""Calls in flight that a run has unless told otherwise; and fewer for an endpoint that answers one after the other."""
ONE_AFTER_THE_OTHER = 4

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


@dataclass(slots=True)
class Report:
    """What was found, in the order of importance, and what a run is best told for it."""

    findings: list[Finding] = field(default_factory=list)
    model: str = ""
    texts_only: bool = False
    """The model takes no images."""
    representatives: int | None = None
    """K that the endpoint has room for, where that is less than the default."""
    concurrency: int = CONCURRENCY
    embed_mode: Literal["native", "caption"] | None = None
    """None where there are no embeddings."""
    embed_model: str = ""


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
    pattern: str | None = None,
    say: Callable[[str], None] = lambda doing: None,
) -> Report:
    """Ask `endpoint` for chat and `embed` for embeddings.

    Args:
        describe: instruction of the describe question; a prompt set's own shows how it fares with the model.
        membership: instruction of the membership question, which asks for a conclusion.
        concludes: whether a run would find a conclusion in a reply to it.
        pattern: what a run would hold that reply to, where the endpoint can.
        say: told what is being tried.
    """
    report = Report()
    say("models")
    usable = await _reach("chat endpoint", endpoint, report)
    if usable:
        report.model = await endpoint.resolve_model()
        await _Chat(endpoint, report, describe, membership, concludes, pattern, say).examine()
    else:
        names = ("chat with one image", "chat with several images", "conclusion")
        report.findings += [*map(_not_tried, names), Finding("latency", None, "not tried")]
    if embed is not endpoint:
        usable = await _reach("embedding endpoint", embed, report)
    if usable:
        say("embeddings")
        await _embeddings(embed, describe, report)
    else:
        report.findings += [*(Finding(name, None, "not tried") for name in _FORMS), _not_tried("embed mode")]
    return report


_FORMS: dict[str, Literal["native", "caption"]] = {
    "embeddings of a conversation": "native",
    "embeddings of a text": "caption",
}
"""What is asked of the embedding endpoint, and the --embed-mode that needs it."""


async def _reach(name: str, endpoint: Endpoint, report: Report) -> bool:
    listed = await _attempt(endpoint.list_models)
    if isinstance(listed, PartitaError):
        report.findings += [_failed(name, listed), _not_tried(f"{name}: model")]
        return False
    report.findings.append(Finding(name, True, endpoint.url, essential=True))
    can = await _attempt(lambda: look(endpoint, constrain=name == "chat endpoint"))
    if isinstance(can, PartitaError):
        report.findings.append(_failed(f"{name}: model", can))
        return False
    model = await endpoint.resolve_model()
    others = f", one of {len(listed)}" if listed and len(listed) > 1 else ""
    room = f", {can.longest} tokens for question and reply" if can.longest else ""
    server = f", {can.server}" if can.server else ""
    report.findings.append(Finding(f"{name}: model", True, model + others + server + room, essential=True))
    return True


@dataclass(slots=True)
class _Chat:
    """The examination of a chat endpoint, one question after the other; `images` is what its questions show."""

    endpoint: Endpoint
    report: Report
    describe: str
    membership: str
    concludes: Callable[[str], bool]
    pattern: str | None
    say: Callable[[str], None]
    images: bool = True

    async def examine(self) -> None:
        self.say("chat with one image")
        one = await _attempt(lambda: ask(self.endpoint, samples.describe(self.describe)))
        if isinstance(one, PartitaError) and _about_images(one):
            self.say("chat with a text")
            text = await _attempt(lambda: ask(self.endpoint, samples.describe(self.describe, images=False)))
            if isinstance(text, Reply):
                self._takes_texts_only(one)
                one = text
        if self.images:
            self._add(_chat_finding("chat with one image", one))
        if not isinstance(one, Reply):
            self._add(_not_tried("chat with several images"), _not_tried("conclusion"))
            self._add(Finding("latency", None, "not tried"))
            return
        several = await self._several()
        slow = not isinstance(several, Reply) or several.seconds > SLOW
        if self.images and isinstance(several, Reply):
            await self._count_images(slow)
        self._structured()
        if slow:
            self._add(Finding("several at once", None, "not tried"))
        else:
            await self._burst(one)
        self._limits()

    def _add(self, *findings: Finding) -> None:
        self.report.findings += findings

    def _takes_texts_only(self, why: PartitaError) -> None:
        self.images = False
        self.report.texts_only = True
        words = str(why).partition(" with ")[2].rpartition(": ")[0] or str(why)
        advice = "texts can be clustered with it; for images name a vision-language model with --model"
        self._add(Finding("chat with one image", None, f"takes no images: {_shorten(words)}", advice))

    async def _several(self) -> Reply | PartitaError:
        """The membership question that a run with defaults asks most: three representatives and a candidate."""
        self.say("a membership question")
        question = samples.membership(self.membership, 3, images=self.images)
        several = await _attempt(lambda: ask(self.endpoint, question, pattern=self.pattern))
        if isinstance(several, LimitTooLow):
            fits = await self._fewer(several.images)
            if not isinstance(fits, Reply):
                self._add(_chat_finding("chat with several images", several), _not_tried("conclusion"))
                self._add(Finding("latency", None, "not tried"))
                return several
            several = fits
        name = "chat with several images" if self.images else "chat with several texts"
        self._add(_chat_finding(name, several))
        if isinstance(several, Reply):
            self._add(_conclusion(several, self.concludes(several.text)), _latency(several))
        else:
            self._add(_not_tried("conclusion"), Finding("latency", None, "not tried"))
        return several

    async def _fewer(self, most: int | None) -> Reply | PartitaError | None:
        """A membership question with as few images as the endpoint says, or two."""
        if most is not None and most < 2:
            return None
        question = samples.membership(self.membership, min(most or 2, 4) - 1, images=True)
        return await _attempt(lambda: ask(self.endpoint, question, pattern=self.pattern))

    async def _count_images(self, slow: bool) -> None:
        most, told = 0, None
        for number in (IMAGES_NEEDED,) if slow else (IMAGES_NEEDED, *MORE_IMAGES):
            self.say(f"{number} images in one question")
            got = await self._accepts(number)
            if isinstance(got, LimitTooLow):
                told = got.images
            if not isinstance(got, Reply):
                break
            most = number
        if most < IMAGES_NEEDED and told is None:
            for number in (5, 4, 3, 2):
                if isinstance(await self._accepts(number), Reply):
                    most = number
                    break
        most = told if told is not None else most
        if most >= IMAGES_NEEDED:
            exactly = "" if told is not None else " at least"
            self._add(Finding("images in one question", True, f"{most}{exactly}; a run needs {IMAGES_NEEDED}"))
            return
        advice = f"use --representatives {most // 2} --candidates 1, or raise the server's limit"
        self.report.representatives = max(1, most // 2)
        detail = f"{most}; a run with defaults needs {IMAGES_NEEDED}"
        self._add(Finding("images in one question", most >= 2 or False, detail, advice, essential=most < 2))

    async def _accepts(self, number: int) -> Reply | PartitaError:
        """Whether so many images are taken: what the model makes of them does not matter."""
        question = samples.membership(self.membership, number - 1, images=True)
        return await _attempt(lambda: ask(self.endpoint, question, max_tokens=16))

    def _structured(self) -> None:
        can = self.endpoint.abilities
        if can.constrains:
            self._add(Finding("structured output", True, "replies can be held to their form, and a run does so"))
        elif can.server == "vllm":
            advice = "runs go without; a newer vLLM knows structured_outputs"
            self._add(Finding("structured output", None, "asked for and not obeyed; not needed", advice))
        else:
            self._add(Finding("structured output", None, "not offered; not needed"))
        if refused := self.endpoint.dialect.refused:
            self._add(Finding("parameters", True, f"asked without {', '.join(refused)}, which it does not take"))

    async def _burst(self, alone: Reply) -> None:
        self.say(f"{AT_ONCE} questions at once")
        questions = [samples.describe(self.describe, images=self.images) for _ in range(AT_ONCE)]
        began = time.perf_counter()
        got = await asyncio.gather(*(_attempt(partial(ask, self.endpoint, question)) for question in questions))
        seconds = time.perf_counter() - began
        answered = [reply for reply in got if isinstance(reply, Reply)]
        retried = sum(reply.attempts > 1 for reply in answered)
        detail = f"{len(answered)} of {AT_ONCE} answered in {seconds:.1f} s"
        if len(answered) < AT_ONCE or retried:
            self.report.concurrency = max(1, min(len(answered) - retried, self.endpoint.limit))
            advice = f"use --concurrency {self.report.concurrency}"
            self._add(Finding("several at once", None, f"{detail}, {retried} only when asked again", advice))
            return
        if seconds > AT_ONCE / 2 * alone.seconds and seconds > 1:
            self.report.concurrency = ONE_AFTER_THE_OTHER
            advice = f"it answers one after the other: use --concurrency {ONE_AFTER_THE_OTHER}"
            self._add(Finding("several at once", None, detail, advice))
            return
        self._add(Finding("several at once", True, f"{detail}, {AT_ONCE / max(seconds, 0.001):.1f} a second"))

    def _limits(self) -> None:
        said = self.endpoint.rate_limits
        words = []
        for what in ("requests", "tokens"):
            if (most := said.get(f"x-ratelimit-limit-{what}")) is not None:
                left = said.get(f"x-ratelimit-remaining-{what}")
                words.append(f"{most} {what}" + (f", {left} left" if left is not None else ""))
        if "retry-after" in said:
            words.append(f"told to ask again in {said['retry-after']} s")
        if words:
            advice = "Partita asks less at a time when it is turned away"
            self._add(Finding("rate limits", None, "; ".join(words), advice))
        else:
            self._add(Finding("rate limits", None, "none told"))


async def _embeddings(embed: Endpoint, describe: str, report: Report) -> None:
    one, other = samples.conversations(describe)
    native = await _two_vectors(lambda: ask_vector(embed, one), lambda: ask_vector(embed, other))
    caption = await _two_vectors(
        lambda: embed.embed_text("A red shape on white.", key=samples.key()),
        lambda: embed.embed_text("A sleeping cat, seen from above.", key=samples.key()),
    )
    tried = dict(zip(_FORMS, (native, caption), strict=True))
    mode = next((_FORMS[name] for name, got in tried.items() if not isinstance(got, str)), None)
    for name, got in tried.items():
        if not isinstance(got, str):
            report.findings.append(Finding(name, True, f"{got[0]} numbers in {got[1]:.1f} s"))
        elif mode is None or got == _SAME:
            report.findings.append(Finding(name, False if mode is None else None, got))
        else:
            report.findings.append(Finding(name, None, f"not offered; not needed with --embed-mode {mode}"))
    report.embed_mode = mode
    if mode is not None:
        report.embed_model = await embed.resolve_model()
        report.findings.append(Finding("embed mode", True, mode, f"use --embed-mode {mode}", essential=True))
        return
    named = [name for name in embed.abilities.models if re.search("embed|bge|gte|e5-", name, re.IGNORECASE)]
    here = f"try --embed-model {named[0]}, or " if named else ""
    advice = f"{here}use --embed-mode caption --embed-endpoint local, or name an --embed-endpoint that has them"
    report.findings.append(Finding("embed mode", False, "no embeddings here", advice, essential=True))


_SAME = "the same vector for two that differ: what is sent is not looked at"


async def _two_vectors(
    one: Callable[[], Awaitable[Vector]], other: Callable[[], Awaitable[Vector]]
) -> tuple[int, float] | str:
    """Width and seconds; or why there are no embeddings: some servers take any body and embed something else."""
    first = await _attempt(one)
    if isinstance(first, PartitaError):
        return str(first)
    second = await _attempt(other)
    if isinstance(second, PartitaError):
        return str(second)
    if first.values.shape == second.values.shape and np.allclose(first.values, second.values, rtol=1e-4, atol=1e-6):
        return _SAME
    return first.values.size, first.seconds


async def _attempt(ask: Callable[[], Awaitable[T]]) -> T | PartitaError:
    try:
        return await ask()
    except PartitaError as error:
        return error


def _about_images(error: PartitaError) -> bool:
    """Whether a failure may be for the image's sake; some servers answer 404 or 500 where they take none."""
    if isinstance(error, RequestRejected | LimitTooLow):
        return True
    return re.search("image|vision|multi-?modal|mmproj", str(error), re.IGNORECASE) is not None


def _not_tried(name: str) -> Finding:
    return Finding(name, None, "not tried", essential=True)


def _failed(name: str, error: PartitaError) -> Finding:
    what, _, advice = str(error).partition(": ")
    return Finding(name, False, what, advice, essential=True)


def _chat_finding(name: str, got: Reply | PartitaError) -> Finding:
    if isinstance(got, PartitaError):
        if not _about_images(got):
            return _failed(name, got)
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
    speed = f", {got.completion_tokens / got.seconds:.0f} tokens a second" if got.completion_tokens else ""
    detail = f"{got.seconds:.1f} s for a membership question{speed}{retries}"
    slow = got.seconds > SLOW
    return Finding(
        "latency",
        None if slow else True,
        detail,
        "a smaller model or more hardware makes this bearable" if slow else "",
    )


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"
