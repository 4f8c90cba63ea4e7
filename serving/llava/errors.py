"""What the model refuses."""

from __future__ import annotations


class MessageError(ValueError):
    """The messages cannot be put to this model. The text says why and what to do."""
