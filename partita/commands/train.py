"""``partita train``: a model of the user's own, for one criterion."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml

from partita.commands import options
from partita.display import output, print_spans, progress_on, quiet_console
from partita.keys import find_keys
from partita.settings import BUILT_IN, read_environment
from partita.train import Order, base_folder, foresee, is_small, train
from serving.llava.about import is_supervised, read_about
from storage.database import open_database
from storage.errors import UsageError
from storage.urls import without_secrets
from training.recipe import read_recipe, read_settings

_ORDER = {
    "what": "what", "collection": "collection", "by": "criterion", "teacher": "teacher",
    "teacher_model": "teacher_model", "column": "column", "base": "base", "out": "out", "prompts": "prompts",
    "db": "db", "concurrency": "concurrency", "request_timeout": "request_timeout", "max_calls": "max_calls",
    "max_cost": "max_cost",
}  # fmt: skip
"""What a YAML may say besides the recipe, and the parameter that it stands for."""


def _ordered(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Whatever a YAML orders is the default of the option that it stands for: the command line goes before it."""
    if path is not None:
        told = {_ORDER[name]: value for name, value in read_settings(path).items() if name in _ORDER}
        for name, parameter in _ORDER.items():
            if not isinstance(told.get(parameter), str | int | float | None):
                raise UsageError(f"{path}: {name}: must be a text or a number, not a list or a mapping")
        context.default_map = {name: value for name, value in told.items() if value is not None}
    return path


@click.command("train")
@click.argument("what", type=click.Choice(["embedder", "agent", "both"]))
@click.argument("collection", type=click.Path(path_type=Path), required=False)
@click.option("--by", "criterion", metavar="CRITERION", help='What the model is to judge by: "pose of the head".')
@click.option(
    "--teacher", metavar="URL|CSV", help="Who answers: an OpenAI-compatible API, or a CSV of labels (supervised)."
)
@click.option("--teacher-model", metavar="NAME", help="Model at the teacher's API.  [default: its first]")
@click.option("--column", metavar="NAME", help="Column of the labels CSV.  [default: the one named as the criterion]")
@click.option("--base", metavar="MODEL", default=BUILT_IN, show_default=True, help="A LLaVA over Qwen2: its folder.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where the model and its training go.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="YAML",
    is_eager=True,
    callback=_ordered,
    help="Whatever stands here and in --show-config, in a file; the command line goes before it.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="At most so many.")
@click.option("--seed", type=click.IntRange(min=0))
@click.option("--prompts", metavar="FILE|NAME|HASH", help="Prompt set.  [default: the one that matches the criterion]")
@click.option("--show-config", is_flag=True, help="Print the settings as YAML and do nothing else.")
@click.option("--estimate", is_flag=True, help="Say what the teacher would be asked and cost, and do nothing else.")
@options.database
@options.working
@options.as_json
def command(what: Any, collection: Path | None, criterion: str | None, teacher: str | None, teacher_model: str | None,
            column: str | None, base: str, out: Path | None, config: Path | None, epochs: int | None, seed: int | None,
            prompts: str | None, show_config: bool, estimate: bool, db: str, max_calls: int | None,
            max_cost: float | None, as_json: bool, concurrency: int | None,
            request_timeout: float | None) -> None:  # fmt: skip
    """Train an embedder, an agent, or one model that is both, on COLLECTION by a criterion.

    A teacher, any strong model behind an OpenAI-compatible API, describes images, says which are alike and walks the
    graph as an agent does; the model learns to answer so. A CSV of labels can stand in for it. What comes out is used
    by `partita run --model DIR` and `partita serve export DIR`. Stopped, the same command goes on.
    """
    folder = base_folder(base)
    changes = {name: value for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    recipe = read_recipe(config, is_small(folder), changes, _ORDER)
    if show_config:
        given = click.get_current_context().params
        told = {name: given[parameter] for name, parameter in _ORDER.items()} | {"db": without_secrets(db)}
        told = {name: str(value) if isinstance(value, Path) else value for name, value in told.items()}
        click.echo(yaml.safe_dump(told | recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)
        return
    missing = [
        name
        for name, value in (("COLLECTION", collection), ("--by", criterion), ("--teacher", teacher), ("--out", out))
        if value is None and not (name == "--out" and estimate)
    ]
    if missing:
        raise UsageError(f"partita train {what} needs {', '.join(missing)} too; `partita train --help` shows all")
    assert collection is not None and criterion is not None and teacher is not None
    order = Order(
        what, collection, criterion, teacher, base, out or Path(), recipe, column=column, teacher_model=teacher_model,
        prompts=prompts, asking={k: v for k, v in (("concurrency", concurrency), ("request_timeout", request_timeout))
                                 if v is not None},
    )  # fmt: skip
    limits = options.limits(max_calls, max_cost)
    environment, console = read_environment(), quiet_console()
    console.quiet = environment.follows
    if estimate:
        with open_database(db, make=False) as database:
            would, notes = foresee(database, order, limits)
        if as_json:
            options.print_json(would.to_json())
        else:
            print_spans("asked of the teacher", would.rows(), notes)
        return
    with open_database(db) as database, progress_on(console, lambda name: None) as watch:
        work = train(
            database, order, keys=find_keys(environment), limits=limits, watch=watch,
            on_epoch=lambda row: console.print(_line(row, recipe.epochs), highlight=False),
        )  # fmt: skip
        outcome = asyncio.run(work)
    if outcome is None:  # not the leading one of several processes
        return
    supervised = is_supervised(read_about(order.out).name)
    if as_json:
        options.print_json({"out": str(out), **asdict(outcome), "supervised": supervised})
        return
    say = output()
    measured = ", ".join(f"{name} {value:.3f}" for name, value in outcome.measured.items())
    say.print(f"best of {outcome.epochs} epochs: {outcome.best}, with {measured}", highlight=False, soft_wrap=True)
    if not outcome.gained:
        said = ", ".join(f"{name} {value:.3f}" for name, value in outcome.before.items())
        advice = f"no epoch was better than the base, which had {said}: give it more items or epochs, or keep the base"
        say.print(advice, style="yellow", highlight=False, soft_wrap=True)
    say.print(f"model: {out}\ncurves: {out}/training/curves.png", highlight=False)
    if supervised:
        line = (
            "supervised: the model has learnt from labels, by its teacher or its base; its name and its results say so"
        )
        say.print(line, highlight=False, soft_wrap=True)
    say.print(f"use it: partita run COLLECTION --by {shlex.quote(criterion)} --model {out}", highlight=False)


def _line(row: Mapping[str, Any], epochs: int) -> str:
    """An epoch in one line."""
    told = " · ".join(f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float))
    if not row["epoch"]:
        return f"before: {told}"
    best = ", [green]best so far[/]" if row["gained"] else ", kept, though no better than the base"
    mark = best if row["best"] else ""
    return f"epoch {row['epoch']} of {epochs}{mark}: {told}"
