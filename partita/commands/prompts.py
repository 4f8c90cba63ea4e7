"""``partita prompts``: what agents ask under a criterion, to be read, edited, drafted, tried and compared."""

from __future__ import annotations

import click

from partita.lazy import LazyGroup

VERBS = {
    "list": "List the shipped sets, and the versions that were kept or used.",
    "show": "Print a set as YAML, ready to be edited.",
    "check": "Check the prompt set in a file, and say what is wrong with it.",
    "draft": "Have a model write a set for a criterion, to be edited.",
    "try": "Try a set on a few items of a session.",
    "keep": "Keep the set in a file as a version.",
    "diff": "Show what differs between two sets.",
}
"""Verbs under ``prompts``; each is a module ``partita.commands.prompts_NAME``, imported when used."""


@click.group("prompts", cls=LazyGroup, verbs=VERBS, modules="partita.commands.prompts_")
def command() -> None:
    """Prompt sets say what agents ask under a criterion.

    A set is a file, a shipped one by its name, or a version by its hash, of which four digits or more will do.
    """
