"""Rejections in the words of many servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.rejections import rejection
from storage.errors import LimitTooLow, QuestionTooLong, RequestRejected


def rejected(status: int, body: Any) -> Exception:
    return rejection(status, json.dumps(body).encode(), "it said no")


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None} | more}


@pytest.mark.parametrize(
    ("message", "most"),
    [
        ("At most 4 image(s) may be provided in one prompt.", 4),
        ("At most 4 image(s) may be provided in one prompt. Set `--limit-mm-per-prompt` to increase this limit.", 4),
        ("At most 0 image(s) may be provided in one prompt.", 0),
        ("Too many images provided. This model supports up to 5 images", 5),
        ("Too many images in request, max is 8", 8),
        ("Too many images", None),
        ("You may not include more than 5 images", 5),
        ("Too many image_url items: limit 4", 4),
    ],
)
def test_too_many_images(message: str, most: int | None) -> None:
    error = rejected(400, said(message))
    assert isinstance(error, LimitTooLow) and error.images == most
    assert ("--representatives" in str(error)) is (most not in (0, 1))


def test_what_to_do_with_fewer_images() -> None:
    assert "begin anew with --representatives 2 --candidates 1" in str(rejected(400, said("at most 4 images")))
    assert "takes no images" in str(rejected(400, said("At most 0 image(s) may be provided in one prompt.")))


@pytest.mark.parametrize(
    "body",
    [
        said("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."),
        said(
            "'max_tokens' or 'max_completion_tokens' is too large: 2048. This model's maximum context length is 4096 "
            "tokens and your request has 2177 input tokens (2048 > 4096 - 2177)."
        ),
        said("The decoder prompt (length 5951) is longer than the maximum model length of 4096."),
        said("The input (5951 tokens) is longer than the model's context length (4096 tokens)."),
        said("the request exceeds the available context size, try increasing it", type="exceed_context_size_error"),
        said("no", code="context_length_exceeded"),
        said("Input is too long for requested model."),
        said("Requested token count exceeds the model's maximum of 4096"),
    ],
)
def test_too_long(body: Any) -> None:
    error = rejected(400, body)
    assert isinstance(error, QuestionTooLong) and "--longest-side" in str(error)


@pytest.mark.parametrize(
    ("message", "bound"),
    [
        ("max_tokens is too large: 2048. This model supports at most 1024 completion tokens", "--max-tokens 1024"),
        ("max_tokens=5000 cannot be greater than max_model_len=4096", "a smaller --max-tokens"),
        ("max_tokens: must be less than or equal to 512", "--max-tokens 512"),
    ],
)
def test_a_reply_that_would_be_too_long(message: str, bound: str) -> None:
    error = rejected(400, said(message))
    assert isinstance(error, LimitTooLow) and bound in str(error)


def test_a_body_that_is_too_large_is_too_long() -> None:
    assert isinstance(rejection(413, b"<html>Too Large</html>", "it said no"), QuestionTooLong)


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (
            said(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                "instead.",
                param="max_tokens",
                code="unsupported_parameter",
            ),
            "max_tokens",
        ),
        (said("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."), "max_tokens"),
        (
            said("Only the default (1) value is supported.", param="temperature", code="unsupported_value"),
            "temperature",
        ),
        (said("Unrecognized request argument supplied: seed"), "seed"),
        ({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}]}, "seed"),
        ([{"error": {"message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'}}], "seed"),
        (said("temperature must be from 0 to 2", param="temperature"), ""),
        (said("unsupported image"), ""),
        (said("Unsupported parameter: max_tokens"), "max_tokens"),
        (said("seed is not supported"), "seed"),
        (said("messages[0].content[2].image_url: unsupported image format. Unknown seed"), ""),
        (said("Image 3 is unsupported: temperature map format"), ""),
        (said("the image exceeds the limit of 1 image tile"), ""),
        (said("no such picture"), ""),
        ("odd", ""),
        ([], ""),
    ],
)  # fmt: skip
def test_parameters_that_are_not_taken(body: Any, parameter: str) -> None:
    error = rejected(400, body)
    assert type(error) is RequestRejected and error.parameter == parameter


@pytest.mark.parametrize("message", ["the image exceeds the maximum of 20 MB", "image is larger than 8000 pixels"])
def test_a_bad_picture_is_its_own_fault(message: str) -> None:
    assert type(rejected(400, said(message))) is RequestRejected
