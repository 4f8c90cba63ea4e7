"""Which of a session's endpoints one is, in the words of the options that name it: what advice has to say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Role:
    """What a user sets to name an endpoint, its model and its key."""

    endpoint: str
    model: str
    key: str


CHAT = Role("--endpoint", "--model", "PARTITA_API_KEY")
TEACHER = Role("--teacher", "--teacher-model", "PARTITA_API_KEY")
EMBEDDINGS = Role("--embed-endpoint", "--embed-model", "PARTITA_EMBED_API_KEY")
