"""``partita examples``: render images with known labels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.progress import Progress

from storage.errors import UsageError


@click.command("examples")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["cards", "fruit"]), default="cards", show_default=True)
@click.option("--count", type=click.IntRange(1, 1_000_000), default=120, show_default=True, metavar="N")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
def command(out: Path, kind: Literal["cards", "fruit"], count: int, seed: int) -> None:
    """Render images of the built-in model's world into OUT/images, with OUT/labels.csv.

    Cards are labelled by suit and rank, fruit by species and color.
    """
    from training.world import write_examples

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"rendering {kind}", total=count)
        try:
            write_examples(out, kind, count, seed, lambda done, total: bar.update(task, completed=done, total=total))
        except (ValueError, OSError) as e:
            raise UsageError(f"{out}: {getattr(e, 'strerror', None) or e}; choose another folder") from None
    click.echo(f"{count} {kind} in {out / 'images'}, labels in {out / 'labels.csv'}", err=True)
