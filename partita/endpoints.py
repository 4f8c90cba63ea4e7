"""Opening the endpoints that a session asks: the built-in server, a sentence embedder beside us, or somebody's URL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agents.prompt_sets import criterion_name, set_for_criterion
from partita.keys import Keys
from partita.settings import EMBEDDED, LOCAL, Parameters
from serving.abilities import look
from serving.client import Endpoint
from serving.llava.about import read_about, reads_texts
from serving.roles import CHAT, Role
from storage.errors import EndpointUnreachable, LimitTooLow, UsageError
from storage.items import Collection

if TYPE_CHECKING:
    from serving.embedded import EmbeddedServer

BUILT_IN_CRITERIA = ("suit", "rank", "species", "color")
"""What partita-mini was trained on."""
SHORTEST_QUESTION = 256
"""Tokens that a question has at least; with images it has far more."""


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
    """Refuse a criterion that the built-in model, or the one in ``model_folder``, does not know.

    Raises:
        UsageError: says which it knows, and how to use an endpoint for any other.
    """
    if parameters.endpoint != EMBEDDED:
        return
    if parameters.model_folder:
        about = read_about(Path(parameters.model_folder))
        if about.criteria and criterion_name(criterion) not in about.criteria:
            raise UsageError(
                f"the model in {parameters.model_folder} can't judge by {criterion!r}: it was trained by "
                f"{', '.join(about.criteria)}; train another with `partita train`, or name one with --endpoint URL"
            )
        return
    if set_for_criterion(criterion).name in BUILT_IN_CRITERIA:
        return
    raise UsageError(
        f"the built-in model can't judge by {criterion!r}: it knows playing cards by suit or rank and fruit by species "
        "or color; for any other criterion name a model with --endpoint URL (any OpenAI-compatible API with images), "
        "or train one with `partita train`"
    )


def check_kind(parameters: Parameters, found: Collection) -> None:
    """Refuse texts for the built-in model, which sees images only.

    Raises:
        UsageError: says how to cluster them.
    """
    if parameters.endpoint != EMBEDDED or all(item.kind == "image" for item in found.items):
        return
    if parameters.model_folder and reads_texts(Path(parameters.model_folder)):
        return
    raise UsageError(
        "the built-in model judges images only: for texts name a model with --endpoint URL (any OpenAI-compatible "
        "chat API), and --embed-endpoint local if it has no embeddings"
    )


def chat_alone(parameters: Parameters) -> Parameters:
    """The same for whoever asks for no embeddings: no other endpoint is opened for them."""
    none = {"embed_endpoint": None, "embed_model": None, "embed_folder": None, "embed_mode": "caption"}
    return parameters.model_copy(update=none)


@asynccontextmanager
async def connect(
    parameters: Parameters,
    keys: Keys | None,
    on_retry: Callable[[str], None] | None = None,
    max_attempts: int = 6,
    role: Role = CHAT,
) -> AsyncIterator[Connection]:
    """Open the endpoints and resolve the models' names.

    Args:
        max_attempts: transport faults in a row after which a question is given up (CONTRACT 4).
        role: what the options are called that name the chat endpoint.

    Raises:
        EndpointError: an endpoint can't be used.
        UsageError: a model on this machine is not there, or needs an extra that is not installed.
    """
    async with AsyncExitStack() as stack:
        servers = await _servers(parameters, stack)

        async def open_endpoint(url: str, model: str | None, *, embeds: bool = False) -> Endpoint:
            ours = servers.get(url)
            given = keys or Keys()
            key, its_role = given.of_embeddings(parameters.endpoint, url) if embeds else (given.chat, role)
            secret = key.get_secret_value() if key else None
            endpoint = Endpoint(
                ours.url if ours else url,
                model=model,
                api_key=ours.api_key if ours else secret,
                request_timeout=parameters.request_timeout,
                concurrency=parameters.concurrency,
                max_attempts=max_attempts,
                on_retry=on_retry,
                role=its_role,
            )
            return await stack.enter_async_context(endpoint)

        try:
            yield await _resolved(parameters, open_endpoint, on_retry)
        except EndpointUnreachable as e:
            for server in servers.values():
                if (why := server.ended()) is not None:
                    kept = "what was answered is kept, and the session can be resumed"
                    raise EndpointUnreachable(f"{why}; {kept}") from e
            raise


class _Open(Protocol):
    async def __call__(self, url: str, model: str | None, *, embeds: bool = False) -> Endpoint: ...


async def _servers(parameters: Parameters, stack: AsyncExitStack) -> dict[str, EmbeddedServer]:
    """Child processes for the models on this machine that are asked, by the endpoint's name."""
    asked = {parameters.endpoint, parameters.embed_endpoint} & {EMBEDDED, LOCAL}
    if not asked:
        return {}
    from serving.embedded import embedded

    servers = {}
    if EMBEDDED in asked:
        mine = Path(parameters.model_folder) if parameters.model_folder else None
        called = f"the model in {mine}" if mine else "the built-in model"
        servers[EMBEDDED] = await stack.enter_async_context(embedded(mine, called=called))
    if LOCAL in asked:
        folder = Path(parameters.embed_folder) if parameters.embed_folder else None
        embedder = embedded(folder, loader="serving.sentences:load", called="the sentence embedder")
        servers[LOCAL] = await stack.enter_async_context(embedder)
    return servers


async def _resolved(parameters: Parameters, open_endpoint: _Open, on_note: Callable[[str], None] | None) -> Connection:
    chat = await open_endpoint(parameters.endpoint, parameters.model)
    can = await look(chat, constrain=parameters.constrain is not False)
    model = await chat.resolve_model()
    _check_room(parameters, can.longest, chat.url)
    if parameters.constrain and not can.constrains and on_note is not None:
        on_note(f"{chat.url} can't hold replies to their form as before: the session goes on without that")
    elsewhere = parameters.embed_endpoint or parameters.endpoint
    if elsewhere == parameters.endpoint and parameters.embed_model in (None, model):
        embedder, embed_model = chat, model
    else:
        embedder = await open_endpoint(elsewhere, parameters.embed_model, embeds=True)
        await look(embedder, constrain=False)
        embed_model = await embedder.resolve_model()
    native = parameters.embeds_natively
    if parameters.embed_mode is None and elsewhere != LOCAL and embedder.abilities.server == "partita":
        native = True  # `partita serve` has no embeddings of texts
    told = await embedder.model_constants() if native else {}
    names = {
        "model": model,
        "embed_endpoint": elsewhere,
        "embed_model": embed_model,
        "embed_mode": "native" if native else "caption",
        "constrain": can.constrains if parameters.constrain is None else parameters.constrain,
    }
    return Connection(
        chat, embedder, parameters.model_copy(update=names), beta=told.get("beta"), threshold=told.get("threshold")
    )


def _check_room(parameters: Parameters, longest: int | None, url: str) -> None:
    """Refuse a reply so long that it leaves no room for a question; vLLM would reject every one.

    Raises:
        LimitTooLow: says how long a reply may be.
    """
    if longest is not None and parameters.max_tokens > longest - SHORTEST_QUESTION:
        raise LimitTooLow(
            f"{url} takes {longest} tokens for a question and its reply, and --max-tokens {parameters.max_tokens} "
            f"leaves no room: begin with --max-tokens {max(1, longest // 4)}, or let the server take more"
        )
