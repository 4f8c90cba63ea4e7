"""Keeping a key out of words: of errors, of replies, and of what the libraries below us log.

A server may say our key back anywhere: in a message, a header, the address of a redirect, a reply. None of it is shown
or stored before it has gone through here.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import quote

_LOGGERS = (
    *("openai", "openai._base_client", "openai._response", "openai._legacy_response"),
    *("httpx", "httpx2"),
    *(f"{core}.{part}" for core in ("httpcore", "httpcore2") for part in ("connection", "http11", "http2", "proxy")),
)
"""Those that log what a server said: its headers, its status line, its mistakes. A filter holds for records of its very
logger, not for those below it."""

_SECRET = 8
"""A key of fewer characters ("EMPTY", "none") is no secret but a word, which a reply may well hold."""


class Redaction:
    """Takes one key out of words; without a key it leaves everything as it is."""

    def __init__(self, key: str | None) -> None:
        self._is_secret = len(key or "") >= _SECRET
        self._forms: re.Pattern[str] | None = None
        if key:
            # as it is, in a URL, in JSON that escapes slashes, in the repr of bytes; host names come in small letters
            forms = {key, quote(key, safe=""), quote(key), key.replace("/", "\\/"), repr(key)[1:-1]}
            any_form = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
            whole = any_form if self._is_secret else rf"(?<![A-Za-z0-9])(?:{any_form})(?![A-Za-z0-9])"
            self._forms = re.compile(whole, re.IGNORECASE)

    def of(self, words: str) -> str:
        """Words for a user, without the key."""
        return words if self._forms is None else self._forms.sub("***", words)

    def of_reply(self, words: str) -> str:
        """What a model said, without the key; a key that is no secret may be part of an honest reply."""
        return self.of(words) if self._is_secret else words

    def guard_logs(self) -> None:
        """Take the key out of the libraries' log records, at every level, until `release_logs`."""
        if self._forms is not None:
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(self)

    def release_logs(self) -> None:
        """Undo `guard_logs`; safe to call twice."""
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a record in place (the interface of `logging.Filter`)."""
        said = record.getMessage()
        if (clean := self.of(said)) != said:
            record.msg, record.args = clean, ()
        if record.exc_info:
            # formatted here, as a handler would make it anew from the exception
            record.exc_text = self.of(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True
