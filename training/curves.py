"""What a training measured, step by step: `log.jsonl`, drawn as `curves.png` and told to TensorBoard.

A line of the log is one step, `{"step", "epoch", "rate", a value for every loss}`, or one epoch as measured on held-out
items, `{"held_out": {...}, "step", "epoch", "best"}`; epoch -1 is the base.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from storage.errors import UsageError
from training.exam import LOSSES

_BETWEEN = 0.9
"""Share of the smoothed curve that the next step leaves as it was."""


class Curves:
    """Writes the curves of a training into a folder. One process does."""

    def __init__(self, folder: Path, step: int = 0, epochs: int = 0) -> None:
        """Go on after `step` steps and `epochs` measured epochs, -1 if not even the base was measured: what an earlier
        run told of later ones, before it was killed, is taken back.

        Raises UsageError, as all that writes here, where it can't be written.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._folder, self._log = folder, folder / "log.jsonl"
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            kept = [
                line
                for line in read_log(self._log)
                if (line["epoch"] < epochs if "held_out" in line else line["step"] <= step)
            ]
            draft = self._log.with_suffix(".draft")
            draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            draft.replace(self._log)
            made: Any = SummaryWriter
            self._board = made(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def step(self, step: int, epoch: int, measured: Mapping[str, float]) -> None:
        """One step of the optimiser: `step` counts from 1, `epoch` from 0."""
        append(self._log, {"step": step, "epoch": epoch, **measured})
        with _writing(self._folder):
            for name, value in measured.items():
                self._board.add_scalar(f"training/{name}", value, step)

    def epoch(self, step: int, epoch: int, measured: Mapping[str, float], best: bool) -> None:
        """An epoch as measured on held-out items after `step` steps; `best`: no earlier one was better."""
        append(self._log, {"held_out": dict(measured), "step": step, "epoch": epoch, "best": best})
        with _writing(self._folder):
            for name, value in measured.items():
                self._board.add_scalar(f"held out/{name}", value, step)
            self._board.flush()
            draw(self._log, self._folder / "curves.png")

    def close(self) -> None:
        """Nothing more is told."""
        self._board.close()


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Put a line of JSON to the end of a file. Raises UsageError where it can't be written."""
    with _writing(path.parent), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{folder} can't be written ({why}): make room, and run the same command again") from None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; one that is damaged, or that a kill cut short, is passed over."""
    found: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                told = json.loads(line)
            except json.JSONDecodeError:
                continue
            if _is_line(told):
                found.append(told)
    return found


def _is_line(told: Any) -> bool:
    """Whether something read is a line that we wrote."""
    if not isinstance(told, dict) or not all(isinstance(told.get(name), int) for name in ("step", "epoch")):
        return False
    measured = told.get("held_out", told)
    return isinstance(measured, dict) and all(isinstance(value, int | float) for value in measured.values())


def draw(log: Path, to: Path) -> None:
    """Losses by step, with held-out ones by epoch, and the other measures of the held-out items; the best epoch is
    marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_log(log)
    steps = [line for line in lines if "held_out" not in line]
    epochs = [line for line in lines if "held_out" in line]
    best = next((line["step"] for line in reversed(epochs) if line["best"]), None)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for number, name in enumerate(LOSSES):
        shown = [(line["step"], line[name]) for line in steps if name in line]
        if shown:
            at, values = zip(*shown, strict=True)
            left.plot(at, values, color=f"C{number}", alpha=0.2, linewidth=0.8)
            left.plot(at, _smooth(values), color=f"C{number}", label=name)
        _dots(left, epochs, name, f"C{number}", f"{name}, held out")
    left.set(title="losses", xlabel="step", ylim=(0, None))
    others = sorted({name for line in epochs for name in line["held_out"]} - set(LOSSES))
    for number, name in enumerate(others):
        _dots(right, epochs, name, f"C{number + len(LOSSES)}", name)
    right.set(title="held-out items", xlabel="step", ylim=(0, 1.02))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if best is not None:
            axes.axvline(best, color="0.4", linestyle=":", label="best epoch")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    draft = to.with_suffix(".draft")
    figure.savefig(draft, format="png", dpi=120)
    draft.replace(to)


def _dots(axes: Any, epochs: list[dict[str, Any]], name: str, color: str, label: str) -> None:
    shown = [(line["step"], line["held_out"][name]) for line in epochs if name in line["held_out"]]
    if shown:
        axes.plot(*zip(*shown, strict=True), color=color, marker="o", markersize=4, linestyle="--", label=label)


def _smooth(values: tuple[float, ...]) -> list[float]:
    found: list[float] = []
    for value in values:
        found.append(value if not found else _BETWEEN * found[-1] + (1 - _BETWEEN) * value)
    return found
