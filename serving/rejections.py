"""What a rejected question (400, 413, 422) tells: a limit of the endpoint's, a parameter that it does not take, or that
the question is no good.

Every server has its own words for it; those of vLLM, SGLang, llama.cpp and large providers are known here. What is not
recognised is the question's own fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from storage.errors import EndpointError, LimitTooLow, QuestionTooLong, RequestRejected

TOO_LARGE = 413
"""HTTP status of a body that is too large."""

_PARAMETER = re.compile(r"\b(max_completion_tokens|max_tokens|temperature|seed)\b")
"""Those that we send and that a question can be asked without, or with in another form."""
_NOT_TAKEN = re.compile(
    r"unsupported|not support|n't support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|deprecated"
    r"|extra_forbidden|only the default|cannot find field",
    re.IGNORECASE,
)
_TOO_MANY_IMAGES = re.compile(
    r"too many images|(?:at most|up to|no more than|maximum(?: of)?|max|limit(?:ed to| of)?) \d{1,4} image",
    re.IGNORECASE,
)
_AT_MOST = re.compile(
    r"(?:at most|up to|no more than|max(?:imum)?(?: is| of)?|limit(?:ed to| is| of)?) (\d{1,4})\b", re.IGNORECASE
)
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|longer than the (?:maximum )?model|prompt is too long|too long to fit",
    re.IGNORECASE,
)


def rejection(status: int, body: bytes, seen: str) -> EndpointError:
    """The error for a rejected question; `seen` says in words for a user who rejected it and with what."""
    told = " ".join(_told(body))
    if _TOO_MANY_IMAGES.search(told):
        most = _AT_MOST.search(told)
        images = int(most[1]) if most else None
        return LimitTooLow(f"{seen}: {_fewer_images(images)}", images=images)
    if _TOO_LONG.search(told) or status == TOO_LARGE:
        advice = (
            "let the server take longer questions, or begin anew with a smaller --longest-side, --representatives, "
            "--candidates or --max-tokens"
        )
        return QuestionTooLong(f"{seen}: {advice}", status=status)
    parameter = _PARAMETER.search(told) if _NOT_TAKEN.search(told) else None
    return RequestRejected(
        f"{seen}: check that the model takes images, and its context length",
        status=status,
        parameter=parameter[1] if parameter else "",
    )


def _fewer_images(most: int | None) -> str:
    if most == 0:
        return "it takes no images, only texts can be clustered with it; for images name a vision-language model"
    raise_it = "raise the server's limit (vLLM: --limit-mm-per-prompt '{\"image\": 6}') and resume"
    if most == 1:
        return f"a question shows two images at least; {raise_it}"
    if most is None:
        return f"{raise_it}, or begin anew with fewer --representatives and --candidates"
    return f"{raise_it}, or begin anew with --representatives {most // 2} --candidates 1"


def _told(body: bytes) -> Iterator[str]:
    """What the error says, its parameter first; what it repeats of our question is left out."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        yield body[:2000].decode("utf-8", "replace")
        return
    first = answer[0] if isinstance(answer, list) and answer else answer
    if not isinstance(first, dict):
        return
    for error in (first.get("error"), first.get("detail"), first):
        for part in error if isinstance(error, list) else [error]:
            if isinstance(part, str):
                yield part[:2000]
            elif isinstance(part, dict):
                for name in ("param", "loc", "code", "type", "message", "msg"):
                    yield str(part.get(name) or "")[:2000]
