"""The teacher: a strong model, or labels, whose answers supervise training (METHOD 8).

It is asked through an `Asker`, so an answer is in the ledger before it is used and no question is ever paid twice.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

from agents import questions
from agents.conclusions import Conclusion, ending
from agents.descriptions import read_description
from agents.prompt_sets import PromptSet
from agents.questions import Question
from graphs.asking import HOPELESS, Asker
from graphs.traversal import ASKS
from storage.errors import EndpointMisbehaves
from storage.ledger import Answer
from training.samples import Sample

SIDES = ("Cluster A", "Cluster B")
_EMBEDDING = re.compile(r"\s*<embedding>", re.IGNORECASE)

Work = Callable[[], Awaitable[None]]


class Teacher:
    """Captions items and says of pairs whether they are alike under the criterion.

    All questions of a call are asked side by side. One that the endpoint rejects or can't conclude is left out of what
    comes back; when the budget is used up `Paused` is raised, and everything answered is kept.
    """

    def __init__(self, asker: Asker, prompts: PromptSet, hashes: Sequence[str], *, supervised: bool) -> None:
        """`hashes` are the content hashes of the session's nodes, in order; `supervised` says that labels answer,
        or a model that learnt from labels."""
        self.asker = asker
        self.prompts = prompts
        self.hashes = hashes
        self.supervised = supervised
        self.node = {content_hash: node for node, content_hash in enumerate(hashes)}
        """Number of each item in the teacher's session."""

    async def captions(self, hashes: Iterable[str]) -> dict[str, str]:
        """A caption of each item, without `<embedding>`; items that could not be described are left out.

        An item whose description was empty is asked about again only where the endpoint could describe none then.

        Raises:
            EndpointMisbehaves: no item could be described.
            Paused, EndpointError: as `Asker.ask`.
        """
        wanted = list(dict.fromkeys(hashes))
        said: dict[str, str] = {}
        failures: list[str] = []
        useless = self._useless()

        async def one(item: str) -> None:
            asked = self._description(item, useless)
            answer = await self.asker.ask(asked, component=None, step=None, subject={"item": self.node[item]})
            if caption := read_description(answer.reply).strip():
                said[item] = caption
            else:
                failures.append(answer.reason or "the teacher's description is empty")
                if len(failures) >= max(HOPELESS, 4 * self.asker.concurrency):
                    self._check_use(failures[0])

        await self._each("describe", [partial(one, item) for item in wanted])
        if wanted and not said:
            self._check_use(failures[0])
        return {item: said[item] for item in wanted if item in said}

    async def same(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bool]:
        """Whether the two items of each pair are alike, asked as a membership with one representative.

        A pair and its reverse are one question. Pairs that stay UNKNOWN are left out.

        Raises:
            Paused, EndpointError: as `Asker.ask`.
        """
        wanted = list(dict.fromkeys(pairs))
        verdicts: dict[tuple[str, str], Conclusion] = {}

        async def one(a: str, b: str) -> None:
            asked = questions.membership(self.prompts, [a], [b])
            verdicts[a, b] = conclusion_of(await self.assess(asked))

        inner = dict.fromkeys((min(pair), max(pair)) for pair in wanted)
        await self._each("pairs", [partial(one, *pair) for pair in inner])
        told = ((pair, verdicts[min(pair), max(pair)]) for pair in wanted)
        return {pair: verdict is Conclusion.YES for pair, verdict in told if verdict is not Conclusion.UNKNOWN}

    def judged(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Sample]:
        """What the teacher has said of pairs, as assessments that an agent can learn from; asks nobody.

        A traversal of a good graph has few NO; the embedder's hardest pairs have many.
        """
        told: dict[tuple[str, str], Sample] = {}
        for pair in dict.fromkeys(pairs):
            for attempt in range(ASKS):
                asked = questions.membership(self.prompts, [min(pair)], [max(pair)], attempt)
                answer = self.asker.answers.get(asked.key(self.asker.sampling))
                if answer is not None and (sample := sample_of(asked, answer)) is not None:
                    told[pair] = sample
        return told

    async def assess(self, asked: Question) -> Answer:
        """The answer to a membership with one candidate, or to a question about two clusters; UNKNOWN is asked again up
        to three times (METHOD 5a)."""
        subject = self._subject(asked)
        for attempt in range(ASKS):
            again = Question(asked.kind, asked.instruction, asked.items, attempt)
            answer = await self.asker.ask(again, component=None, step=None, subject=subject)
            rejected = not answer.reply and answer.reason
            if conclusion_of(answer) is not Conclusion.UNKNOWN or rejected:  # what is rejected once is so again
                break
        return answer

    def _subject(self, asked: Question) -> dict[str, Any]:
        """Whom a question shows, as the ledger has it."""
        if asked.kind == "merge":
            sides = [[self.node[item] for label, item in asked.items if label.startswith(side)] for side in SIDES]
            return {"representatives": sides, "clusters": sides}
        *shown, candidate = [self.node[item] for _, item in asked.items]
        return {"representatives": shown, "candidates": [candidate]}

    async def assess_all(self, asked: Iterable[Question]) -> dict[Question, Answer]:
        """The answers to assessments, asked side by side, in the order of the questions."""
        wanted = list(dict.fromkeys(asked))
        answers: dict[Question, Answer] = {}

        async def one(question: Question) -> None:
            answers[question] = await self.assess(question)

        await self.asker.each(partial(one, question) for question in wanted)
        return {question: answers[question] for question in wanted}

    def _description(self, item: str, useless: Container[str]) -> Question:
        """The question for an item's caption: the latest that was asked, or the next where its answer is `useless`."""
        answers, sampling = self.asker.answers, self.asker.sampling
        asked = questions.describe(self.prompts, item)
        while (key := asked.key(sampling)) in answers:
            again = Question(asked.kind, asked.instruction, asked.items, asked.attempt + 1)
            if key not in useless and again.key(sampling) not in answers:
                break
            asked = again
        return asked

    def _useless(self) -> set[str]:
        """Keys of the empty descriptions that an endpoint gave before it was mended, or gives to this day.

        A few empty ones before the first of use come from an endpoint in order.
        """
        told = sorted((a for a in self.asker.answers.values() if a.kind == "describe"), key=lambda a: a.at)
        early = {a.key for a in takewhile(lambda a: not read_description(a.reply).strip(), told)}
        return early if len(early) == len(told) or len(early) >= HOPELESS else set()

    def _check_use(self, why: str) -> None:
        described = (answer.reply for answer in self.asker.answers.values() if answer.kind == "describe")
        if not any(read_description(reply).strip() for reply in described):
            raise EndpointMisbehaves(
                f"the teacher can describe no item: {why}; once that is mended the same command asks it again, or name "
                "another with --teacher"
            )

    async def _each(self, stage: str, work: Sequence[Work]) -> None:
        progress = self.asker.progress
        progress.stage, progress.done, progress.total = stage, 0, len(work)

        async def counted(part: Work) -> None:
            await part()
            progress.done += 1

        parts: Iterator[Work] = (partial(counted, part) for part in work)
        await self.asker.each(parts)


def sample_of(asked: Question, answer: Answer) -> Sample | None:
    """An assessment as a model is to learn it: the reasoning, then the conclusion; None for an UNKNOWN one.

    What a reasoning model thought before its reply is left out, as in a description.
    """
    verdict = conclusion_of(answer)
    if verdict is Conclusion.UNKNOWN:
        return None
    reason = _EMBEDDING.sub("", answer.reason or "")
    return Sample(asked, f"{reason} {ending(verdict)}".strip())


def conclusion_of(answer: Answer) -> Conclusion:
    """The one conclusion of an answer; UNKNOWN where there is none."""
    return Conclusion(answer.conclusion or Conclusion.UNKNOWN)
