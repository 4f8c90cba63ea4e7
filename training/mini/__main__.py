"""python -m training.mini --out runs/mini [--stage vision|language|head|export|evaluate] [--weights FOLDER]
[--photos FOLDER]

Makes partita-mini; a killed run goes on where it was. Imports torch only inside main, because the render workers
import this module again.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from training.mini.config import TINY, MiniConfig

if TYPE_CHECKING:
    from training.mini.stage import Report

STAGES = ("vision", "language", "head", "export", "evaluate")


class StageError(Exception):
    """A stage did not reach its gate."""


def main(arguments: list[str] | None = None) -> int:
    """Run the stages; the exit code (0 done, 1 a gate was missed, 2 wrong use, 3 interrupted)."""
    parser = argparse.ArgumentParser(
        prog="python -m training.mini", description="Make the built-in model, stage by stage."
    )
    parser.add_argument("--out", type=Path, default=Path("runs/mini"), help="folder for checkpoints and caches")
    parser.add_argument("--stage", choices=STAGES, help="run this stage only; the earlier ones must be done")
    parser.add_argument(
        "--weights",
        type=Path,
        help="folder of the finished weights (default: OUT/partita-mini; evaluate: the shipped ones)",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        help="measure on photographs as well (vision and evaluate): a folder with labels.csv (file,order,suits)",
    )
    parser.add_argument("--threads", type=int, default=MiniConfig.threads, help="threads that torch computes with")
    parser.add_argument(
        "--tiny", action="store_true", help="a model too small to learn anything: tries the pipeline in seconds"
    )
    given = parser.parse_args(arguments)
    config = replace(TINY if given.tiny else MiniConfig(), threads=given.threads)
    from storage.errors import PartitaError
    from training.checkpoint import CheckpointError

    try:
        run_stages(config, given.out, (given.stage,) if given.stage else STAGES, given.weights, given.photos)
    except StageError as error:
        print(error, file=sys.stderr)
        return 1
    except (CheckpointError, PartitaError, FileNotFoundError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 3
    return 0


def run_stages(
    config: MiniConfig, out: Path, stages: tuple[str, ...], weights: Path | None = None, photos: Path | None = None
) -> None:
    """Run the named stages in order. Finished stages are passed over; each is gated. Raises StageError at a missed
    gate."""
    import torch

    torch.set_num_threads(config.threads)
    out.mkdir(parents=True, exist_ok=True)
    if "vision" in stages:
        _vision_stage(config, out, photos)
    if {"language", "head", "export"} & set(stages):
        _language_stages(config, out, stages, weights or out / "partita-mini")
    if "evaluate" in stages:
        from serving.llava import MINI

        own = weights or (out / "partita-mini" if "export" in stages else MINI)
        _evaluate(config, own, photos)


def _vision_stage(config: MiniConfig, out: Path, photos: Path | None) -> None:
    from training.mini.vision import measure_photos, measure_vision, train_vision

    with _progress("vision") as report:
        train_vision(config, out, report)
    clean, wild = measure_vision(config, out)
    _tell("vision, wild cards", wild)
    if photos is not None:
        _tell("vision, photographs", measure_photos(config, out, photos))
    _gate("vision", clean, config.vision_gate)


def _language_stages(config: MiniConfig, out: Path, stages: tuple[str, ...], weights: Path) -> None:
    from training.mini.export import export_weights
    from training.mini.head import measure_head, train_head
    from training.mini.language import load_tower, measure_language, seen_images, train_language, vocabulary

    tower = load_tower(config, out)
    with _progress("images") as report:
        training, held_out = seen_images(tower, config, out, report)
    words = vocabulary(config, out)
    with _progress("language") as report:
        model = train_language(config, out, tower, training, report)
    if "language" in stages:
        _gate("language", measure_language(model, config, words, held_out), config.language_gate)
    if {"head", "export"} & set(stages):
        with _progress("head") as report:
            head = train_head(config, out, model, words, training, report)
        if "head" in stages:
            _gate("head", measure_head(config, model, head, words, held_out), config.head_gate)
    if "export" in stages:
        export_weights(config, model, head, words, weights)
        print(f"weights: {weights}", file=sys.stderr)


def _evaluate(config: MiniConfig, weights: Path, photos: Path | None) -> None:
    from serving.llava import LlavaQwen2
    from training.mini.card import read_metrics, write_card
    from training.mini.evaluate import evaluate, evaluate_photos

    model = LlavaQwen2.load(weights, config.threads)
    with _progress("evaluate") as report:
        metrics = evaluate(model, config.evaluation, config.evaluation_seed, report)
    digest = hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()
    metrics |= {"parameters": sum(p.numel() for p in model.network.parameters()), "beta": model.beta, "sha256": digest}
    earlier = read_metrics(weights)
    if earlier.get("sha256") == digest and "photographs" in earlier:
        metrics["photographs"] = earlier["photographs"]
    if photos is not None:
        with _progress("photographs") as report:
            metrics["photographs"] = evaluate_photos(model, photos, report)
    write_card(config, weights, metrics)
    for name in ("caption", "membership", "merge"):
        print(f"{name}: " + ", ".join(f"{c} {v:.3f}" for c, v in metrics[name].items()))


def _gate(stage: str, measured: dict[str, float], gate: float) -> None:
    _tell(stage, measured)
    short = {name: value for name, value in measured.items() if value < gate}
    if short:
        told = ", ".join(f"{name} {value:.3f}" for name, value in short.items())
        raise StageError(
            f"the {stage} stage is short of its gate {gate}: {told}. Give it more steps ({stage}_steps in "
            "training/mini/config.py) and run the same command: it goes on from the checkpoint"
        )


def _tell(what: str, measured: dict[str, float]) -> None:
    print(f"{what}: " + ", ".join(f"{name} {value:.3f}" for name, value in measured.items()), file=sys.stderr)


class _progress:
    """A progress bar on a terminal, a line now and then elsewhere."""

    def __init__(self, stage: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[line]}"),
        )
        self.stage, self.plain = stage, not console.is_terminal
        self.bar = Progress(*columns, console=console, disable=self.plain)
        self.task = self.bar.add_task(stage, total=None, line="")

    def __enter__(self) -> Report:
        self.bar.start()
        return self._report

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def _report(self, done: int, total: int, line: str) -> None:
        self.bar.update(self.task, completed=done, total=total, line=line)
        if self.plain:
            import time

            print(f"{time.strftime('%H:%M:%S')} {self.stage} {done}/{total} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
