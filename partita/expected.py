"""What a run of this collection is expected to take: gathers what ``estimate`` needs, without a call to anybody."""

from __future__ import annotations

from agents.prompt_sets import PromptSet
from partita.estimate import Estimate, Job, TakenOver, estimate, image_tokens, text_tokens
from partita.prices import Prices
from partita.settings import BUILT_IN, EMBEDDED, LOCAL, Parameters
from serving.sentences import PACKAGED
from storage.database import Database
from storage.images import Undecodable, opened
from storage.items import Collection, Item
from storage.spend import Usual, usual

LOOKED_AT = 200
"""Items whose size is looked at, evenly spread over the collection."""


def expected(
    found: Collection,
    prompt_set: PromptSet,
    p: Parameters,
    prices: Prices,
    took: dict[str, Usual],
    *,
    max_calls: int | None = None,
    max_cost: float | None = None,
    taken: TakenOver | None = None,
) -> Estimate:
    """Calls, tokens, cost and time of a run; ``took`` is what calls of these models took before (``measured``),
    ``taken`` what a fork need not ask."""
    endpoint, model, embed_endpoint, embed_model = asked_models(p)
    price = prices.of(model, endpoint=endpoint)
    embed_price = prices.of(embed_model, endpoint=embed_endpoint)
    remarks = dict.fromkeys([prices.remark(model, price), prices.remark(embed_model, embed_price)])
    return estimate(
        Job(
            prompts=prompt_set,
            items=len(found.items),
            distinct=len({item.content_hash for item in found.items}),
            failed=len(found.failed),
            item_tokens=item_tokens(found, p.longest_side),
            policy=p.policy,
            representatives=p.representatives,
            candidates=p.candidates,
            concurrency=p.concurrency,
            native=p.embeds_natively,
            built_in=endpoint == EMBEDDED,
            price=price,
            embed_price=embed_price,
            usual=took,
            max_calls=max_calls,
            max_cost=max_cost,
            remarks=tuple(remark for remark in remarks if remark),
            taken=taken or TakenOver(),
        )
    )


def asked_models(p: Parameters) -> tuple[str, str, str, str]:
    """(endpoint, model, embed endpoint, embed model), as far as they are known without asking."""

    def named(endpoint: str, model: str | None) -> str:
        ours = {EMBEDDED: BUILT_IN, LOCAL: PACKAGED}
        return model or ours.get(endpoint, "the endpoint's first model (name it with --model)")

    elsewhere = p.embed_endpoint or p.endpoint
    model = named(p.endpoint, p.model)
    embed_model = model if elsewhere == p.endpoint and not p.embed_model else named(elsewhere, p.embed_model)
    return p.endpoint, model, elsewhere, embed_model


def measured(db: Database, p: Parameters) -> dict[str, Usual]:
    """What calls of these models took before, by kind, over all sessions of a database."""
    _, model, _, embed_model = asked_models(p)
    chat = {kind: took for kind, took in usual(db, model).items() if kind != "embed"}
    embed = {kind: took for kind, took in usual(db, embed_model).items() if kind == "embed"}
    return chat | embed


def item_tokens(found: Collection, longest_side: int) -> float:
    """Mean tokens of an item in a message, from the sizes of some."""
    some = found.items[:: max(1, len(found.items) // LOOKED_AT)]
    sizes = [tokens for item in some if (tokens := _size(item, longest_side)) is not None]
    return sum(sizes) / len(sizes) if sizes else image_tokens(longest_side, longest_side, longest_side)


def _size(item: Item, longest_side: int) -> float | None:
    if item.path is None:
        return text_tokens(item.text or "")
    try:
        with opened(item.path.read_bytes()) as image:
            return image_tokens(*image.size, longest_side)
    except (OSError, Undecodable):  # it was fine a moment ago: the run will say
        return None
