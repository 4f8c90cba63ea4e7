"""What the command line calls by options, called by the labels of a form's fields."""

from __future__ import annotations

import re
from collections.abc import Mapping


def by_labels(words: str, labels: Mapping[str, str]) -> str:
    """A message with each option that is a field of the form, and the placeholder behind it, replaced by its label.

    Args:
        labels: a field's label by its name, `embed_endpoint` for `--embed-endpoint`.
    """

    def called(found: re.Match[str]) -> str:
        label = labels.get(found[1].replace("-", "_"))
        return found[0] if label is None else f"“{label}”"

    return re.sub(r"--([a-z][a-z-]*)(?: [A-Z]{2,}\b)?", called, words)
