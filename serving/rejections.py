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

_NAME = r"(max_completion_tokens|max_tokens|temperature|seed)"
"""The parameters that we send and that a question can be asked without, or with in another form."""
_PARAMETER = re.compile(_NAME)
_SAID = re.compile(
    rf"['\"`]{_NAME}['\"`]|(?:parameter|argument)[\w ]*:? {_NAME}\b|(?:^|[.:] ){_NAME} (?:is|was) ", re.MULTILINE
)
"""A parameter in an error's words: in quotes, called one, or first in its sentence. A word in passing is none."""
_NOT_TAKEN = re.compile(
    r"unsupported|not support|n't support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|deprecated"
    r"|extra_forbidden|only the default|cannot find field",
    re.IGNORECASE,
)
_UP_TO = r"(?:at most|up to|(?:no )?more than|max(?:imum)?(?: is| of)?|limit:?(?:ed to| is| of)?)"
_TOO_MANY_IMAGES = re.compile(rf"too many image|{_UP_TO} \d{{1,4}} image(?! tile)", re.IGNORECASE)
_AT_MOST = re.compile(rf"{_UP_TO} (\d{{1,4}})\b", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|longer than the (?:maximum )?model|(?:prompt|input) is too long|too long to fit"
    r"|token count exceeds|request(?: entity)? too large",
    re.IGNORECASE,
)
_REPLY_TOO_LONG = re.compile(
    r"max_(?:completion_)?tokens\b.{0,80}?(?:too large|too high|cannot be greater|exceed|less than|at most|must be <)",
    re.IGNORECASE | re.DOTALL,
)
_REPLY_AT_MOST = re.compile(r"(?:at most|less than or equal to|<=|maximum(?: of| is)?) (\d{1,6})\b", re.IGNORECASE)


def rejection(status: int, body: bytes, seen: str) -> EndpointError:
    """The error for a rejected question; `seen` says in words for a user who rejected it and with what."""
    told = "\n".join(_told(body))
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
    if _REPLY_TOO_LONG.search(told):
        bound = _REPLY_AT_MOST.search(told)
        shorter = f"--max-tokens {bound[1]}" if bound else "a smaller --max-tokens"
        return LimitTooLow(f"{seen}: begin anew with {shorter}, or let the server write longer replies and resume")
    return RequestRejected(
        f"{seen}: check that the model takes such questions (images, if there are any) and its context length",
        status=status,
        parameter=_parameter(body, told),
    )


def _parameter(body: bytes, told: str) -> str:
    """The parameter that is not taken, by the field that names it or else by what is said; "" where it is none."""
    if not _NOT_TAKEN.search(told):
        return ""
    if (named := _PARAMETER.fullmatch(_named(body))) is not None:
        return named[1]
    found = _SAID.search(told)
    return next(filter(None, found.groups()), "") if found else ""


def _fewer_images(most: int | None) -> str:
    if most == 0:
        return "it takes no images, only texts can be clustered with it; for images name a vision-language model"
    raise_it = "raise the server's limit (vLLM: --limit-mm-per-prompt '{\"image\": 6}') and resume"
    if most == 1:
        return f"a question shows two images at least; {raise_it}"
    if most is None:
        return f"{raise_it}, or begin anew with fewer --representatives and --candidates"
    return f"{raise_it}, or begin anew with --representatives {most // 2} --candidates 1"


def _named(body: bytes) -> str:
    """The parameter in the error's own field for it (`param`, or the last of `loc`)."""
    for part in _parts(body):
        if isinstance(part, dict):
            loc = part.get("loc")
            named = part.get("param") or (loc[-1] if isinstance(loc, list) and loc else None)
            if isinstance(named, str):
                return named
    return ""


def _told(body: bytes) -> Iterator[str]:
    """What the error says, its parameter first; what it repeats of our question is left out."""
    for part in _parts(body):
        if isinstance(part, str):
            yield part[:2000]
        elif isinstance(part, dict):
            for name in ("param", "loc", "code", "type", "message", "msg"):
                yield str(part.get(name) or "")[:2000]


def _parts(body: bytes) -> Iterator[object]:
    """Where servers put what is wrong."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        yield body[:2000].decode("utf-8", "replace")
        return
    first = answer[0] if isinstance(answer, list) and answer else answer
    if isinstance(first, dict):
        for error in (first.get("error"), first.get("detail"), first):
            yield from error if isinstance(error, list) else [error]
