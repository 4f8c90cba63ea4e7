"""The built-in server's routes: the OpenAI API of CONTRACT 4 and 5 over one model. Needs the `local` extra.

`POST /v1/chat/completions`, `POST /v1/embeddings` (chat form), `GET /v1/models`, `GET /health`. A model that embeds
texts and does nothing else has no chat, and its embeddings are those of `input`.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.batching import Batcher, Full, Model, TextEmbedder
from serving.requests import ApiError, read_chat, read_embedding, read_text_embedding

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 << 20
Handler = Callable[[Request], Awaitable[Response]]


def application(
    model: Model | TextEmbedder, *, batch_size: int, max_wait: float, max_queue: int, api_key: str | None
) -> Starlette:
    """The ASGI application; `serving.server.build_app` says what the arguments mean."""
    batcher = Batcher(model, batch_size=batch_size, max_wait=max_wait, max_queue=max_queue)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with batcher:
            yield

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "model": model.name, "waiting": batcher.waiting})

    async def models(_: Request) -> Response:
        own: dict[str, Any] = {"embedding_width": model.embedding_width}
        if not isinstance(model, TextEmbedder):
            own |= {"beta": model.beta, "threshold": model.threshold, "criteria": list(model.criteria)}
        entry = {"id": model.name, "object": "model", "created": 0, "owned_by": "partita", "partita": own}
        return JSONResponse({"object": "list", "data": [entry]})

    async def chat(request: Request) -> Response:
        verb, conversation = read_chat(await _body(request), model.name)
        said = await _unless_gone(request, batcher.submit(verb, conversation))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": said.text},
            "logprobs": None,
            "finish_reason": said.finish_reason,
        }
        return JSONResponse(
            {
                "id": f"chatcmpl-{uuid.uuid4().hex}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": model.name,
                "choices": [choice],
                "usage": {
                    "prompt_tokens": said.prompt_tokens,
                    "completion_tokens": said.completion_tokens,
                    "total_tokens": said.prompt_tokens + said.completion_tokens,
                },
            }
        )

    async def embeddings(request: Request) -> Response:
        read = read_text_embedding if isinstance(model, TextEmbedder) else read_embedding
        asked = read(await _body(request), model.name)
        data = []
        # A long list is computed part by part, so that it does not fill the queue before others.
        for first in range(0, len(asked.subjects), batch_size):
            part = asked.subjects[first : first + batch_size]
            rows = await _unless_gone(request, _all(batcher.submit(asked.verb, subject) for subject in part))
            data += [_written(row, asked.encoding, first + i) for i, row in enumerate(rows)]
        return JSONResponse(
            {
                "object": "list",
                "model": model.name,
                "data": data,
                "usage": {"prompt_tokens": 0, "total_tokens": 0},
            }
        )

    def guarded(handler: Handler) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def answer(request: Request) -> Response:
            try:
                _check_key(request, api_key)
                return await handler(request)
            except ApiError as error:
                return _error(error)
            except ValueError as error:  # from the model, about what it was given
                about = "input" if isinstance(model, TextEmbedder) else "messages"
                return _error(ApiError(400, str(error), param=about))
            except Full:
                message = "too many requests wait already: ask again later"
                full = ApiError(429, message, kind="rate_limit_error", code="queue_full", headers={"Retry-After": "1"})
                return _error(full)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody is there to read it
            except Exception:
                log.exception("the request failed")
                message = "the server failed on this request: its log says why"
                return _error(ApiError(500, message, kind="server_error"))

        return answer

    async def no_such_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path} is not served here: {error.detail}"
        return _error(ApiError(error.status_code, message, headers=dict(error.headers or {})))

    routes = [
        Route("/health", health, methods=["GET"]),
        Route("/v1/models", guarded(models), methods=["GET"]),
        Route("/v1/embeddings", guarded(embeddings), methods=["POST"]),
    ]
    if not isinstance(model, TextEmbedder):
        routes.append(Route("/v1/chat/completions", guarded(chat), methods=["POST"]))
    return Starlette(
        routes=routes,
        exception_handlers={HTTPException: no_such_route},
        lifespan=lifespan,
    )


def _written(row: Any, encoding: str, index: int) -> dict[str, Any]:
    values = np.asarray(row, dtype="<f4")
    written = base64.b64encode(values.tobytes()).decode() if encoding == "base64" else values.tolist()
    return {"object": "embedding", "index": index, "embedding": written}


async def _all(work: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    return await asyncio.gather(*work)


def _error(error: ApiError) -> Response:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


def _check_key(request: Request, api_key: str | None) -> None:
    if api_key is None:
        return
    given = request.headers.get("authorization", "").encode()
    if not hmac.compare_digest(given, f"Bearer {api_key}".encode()):
        message = "a valid API key is needed: send it as a bearer token (PARTITA_API_KEY)"
        raise ApiError(401, message, kind="authentication_error", code="invalid_api_key")


async def _body(request: Request) -> bytes:
    too_large = ApiError(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MB: send smaller images")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, which is cancelled when the client hangs up.

    Raises:
        ClientDisconnect: it hung up.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
