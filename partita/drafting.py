"""Having the model of an endpoint draft a prompt set for a criterion, for the user to edit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agents.drafting import LONGEST_CRITERION, Draft, NoDraft, draft_instruction, drafted_set, read_draft
from agents.prompt_sets import PromptSet
from agents.prompt_yaml import to_yaml
from agents.questions import Message
from partita.endpoints import chat_alone, connect
from partita.estimate import count, money
from partita.gallery import Gallery
from partita.keys import Keys
from partita.plain import plain
from partita.prices import Prices, load_prices
from partita.settings import EMBEDDED, Parameters
from serving.client import Endpoint, Reply
from serving.images import text_part
from storage.errors import EndpointMisbehaves, LimitTooLow, QuestionTooLong, UsageError
from storage.items import Item

TRIES = 3
"""So often the model is asked, the last times with what was wrong with its reply."""
SHOWN = 4
"""Items that it is shown, where there is a collection."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """What came of it."""

    prompts: PromptSet
    text: str
    """The set as YAML, with a comment that says who drafted it and when."""
    model: str
    calls: int
    tokens: int
    cost: float
    """In USD; at an assumed price where ``price_known`` is False."""
    price_known: bool

    def line(self) -> str:
        """What it took, in a few words."""
        return spent(self.calls, self.tokens, self.cost, self.price_known)


def spent(calls: int, tokens: int, cost: float, price_known: bool) -> str:
    """What some calls took, in a few words."""
    if not calls:
        return "no calls"
    said = f"{calls} call{'s' if calls > 1 else ''}, {count(tokens)} tokens"
    if not cost:
        return f"{said}, at no cost"
    return f"{said}, {money(cost, 'USD', known=price_known)}"


def check_can_draft(parameters: Parameters, criterion: str) -> str:
    """The criterion on one line.

    Raises:
        UsageError: it is none, or the model is one on this machine, which only answers agents' questions.
    """
    words = " ".join(criterion.split())
    if not words or not words.isprintable() or len(words) > LONGEST_CRITERION:
        raise UsageError(f'say in up to {LONGEST_CRITERION} characters what to cluster by: "breed of the dog"')
    if parameters.endpoint == EMBEDDED:
        raise UsageError(
            "the built-in model can't write prompts: name a model that can with --endpoint URL (any OpenAI-compatible "
            "chat API), or write them yourself from `partita prompts show default > mine.yaml`"
        )
    return words


def some_of(items: Sequence[Item], number: int) -> list[Item]:
    """So many of the items, or all, of different contents, evenly from first to last."""
    distinct = list({item.content_hash: item for item in reversed(items)}.values())[::-1]
    if number >= len(distinct):
        return distinct
    return [distinct[(2 * i + 1) * len(distinct) // (2 * number)] for i in range(number)]


async def draft(
    criterion: str,
    parameters: Parameters,
    *,
    keys: Keys | None = None,
    items: Sequence[Item] = (),
    prices: Prices | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Drafted:
    """Have the chat model draft a prompt set; it is kept nowhere.

    Args:
        items: shown to it, so that the set fits them.
        on_note: told in a line about each retry.

    Raises:
        UsageError: no criterion, or the built-in model.
        EndpointMisbehaves: after ``TRIES`` replies there was nothing that could be used.
        EndpointError: the endpoint can't be used.
    """
    words = check_can_draft(parameters, criterion)
    prices = prices or load_prices()
    calls = tokens = 0
    cost, complaint = 0.0, ""
    async with connect(chat_alone(parameters), keys, on_note) as connection:
        p = connection.parameters
        price = prices.rates(p).chat
        gallery = Gallery(items, p.longest_side)
        parts = [await gallery.part(item.content_hash) for item in items]
        for attempt in range(TRIES):
            content = [text_part(draft_instruction(words, len(items), complaint))]
            for number, part in enumerate(parts, 1):
                content += [text_part(f"Item {number}:"), part]
            key = _key(p, content[0]["text"], items, attempt)
            reply = await _ask(connection.chat, p, [{"role": "user", "content": content}], key)
            calls += 1
            tokens += reply.prompt_tokens + reply.completion_tokens
            cost += price.cost_of_call("describe", reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens)
            try:
                made = read_draft(reply.text, words)
            except NoDraft as e:
                complaint = str(e)
                if on_note is not None:
                    on_note(f"the reply could not be used: {complaint}")
                continue
            prompts = drafted_set(made)
            text = to_yaml(prompts, _comment(made, reply.model))
            return Drafted(prompts, text, reply.model, calls, tokens, cost, price.known)
    raise EndpointMisbehaves(
        f"{p.model} gave {TRIES} replies that no prompt set can be made of ({complaint}): name another --model, or "
        "write one yourself from `partita prompts show default > mine.yaml`"
    )


async def _ask(chat: Endpoint, p: Parameters, messages: list[Message], key: str) -> Reply:
    try:
        return await chat.chat(messages, key=key, max_tokens=p.max_tokens, temperature=p.temperature, seed=p.seed)
    except LimitTooLow as e:
        if e.images is None:
            raise
        raise LimitTooLow(
            f"{chat.url} takes {e.images} images in a question: show it so many with --show {e.images}", images=e.images
        ) from e
    except QuestionTooLong as e:
        raise QuestionTooLong(f"{e}; or show fewer items with --show N", status=e.status) from e


def _key(p: Parameters, instruction: str, items: Sequence[Item], attempt: int) -> str:
    """Names the question, as every request's key does (CONTRACT 4)."""
    shown = [item.content_hash for item in items]
    what = [
        "partita/1", "draft", instruction, shown, attempt, p.model, p.temperature, p.max_tokens, p.seed, p.longest_side,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _comment(made: Draft, model: str) -> str:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return (
        f'Drafted by {plain(model)[:100]} for "{plain(made.criterion)}" on {now}.\n'
        "Edit it: `partita prompts check FILE` tells what is wrong, `partita prompts try FILE SESSION` what it does."
    )
