"""A group of commands whose modules are imported when they are used: `partita --help` has to be quick."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """Commands by name, each `command` of a module of its own.

    Args:
        verbs: what each does, in a sentence.
        modules: the module's name but for the command's.
    """

    def __init__(self, *args: Any, verbs: dict[str, str], modules: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self._verbs, self._modules = verbs, modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return None
        command = import_module(self._modules + cmd_name).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._verbs.items()))
