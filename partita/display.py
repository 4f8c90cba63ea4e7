"""What a person sees in the terminal: progress while a session runs, and its clusters when it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from partita.estimate import Estimate, count
from partita.result import Result
from partita.watch import Watch

_STAGES = {
    "start": "starting the model",
    "scan": "reading items",
    "describe": "describing items",
    "relate": "relating items",
    "traverse": "placing items",
    "merge": "comparing clusters",
    "done": "done",
}
_PLAIN_EVERY = 10.0


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Whoever read our output has left: the front door ends the command in order."""
        raise BrokenPipeError


def output() -> Console:
    """A console on stdout."""
    return _Output()


class _QuietConsole(Console):
    def on_broken_pipe(self) -> None:
        """Whoever read our progress has left: go on without."""
        self.quiet = True


def quiet_console() -> Console:
    """A console on stderr that never ends the work it tells of."""
    return _QuietConsole(stderr=True)


@contextmanager
def progress_on(console: Console, on_named: Callable[[str], None]) -> Iterator[Watch]:
    """Show a session's progress until the block ends: a live bar on a terminal, now and then a line elsewhere."""
    watch = Watch()

    def scanned(done: int, total: int) -> None:
        watch.progress.stage, watch.progress.done, watch.progress.total = "scan", done, total

    def named(name: str) -> None:
        watch.progress.stage, watch.progress.done, watch.progress.total = "start", 0, 0
        console.print(f"session [bold]{escape(name)}[/]", highlight=False)
        on_named(name)

    def expected(would: Estimate) -> None:
        shown.append(would)
        calls, tokens, cost, taking = (f"{likely} ({low} to {high})" for _, low, likely, high in would.rows()[1:])
        price = "" if would.job.price.known else " at an assumed price"
        console.print(f"[dim]expected: {calls} calls, {tokens} tokens, {cost}{price}, {taking}[/]", highlight=False)
        for note in would.warnings():
            console.print(f"[yellow]{escape(note)}[/]", highlight=False)

    shown: list[Estimate] = []
    watch.on_scan, watch.on_named, watch.on_expected = scanned, named, expected
    watch.on_note = lambda line: console.print(f"[yellow]{escape(line)}[/]", highlight=False)
    over = threading.Event()
    show = _show_bar if console.is_terminal else _show_lines
    thread = threading.Thread(target=show, args=(console, watch, shown, over), daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def _spent(watch: Watch, shown: list[Estimate], began: float) -> str:
    p = watch.progress
    rate = p.calls / max(time.monotonic() - began, 1e-6)
    of = f" of ~{count(shown[0].calls.likely)}" if shown else ""
    parts = [f"{p.earlier + p.calls}{of} calls", f"{rate:.1f}/s"]
    if p.cost:
        parts.append(f"{'~' if shown and not shown[0].job.price.known else ''}{p.cost:.2f} USD")
    if p.clusters:
        parts.append(f"{p.clusters} clusters")
    parts += [f"{n} {what}" for n, what in ((p.reused, "reused"), (p.unknown, "unknown"), (p.retries, "retries")) if n]
    return " · ".join(parts)


def _time_left(done: int, total: int, seconds: float) -> str:
    if not done or done >= total or seconds < 2:
        return ""
    left = round(seconds / done * (total - done))
    return f"~{left // 60}:{left % 60:02d} left"


def _show_bar(console: Console, watch: Watch, shown: list[Estimate], over: threading.Event) -> None:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("[dim]{task.fields[spent]}"),
        TimeElapsedColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(_STAGES["start"], total=None, spent="", left="")
        stage, since, at = "", began, 0
        while not over.wait(0.2):
            p = watch.progress
            if p.stage != stage:
                stage, since, at = p.stage, time.monotonic(), p.done
            left = _time_left(p.done - at, p.total - at, time.monotonic() - since)
            bar.update(
                task,
                description=_STAGES.get(stage, stage),
                completed=p.done,
                total=p.total or None,
                spent=_spent(watch, shown, began),
                left=left,
            )


def _show_lines(console: Console, watch: Watch, shown: list[Estimate], over: threading.Event) -> None:
    began = last = time.monotonic()
    stage = "start"
    while not over.wait(0.2):
        p = watch.progress
        if p.stage != stage or time.monotonic() - last > _PLAIN_EVERY:
            stage, last = p.stage, time.monotonic()
            how_far = f" {p.done}/{p.total}" if p.total else ""
            console.print(f"{_STAGES.get(stage, stage)}{how_far} · {_spent(watch, shown, began)}", highlight=False)


def print_result(console: Console, result: Result) -> None:
    """The table of clusters, what failed, and what was spent."""
    if result.clusters:
        table = Table(title=f"{result.items} items by {escape(repr(result.criterion))}", title_justify="left", box=None)
        table.add_column("#", justify="right", style="dim", no_wrap=True, min_width=3)
        table.add_column("cluster", style="bold", no_wrap=True, min_width=14, max_width=28)
        table.add_column("items", justify="right", no_wrap=True, min_width=5)
        table.add_column("", no_wrap=True, min_width=12)
        table.add_column("for example", style="dim", no_wrap=True, ratio=1)
        largest = result.clusters[0].size
        for c in result.clusters[:60]:
            bar = "█" * max(1, round(12 * c.size / largest))
            table.add_row(str(c.id), escape(c.name), str(c.size), f"[cyan]{bar}[/]", escape(", ".join(c.items[:3])))
        console.print(table)
        if len(result.clusters) > 60:
            console.print(f"… and {len(result.clusters) - 60} smaller clusters: `partita export` writes them all")
    if result.failed_items:
        console.print(f"\n{len(result.failed_items)} items could not be read and are in no cluster:", style="yellow")
        for failed in result.failed_items[:10]:
            console.print(f"  {escape(failed.item)}: {escape(failed.why)}", highlight=False)
        if len(result.failed_items) > 10:
            console.print(f"  … and {len(result.failed_items) - 10} more (--json lists all)")
    calls = ", ".join(f"{n} {kind}" for kind, n in result.calls.items() if n)
    console.print(
        f"\nsession [bold]{escape(result.session)}[/] is {result.status}"
        + (f": {escape(result.why)}" if result.why else "")
        + f"\n{calls or 'no calls'} · {result.calls_per_item:.2f} questions per item",
        highlight=False,
    )
