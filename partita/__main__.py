"""The command line: `partita`, or `python -m partita`. A verb is a module of `partita.commands`, imported when used."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from types import FrameType

import click

from partita import __version__

VERBS = {
    "run": "Cluster a collection by a criterion in words.",
    "resume": "Go on with a session where it stopped.",
    "sessions": "List the sessions.",
    "show": "Show a session's clusters.",
    "trace": "Show what agents were asked, what they answered, and why.",
    "export": "Write a partition to a file or folder.",
    "score": "Compare a partition with labels.",
    "examples": "Render example images with labels.",
    "prompts": "List, show and check prompt sets.",
    "serve": "Serve the built-in model over HTTP.",
    "doctor": "Check this installation, the database and the endpoint.",
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = import_module(f"partita.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """Cluster images or texts by a criterion that you name in words."""


def check_rooms() -> None:
    """Make sure that the rooms beside us are ours: another distribution may install a package of the same name.

    Raises:
        UsageError: names the package that is in the way.
    """
    from importlib.util import find_spec
    from pathlib import Path

    from storage.errors import UsageError

    home = Path(__file__).resolve().parent.parent
    for room in ("agents", "graphs", "serving", "training", "storage"):
        spec = find_spec(room)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / room:
            raise UsageError(
                f"the package {room!r} that Python finds is not Partita's ({found or 'missing'}): another distribution "
                "(openai-agents, say) installs one of the same name; install Partita in an environment of its own"
            )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run a verb; every error a user can meet is one line and an exit code (CONTRACT 3)."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = _run()
    except KeyboardInterrupt:
        print("stopped; what was finished is kept (`partita sessions` lists what can be resumed)", file=sys.stderr)
        code = 3
    sys.exit(code)


def _run() -> int:
    from storage.errors import PartitaError

    try:
        check_rooms()
        code = cli.main(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as e:
        e.show()
        return 2
    except PartitaError as e:
        print(f"partita: {e}", file=sys.stderr)
        return e.exit_code
    except BrokenPipeError:
        # The reader of our output has left (`partita trace | head`); so do we.
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    main()
