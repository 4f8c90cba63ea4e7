"""The JSON body of a request, made of parts that know their JSON already (ARCHITECTURE 11).

A picture is shown in many questions and is most of their bytes; escaping it anew in each would be most of the work.
"""

from __future__ import annotations

import json
from typing import Any


class EncodedPart(dict[str, Any]):
    """An image's content part, equal to the dict it stands for; the client takes its JSON as it is.

    `identity` is the SHA-256 of the image's bytes, by which a server may know an image that it has seen before.
    """

    identity = ""

    @property
    def json(self) -> bytes:
        """The part in JSON; the `data:` URL of an image has no character to escape."""
        return b'{"type":"image_url","image_url":{"url":"%b"}}' % self["image_url"]["url"].encode("ascii")

    @property
    def identified(self) -> bytes:
        """The part in JSON with its identity, as vLLM takes it."""
        return b'%b,"uuid":"%b"}' % (self.json[:-1], self.identity.encode("ascii")) if self.identity else self.json


def encode(body: dict[str, Any], *, identities: bool = False) -> bytes:
    """The body in JSON, without blanks; byte for byte what `json.dumps` makes of it.

    With `identities` each image's part has its identity beside it, as "uuid".
    """
    pieces: list[bytes] = []
    for name, value in body.items():
        pieces += [b",", _dumps(name), b":"]
        if name == "messages":
            pieces += [b"[", b",".join([_message(message, identities) for message in value]), b"]"]
        else:
            pieces.append(_dumps(value))
    return b"{" + b"".join(pieces[1:]) + b"}"


def _message(message: dict[str, Any], identities: bool) -> bytes:
    content = message.get("content")
    if not isinstance(content, list) or not any(type(part) is EncodedPart for part in content):
        return _dumps(message)
    parts = b",".join([_part(part, identities) for part in content])
    rest = (b"%b:%b" % (_dumps(k), b"[" + parts + b"]" if k == "content" else _dumps(v)) for k, v in message.items())
    return b"{" + b",".join(rest) + b"}"


def _part(part: dict[str, Any], identities: bool) -> bytes:
    if type(part) is not EncodedPart:
        return _dumps(part)
    return part.identified if identities else part.json


_encoder = json.JSONEncoder(separators=(",", ":"))


def _dumps(value: object) -> bytes:
    return _encoder.encode(value).encode()
