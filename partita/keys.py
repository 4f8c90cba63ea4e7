"""Keys: where they are found, and which endpoint gets which.

A key goes to the host that it was given for. There is no place where one is looked for unasked: a key in a file that
nobody named would go to whatever --endpoint somebody tries.
"""

from __future__ import annotations

import codecs
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from partita.settings import Environment
from serving.hosts import same_host
from serving.roles import CHAT, EMBEDDINGS, Role
from storage.errors import UsageError

_LONGEST = 8192
"""Bytes of a key's file that are looked at."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The chat endpoint's key, and the one of embeddings that come from elsewhere."""

    chat: SecretStr | None = None
    embed: SecretStr | None = None

    def of_embeddings(self, chat_endpoint: str, embed_endpoint: str) -> tuple[SecretStr | None, Role]:
        """The key that the embedding endpoint gets, and what a user has to set where it wants another.

        The chat endpoint's own is for its host alone, whatever the port.
        """
        if embed_endpoint == chat_endpoint:
            return self.chat, Role(CHAT.endpoint, EMBEDDINGS.model, CHAT.key)
        shared = self.chat if same_host(chat_endpoint, embed_endpoint) else None
        return self.embed or shared, EMBEDDINGS


def find_keys(environment: Environment) -> Keys:
    """The keys that the environment gives or names files of; a variable with the key itself comes first.

    Raises:
        UsageError: a file holds no key, or others can read it.
    """
    return Keys(
        own_key(environment) or environment.openai_api_key,
        environment.embed_api_key or _in_file(environment.embed_api_key_file, "PARTITA_EMBED_API_KEY_FILE"),
    )


def own_key(environment: Environment) -> SecretStr | None:
    """The key that was given to Partita by its own name.

    Raises:
        UsageError: its file holds no key, or others can read it.
    """
    return environment.api_key or _in_file(environment.api_key_file, "PARTITA_API_KEY_FILE")


def _in_file(named: str | None, variable: str) -> SecretStr | None:
    return read_key(Path(named).expanduser(), variable) if named else None


def read_key(path: Path, variable: str) -> SecretStr:
    """The key in the first line of a file that only its owner can read.

    What is looked at is the file that was opened, so a link may lead to it but nothing can be put in its place between.

    Args:
        variable: what names the file, for the message.

    Raises:
        UsageError: there is no such file, it is another user's or open to others, or holds no key.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{variable}: {path} is no regular file: name one whose first line is the key")
            if os.name == "posix":
                if status.st_uid != os.geteuid():
                    raise UsageError(f"{variable}: {path} is another user's: name a file of your own (chmod 600)")
                if status.st_mode & 0o077:
                    raise UsageError(f"{variable}: others can get at {path}: `chmod 600 {path}` keeps the key yours")
            first = file.read(_LONGEST).split(b"\n", 1)[0].strip()
    except (OSError, ValueError) as e:
        why = getattr(e, "strerror", None) or "that is no path"
        raise UsageError(f"{variable}: {path} can't be read ({why}): correct it, or unset {variable}") from None
    if not first or len(first) >= _LONGEST - 1:
        raise UsageError(f"{variable}: the first line of {path} is no key: write the key there, and nothing else")
    key = first.removeprefix(codecs.BOM_UTF8).decode("latin1")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"{variable}: the first line of {path} has characters that no key has: write the key there")
    return SecretStr(key)


def _open_at_once(path: str, flags: int) -> int:
    """Without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
