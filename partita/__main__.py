"""`partita`, or `python -m partita`: errors a user can meet are one line and an exit code (CONTRACT 3)."""

from __future__ import annotations

import os
import signal
import sys

from partita.signals import ignore_signals, interrupt


def main() -> None:
    """Run a verb. Nothing heavy or foreign is imported before signals and errors are taken care of."""
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # also as a background job of a script, where it is ignored
    try:
        code = _run()
        if sys.stdout is not None:
            sys.stdout.flush()
        ignore_signals()
    except KeyboardInterrupt:
        ignore_signals()
        _say("stopped; what was answered is kept, and `partita sessions` lists what can be resumed")
        code = 3
    except BrokenPipeError:
        code = 0  # the reader of our output has left (`partita trace | head`)
    if code == 0 and sys.stdout is not None and not _can_flush():
        # Python would flush again at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _can_flush() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _say(line: str) -> None:
    from partita.plain import plain

    if sys.stderr is not None:
        told = "\n".join(map(plain, line.splitlines()))
        print(f"partita: {told}", file=sys.stderr)


def _run() -> int:
    from partita.rooms import stranger

    if (said := stranger()) is not None:
        _say(said)
        return 2
    import click

    from partita.verbs import cli
    from storage.errors import PartitaError

    try:
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
        _say(str(e))
        return e.exit_code


if __name__ == "__main__":
    main()
