"""URLs as they may be shown or stored: without the user's name and password."""

from __future__ import annotations

import re

_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_SECRET = re.compile(r"(?i)(?<=[?&])(password|passwd|sslpassword|api[-_]?key|key|token)=[^&#\s]*")


def without_secrets(text: str) -> str:
    """`text` with the userinfo of every URL in it removed, and the values of query parameters that hold secrets."""
    return _SECRET.sub(r"\1=***", _USERINFO.sub("", text))
