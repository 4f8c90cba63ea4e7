"""What the built-in server takes: OpenAI's request bodies, checked, and its form of errors.

Every check raises `ApiError` with the parameter that is wrong, so that a caller of the official client sees
`BadRequestError` with a message that can be acted on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from serving.batching import Conversation, Verb

DEFAULT_MAX_TOKENS = 256
MAX_TOKENS = 4096
_UNSUPPORTED = ("audio", "functions", "logprobs", "modalities", "response_format", "stop", "tools")


class ApiError(Exception):
    """An error in OpenAI's form."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """What is to be embedded, and how the vectors are to be written: "float" or "base64"."""

    verb: Verb
    subjects: list[Conversation | str]
    """One conversation, or texts."""
    encoding: str


def read_chat(payload: bytes, model: str) -> tuple[Verb, Conversation]:
    """The body of POST /v1/chat/completions."""
    body = _body(payload, model)
    if body.get("stream"):
        _wrong("stream", "streaming is not supported: leave stream out")
    if body.get("n") not in (None, 1):
        _wrong("n", "one choice is all there is: leave n out")
    for name in _UNSUPPORTED:
        if body.get(name) not in (None, False, [], {"type": "text"}):
            _wrong(name, f"{name} is not supported: leave it out")
    bound = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    max_tokens = body.get(bound)
    if max_tokens is None:
        max_tokens = DEFAULT_MAX_TOKENS
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        _wrong(bound, f"{bound} must be a whole number from 1")
    temperature = body.get("temperature")
    if temperature is None:
        temperature = 0.0
    if not isinstance(temperature, int | float) or isinstance(temperature, bool) or not 0 <= temperature <= 2:
        _wrong("temperature", "temperature must be a number from 0 to 2")
    return Verb("generate", min(max_tokens, MAX_TOKENS), float(temperature)), _messages(body)


def read_embedding(payload: bytes, model: str) -> EmbeddingRequest:
    """The body of POST /v1/embeddings, in the chat form of CONTRACT 5."""
    body = _body(payload, model)
    if "messages" not in body:
        _wrong(
            "input",
            f"{model} has no text embeddings: send messages (a describe question and an answer that ends in "
            "<embedding>, with continue_final_message), as --embed-mode native does",
        )
    encoding = _encoding(body)
    if body.get("add_generation_prompt"):
        _wrong("add_generation_prompt", "add_generation_prompt must be false: the answer to embed is the last message")
    conversation = _messages(body)
    if conversation[-1]["role"] != "assistant":
        _wrong("messages", "the last message must be the assistant's, ending in <embedding>")
    return EmbeddingRequest(Verb("embed"), [conversation], encoding)


def read_text_embedding(payload: bytes, model: str) -> EmbeddingRequest:
    """The body of POST /v1/embeddings with `input`, a text or a list of texts, as OpenAI has it."""
    body = _body(payload, model)
    if "messages" in body:
        _wrong("messages", f"{model} embeds texts, no conversations: send input, as --embed-mode caption does")
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        _wrong("input", "input must be a text or a list of texts, none of them empty")
    return EmbeddingRequest(Verb("embed"), list(texts), _encoding(body))


def _encoding(body: dict[str, Any]) -> str:
    if body.get("dimensions") is not None:
        _wrong("dimensions", "dimensions can't be chosen: leave it out")
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        _wrong("encoding_format", "encoding_format must be float or base64")
    return str(encoding)


def _body(payload: bytes, model: str) -> dict[str, Any]:
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    name = body.get("model")
    if not isinstance(name, str) or not name:
        _wrong("model", f"model must be a name: {model!r} is what is served here")
    if name != model:
        message = f"The model {name[:100]!r} does not exist here: {model!r} does"
        raise ApiError(404, message, param="model", code="model_not_found")
    return body


def _messages(body: dict[str, Any]) -> Conversation:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        _wrong("messages", "messages must be a list of at least one message")
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, dict):
            _wrong(where, "a message must be an object with role and content")
        if message.get("role") not in ("system", "user", "assistant"):
            _wrong(f"{where}.role", "role must be system, user or assistant")
        _content(message.get("content"), f"{where}.content")
    return messages


def _content(content: object, where: str) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        _wrong(where, "content must be a text or a list of content parts")
    for j, part in enumerate(content):
        at = f"{where}[{j}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            if not isinstance(part.get("text"), str):
                _wrong(f"{at}.text", "text must be a string")
        elif kind == "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else None
            if not isinstance(url, str):
                _wrong(f"{at}.image_url", "image_url must be an object with a url")
            if not url.startswith("data:image/") or ";base64," not in url[:100]:
                _wrong(f"{at}.image_url", "images are taken as data:image/…;base64 URLs only, none is fetched")
        else:
            _wrong(at, "a content part must be of type text or image_url")


def _wrong(param: str, message: str) -> NoReturn:
    raise ApiError(400, message, param=param)
