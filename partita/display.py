"""What a person sees in the terminal: progress while a session runs, and its clusters when it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from graphs.progress import Progress as Asking
from partita.estimate import Estimate, count
from partita.excerpts import named
from partita.plain import plain
from partita.result import AS_BEFORE, TEACHER, Result
from partita.watch import Watch

_STAGES = {
    "start": "starting the model",
    "scan": "reading items",
    "describe": "describing items",
    "relate": "relating items",
    "pairs": "judging pairs",
    "traverse": "placing items",
    "merge": "comparing clusters",
    "look": "looking at items",
    "learn": "learning",
    "measure": "measuring",
    "done": "done",
}
_OWN = ("look", "learn", "measure")
"""Stages in which the model in training works and no endpoint is asked."""
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
    console = _QuietConsole(stderr=True)
    if not console.is_terminal:
        console.width = 1000  # a line of a log is not broken
    return console


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
        made = watch.progress.earlier
        what = [f"{likely} ({low} to {high}) {name}" for name, low, likely, high in would.rows()[1:3]]
        what += [f"{likely} ({low} to {high})" for _, low, likely, high in would.rows()[3:] if low != "nothing"]
        known = "" if would.job.price.known else ", at an assumed price"
        known += "" if would.measured else "; assumed, as no call of this model is in this database yet"
        line = ", ".join(what) + known if would.calls.high else "no calls"
        if made:
            line = f"{made:,} of about {count(would.calls.likely)} calls are made"
        console.print(f"[dim]{'' if made else 'expected: '}{line}[/]", highlight=False)
        notes = list(would.job.remarks if would.job.max_cost is not None else ()) if made else would.warnings()
        if made and would.job.max_calls is not None and would.job.max_calls <= made:
            notes.append(f"{made:,} calls are made already: --max-calls {would.job.max_calls} allows no more")
        for note in notes:
            console.print(f"[yellow]{escape(plain(note))}[/]", highlight=False)

    shown: list[Estimate] = []
    watch.on_scan, watch.on_named, watch.on_expected = scanned, named, expected
    watch.on_note = lambda line: console.print(f"[yellow]{escape(plain(line))}[/]", highlight=False)
    over = threading.Event()
    show = _show_bar if console.is_terminal else _show_lines
    thread = threading.Thread(target=show, args=(console, watch, shown, over), daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def _spent(watch: Watch, shown: list[Estimate], began: float) -> list[str]:
    """How far it is and what is spent, the most important first."""
    p = watch.progress
    seconds = time.monotonic() - began
    parts = [f"{p.done}/{p.total}"] if p.total else []
    made = p.earlier + p.calls
    parts.append(_calls(made, shown[0].calls.likely if shown else None))
    if p.cost:
        parts.append(f"{'~' if shown and not shown[0].job.price.known else ''}{p.cost:.2f} USD")
    if p.clusters:
        parts.append(f"{p.clusters} clusters")
    if shown and p.calls >= 50 and (left := shown[0].calls.likely - made) > 0 and _on_course(p, shown[0]):
        parts.append(f"~{_clock(left / p.calls * seconds)} left")
    if p.stage not in _OWN:
        asking = seconds - sum(p.seconds.get(stage, 0.0) for stage in _OWN)
        parts.append(f"{p.calls / max(asking, 1e-6):.0f}/s")
    counted = ((p.unknown, "unknown"), (p.retries, "asked again"))
    return parts + [f"{n} {what}" for n, what in counted if n]


def _on_course(p: Asking, would: Estimate) -> bool:
    """Whether the calls that are likely may be enough: as large a share of the items has a place as was asked of the
    questions."""
    asked = p.earlier + p.calls - would.job.describes
    return p.stage != "traverse" or p.done * would.questions.likely >= asked * p.total


def _description(progress: Asking) -> str:
    stage = _STAGES.get(progress.stage, progress.stage)
    return f"{progress.part}: {stage}" if progress.part and progress.stage != "done" else stage


def how_far(progress: Mapping[str, Any]) -> list[str]:
    """What a session that is running tells of itself (`partita.live.Live.far`), the most important first."""
    p = progress
    stage = _STAGES.get(p["stage"], plain(p["stage"]))
    parts = [
        (f"{plain(p['part'])}: " if p["part"] else "") + stage + (f" {p['done']}/{p['total']}" if p["total"] else "")
    ]
    parts.append(_calls(p["calls"], p["expected"]))
    if p["cost"]:
        parts.append(f"{p['cost']:.2f} USD")
    return parts + [f"{p[what]} {what}" for what in ("clusters", "unknown") if p[what]]


def _calls(made: int, expected: float | None) -> str:
    """Calls that were made, and of how many, until they are more than was expected."""
    return f"{made:,} of ~{count(expected)} calls" if expected and made <= expected else f"{made:,} calls"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _show_bar(console: Console, watch: Watch, shown: list[Estimate], over: threading.Event) -> None:
    bar_width = 10 if console.width >= 100 else 4
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=bar_width),
        TextColumn("{task.fields[far]}"),
    )
    began = time.monotonic()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(_STAGES["start"], total=None, far="")
        while not over.wait(0.2):
            p = watch.progress
            description = _description(p)
            elapsed = _clock(time.monotonic() - began)
            room = console.width - len(description) - len(elapsed) - bar_width - 4
            far = ""
            for part in _spent(watch, shown, began):
                if len(far) + len(part) + 3 <= room:
                    far += f"{part} · "
            bar.update(
                task, description=description, completed=p.done, total=p.total or None, far=f"{far}[dim]{elapsed}[/]"
            )


def _show_lines(console: Console, watch: Watch, shown: list[Estimate], over: threading.Event) -> None:
    began = last = time.monotonic()
    stage = "start"
    while not over.wait(0.2):
        p = watch.progress
        if p.stage != stage or time.monotonic() - last > _PLAIN_EVERY:
            stage, last = p.stage, time.monotonic()
            line = " · ".join([_description(p), *_spent(watch, shown, began)])
            console.print(line, highlight=False)


def print_spans(title: str, rows: Iterable[tuple[str, str, str, str]], notes: Iterable[str]) -> None:
    """A table of (what, low, likely, high) on stdout, and what it rests on."""
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("")
    for heading, style in (("low", "dim"), ("likely", "bold"), ("high", "dim")):
        table.add_column(heading, justify="right", style=style, no_wrap=True, min_width=10)
    for row in rows:
        table.add_row(*row)
    console = output()
    console.print(table)
    console.print()
    for note in notes:
        console.print(escape(note), highlight=False, soft_wrap=True)


def print_result(console: Console, result: Result) -> None:
    """The table of clusters, what failed, and what was spent."""
    if result.clusters:
        title = f"{result.items} items by {escape(repr(result.criterion))}"
        title += ", as it stands so far" if result.status == "running" else ""
        table = Table(title=title, title_justify="left", box=None, expand=True)
        table.add_column("#", justify="right", style="dim", no_wrap=True, min_width=3)
        table.add_column("cluster", style="bold", no_wrap=True, min_width=14, max_width=28)
        table.add_column("items", justify="right", no_wrap=True, min_width=5)
        table.add_column("", no_wrap=True, min_width=12)
        table.add_column("for example", style="dim", no_wrap=True, ratio=1)
        largest = result.clusters[0].size
        for c in result.clusters[:60]:
            bar = "█" * max(1, round(12 * c.size / largest))
            shown = ", ".join(named(item, result.texts, 40) for item in c.items[:3])
            table.add_row(str(c.id), escape(plain(c.name)), str(c.size), f"[cyan]{bar}[/]", escape(shown))
        console.print(table)
        if len(result.clusters) > 60:
            console.print(f"… and {len(result.clusters) - 60} smaller clusters: `partita export` writes them all")
    if result.failed_items:
        console.print(f"\n{len(result.failed_items)} items could not be read and are in no cluster:", style="yellow")
        for failed in result.failed_items[:10]:
            console.print(f"  {escape(plain(failed.item))}: {escape(plain(failed.why))}", highlight=False)
        if len(result.failed_items) > 10:
            console.print(f"  … and {len(result.failed_items) - 10} more (--json lists all)")
    calls = ", ".join(f"{n} {kind}" for kind, n in result.calls.items() if n)
    told = result.why or (" · ".join(how_far(result.progress)) if result.progress else "")
    console.print(
        f"\nsession [bold]{escape(result.session)}[/] is {result.status}"
        + (f": {escape(plain(told))}" if told else "")
        + f"\n{calls or 'no calls'} · {result.calls_per_item:.2f} questions per item",
        highlight=False,
    )
    if result.corrections:
        console.print(f"corrected by hand: {result.corrections} (`partita correct {escape(result.session)} list`)")
    if result.supervised and result.policy != TEACHER:
        console.print("supervised: its model learnt from labels", highlight=False)
    if result.policy == TEACHER:
        line = f"It holds a teacher's answers for `partita train`, no clusters; {AS_BEFORE}, and pays for none twice."
        console.print(line, highlight=False)
        if result.supervised:
            console.print("supervised: its answers come from labels", highlight=False)
