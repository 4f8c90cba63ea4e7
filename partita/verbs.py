"""The command line's verbs; each is a module of `partita.commands`, imported when used."""

from __future__ import annotations

import click

from partita import __version__
from partita.lazy import LazyGroup

VERBS = {
    "run": "Cluster a collection by a criterion in words.",
    "resume": "Go on with a session where it stopped.",
    "pause": "Have the process that works on a session stop.",
    "estimate": "Say what a run would take, before anything is spent.",
    "sessions": "List the sessions.",
    "show": "Show a session's clusters.",
    "web": "Show sessions in a browser, and steer them.",
    "fork": "Make a session from another with other prompts.",
    "correct": "Correct a session's clusters by hand.",
    "compare": "Put two sessions side by side: agreement, and where they differ.",
    "spend": "Show what a session has spent, and on what.",
    "trace": "Show what agents were asked, what they answered, and why.",
    "export": "Write a partition to a file or folder.",
    "score": "Compare a partition with labels.",
    "examples": "Render example images with labels.",
    "prompts": "List, show, check, draft, try and compare prompt sets.",
    "studio": "Show sessions in LangGraph's own server.",
    "train": "Train an embedder and an agent of your own for a criterion.",
    "serve": "Serve models over HTTP: the built-in one, or another with vLLM.",
    "doctor": "Check this installation, the database and the endpoint.",
}


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    modules="partita.commands.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__)
def cli() -> None:
    """Cluster images or texts by a criterion that you name in words."""
