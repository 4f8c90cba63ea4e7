"""Opening the endpoints that a session asks: the built-in server, or somebody's URL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from agents.prompt_sets import set_for_criterion
from partita.settings import EMBEDDED, Parameters
from serving.client import Endpoint
from storage.errors import UsageError

BUILT_IN_CRITERIA = ("suit", "rank", "species", "color")
"""What partita-mini was trained on."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Open endpoints, and the parameters with every name resolved."""

    chat: Endpoint
    embedder: Endpoint
    parameters: Parameters
    beta: float | None
    """The embedder's own β and τ, where it tells them."""
    threshold: float | None


def check_built_in(parameters: Parameters, criterion: str) -> None:
    """Refuse a criterion that the built-in model does not know.

    Raises:
        UsageError: says which it knows, and how to use an endpoint for any other.
    """
    if parameters.endpoint != EMBEDDED or set_for_criterion(criterion).name in BUILT_IN_CRITERIA:
        return
    raise UsageError(
        f"the built-in model can't judge by {criterion!r}: it knows playing cards by suit or rank and fruit by species "
        "or color; for any other criterion name a model with --endpoint URL (any OpenAI-compatible API with images)"
    )


@asynccontextmanager
async def connect(
    parameters: Parameters, key: SecretStr | None, on_retry: Callable[[str], None] | None = None
) -> AsyncIterator[Connection]:
    """Open the endpoints and resolve the models' names.

    Raises:
        EndpointError: an endpoint can't be used.
        UsageError: the built-in model needs an extra that is not installed.
    """
    async with AsyncExitStack() as stack:
        own: tuple[str, str] | None = None

        async def resolve(url: str) -> tuple[str, str | None]:
            nonlocal own
            if url != EMBEDDED:
                return url, key.get_secret_value() if key else None
            if own is None:
                from serving.embedded import embedded

                server = await stack.enter_async_context(embedded())
                own = server.url, server.api_key
            return own

        async def open_endpoint(url: str, model: str | None) -> Endpoint:
            base, secret = await resolve(url)
            return await stack.enter_async_context(
                Endpoint(
                    base,
                    model=model,
                    api_key=secret,
                    request_timeout=parameters.request_timeout,
                    concurrency=parameters.concurrency,
                    on_retry=on_retry,
                )
            )

        chat = await open_endpoint(parameters.endpoint, parameters.model)
        model = await chat.resolve_model()
        native = parameters.embeds_natively
        elsewhere = parameters.embed_endpoint or parameters.endpoint
        if elsewhere == parameters.endpoint and parameters.embed_model in (None, model):
            embedder, embed_model = chat, model
        else:
            embedder = await open_endpoint(elsewhere, parameters.embed_model)
            embed_model = await embedder.resolve_model()
        told = await embedder.model_constants() if native else {}
        yield Connection(
            chat=chat,
            embedder=embedder,
            parameters=parameters.model_copy(
                update={
                    "model": model,
                    "embed_endpoint": elsewhere,
                    "embed_model": embed_model,
                    "embed_mode": "native" if native else "caption",
                }
            ),
            beta=told.get("beta"),
            threshold=told.get("threshold"),
        )
