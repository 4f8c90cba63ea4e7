"""What is known of an endpoint besides that it answers: whose server it is, and what that server can do for us.

`look` costs one GET /models, and one tiny question where the server says that it is vLLM. What is known changes how
questions are sent, in `serving.client` alone; CONTRACT 4 is what everybody gets.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from storage.errors import RequestRejected

if TYPE_CHECKING:
    from serving.client import Endpoint

PATTERN = "<CONCLUSION> (YES|NO) </CONCLUSION>"
"""What the tiny question's reply is held to; nobody would say it unasked."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What is known of an endpoint; nothing, of a server that does not say whose it is.

    Attributes:
        server: "vllm", "partita", or "" where unknown.
        models: as listed; empty where there is no list.
        longest: tokens that a question and its reply may have together, where the server tells.
        constrains: replies can be held to a regular expression.
        identifies: images may carry an identity, by which the server knows one that it has seen before.
    """

    server: str = ""
    models: tuple[str, ...] = ()
    longest: int | None = None
    constrains: bool = False
    identifies: bool = False


async def look(endpoint: Endpoint, *, constrain: bool = True) -> Abilities:
    """Find out what the endpoint can do, and let it be asked accordingly.

    Args:
        constrain: find out whether replies can be constrained; an embedding endpoint need not be asked.

    Raises:
        ModelUnknown, EndpointError: what `Endpoint.resolve_model` raises.
    """
    model = await endpoint.resolve_model()
    mine = next((listed for listed in endpoint.listed if listed.name == model), None)
    server = mine.owner if mine is not None and mine.owner in ("vllm", "partita") else ""
    endpoint.abilities = Abilities(
        server=server,
        models=tuple(listed.name for listed in endpoint.listed),
        longest=mine.longest if mine is not None else None,
        identifies=server == "vllm",
    )
    if constrain and server == "vllm":
        endpoint.abilities = replace(endpoint.abilities, constrains=await _obeys(endpoint))
    return endpoint.abilities


async def _obeys(endpoint: Endpoint) -> bool:
    """Whether a reply keeps to `PATTERN`: older servers ignore what they don't know, without a word."""
    endpoint.abilities = replace(endpoint.abilities, constrains=True)
    asked = [{"role": "user", "content": "Which colour has a ripe lemon?"}]
    try:
        reply = await endpoint.chat(
            asked, key=f"look-{uuid.uuid4().hex}", max_tokens=32, temperature=0.0, seed=0, pattern=PATTERN
        )
    except RequestRejected:
        return False
    return re.fullmatch(PATTERN, reply.text.strip()) is not None
