"""Training a model of the user's own: the teacher's session, the course, the folder that comes out (METHOD 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.prompt_sets import PromptSet, criterion_name
from partita.estimate import count, money
from partita.expected import measured
from partita.expected_teaching import TeachingEstimate, expected_teaching
from partita.keys import Keys
from partita.live import Live
from partita.prompts import choose
from partita.result import AS_BEFORE
from partita.running import Limits, scanned, until_stopped
from partita.settings import BUILT_IN
from partita.teaching import Prospect, Teaching, is_model, prospect, teaching
from partita.train_folder import begin, check_folder, held
from partita.watch import Watch
from serving.images import encode_image
from serving.llava.about import SUPERVISED, is_supervised, read_about, reads_texts
from storage.database import Database
from storage.errors import CollectionError, UsageError
from storage.images import opened
from storage.items import Collection, Item, collection_from_rows, read_bytes, scan
from storage.ledger import tally
from storage.sessions import load_items
from training.recipe import FEWEST, Recipe, What

if TYPE_CHECKING:
    from PIL import Image

    from training.course import Outcome

_NEEDED = ("torch", "transformers", "accelerate", "peft", "matplotlib", "tensorboard")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be trained, on what, by whom."""

    what: What
    collection: Path
    criterion: str
    teacher: str
    """Base URL of an OpenAI-compatible API, or the path of a CSV with labels."""
    base: str
    """``partita-mini``, or the folder of a LLaVA over Qwen2."""
    out: Path
    recipe: Recipe
    column: str | None = None
    """Of the labels CSV."""
    teacher_model: str | None = None
    prompts: str | None = None
    asking: dict[str, Any] = field(default_factory=dict)
    """``concurrency`` and ``request_timeout``."""


async def train(
    db: Database,
    order: Order,
    *,
    keys: Keys | None = None,
    limits: Limits | None = None,
    watch: Watch | None = None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> Outcome | None:
    """Train as ordered, or go on with a training that was stopped; `order.out` then holds the best epoch's model.

    Of several processes (`accelerate launch`) the leading one gives the outcome, the others None.

    Raises:
        UsageError: bad input, no room, or `out` belongs to another training; nothing was begun.
        EndpointError: the teacher can't be asked.
        Paused: stopped, or the budget is used up; the same command goes on.
    """
    watch, limits = watch or Watch(), limits or Limits()
    criterion = _criterion(order)
    chosen = choose(db, criterion, order.prompts)
    prompts = chosen.prompts
    found = await scanned(order.collection, watch)
    _check_images(order, found)
    folder = order.out / "training"
    base = base_folder(order.base)
    told = _told(order, prompts.hash, base)
    check_folder(order.out, told)
    _check_installed()
    from training.course import Course, Watcher
    from training.crew import Crew
    from training.learner import Learner

    items = {item.content_hash: item for item in found.items}
    about = read_about(base)
    by_criteria = (criterion_name(criterion),) if about.criteria else ()
    make = partial(Learner, base, order.recipe, order.out, partial(picture, items), criteria=by_criteria)
    crew = Crew(await asyncio.to_thread(make))
    if not crew.leads:
        await asyncio.to_thread(crew.follow)
        return None
    stopped: list[BaseException] = []

    def check() -> None:
        if stopped:
            raise stopped[0]

    try:
        async with AsyncExitStack() as stack:
            open_session = await stack.enter_async_context(teaching(
                db, order.collection, found, criterion, prompts, order.teacher, column=order.column,
                model=order.teacher_model, keys=keys, limits=limits, watch=watch, settings=order.asking,
            ))  # fmt: skip
            await asyncio.to_thread(chosen.kept_in, db)
            for note in open_session.notes:
                if watch.on_note:
                    watch.on_note(note)
            teacher = open_session.teacher
            supervised = teacher.supervised or is_supervised(about.name)
            crew.call(order.out.resolve().name + (f"-{SUPERVISED}" if supervised else ""))
            there = {item.content_hash for item in open_session.found.items}
            present = [name for name in teacher.hashes if name in there]
            _check_enough(order, len(present))
            if watch.on_note:
                would = await asyncio.to_thread(_foreseen, db, order, prompts, open_session, limits)
                watch.on_note(_in_a_line(would, limits))
            stack.enter_context(held(order.out))
            begin(order.out, told, open_session.values, open_session.found)
            watcher = Watcher(watch.progress, on_epoch, check)
            # What an earlier run has used may be gone from the collection.
            for item in collection_from_rows(order.collection, load_items(db, open_session.record)).items:
                items.setdefault(item.content_hash, item)
            course = Course(order.what, order.recipe, crew, teacher, present, folder, watcher)
            live = Live(db, open_session.record, watch.progress)
            outcome: Outcome = await until_stopped(course.run(), teacher.asker, AS_BEFORE, live, stopped.append)
    finally:
        crew.dismiss()
    watch.progress.stage = "done"
    return outcome


def foresee(db: Database, order: Order, limits: Limits) -> tuple[TeachingEstimate, list[str]]:
    """What the teacher is expected to be asked, and what to know of that. Asks nobody and begins nothing.

    Raises:
        UsageError: bad input, as for `train`.
    """
    criterion = _criterion(order)
    prompts = choose(db, criterion, order.prompts).prompts
    found = scan(order.collection)
    _check_images(order, found)
    asked = prospect(
        db, order.collection, found, criterion, prompts, order.teacher, column=order.column, model=order.teacher_model
    )
    _check_enough(order, len({item.content_hash for item in asked.found.items}))
    would = _foreseen(db, order, prompts, asked, limits)
    model = asked.parameters.model or "the endpoint's first model (name it with --teacher-model)"
    remark = limits.prices.remark(model, would.price)
    pauses = _pauses(would, limits)
    return would, [*asked.notes, *would.notes(), *([remark] if remark else []), *([pauses] if pauses else [])]


def _foreseen(
    db: Database, order: Order, prompts: PromptSet, asked: Teaching | Prospect, limits: Limits
) -> TeachingEstimate:
    p = asked.parameters
    return expected_teaching(
        asked.found, prompts, order.recipe, order.what, price=limits.prices.of(p.model or "", endpoint=p.endpoint),
        took=measured(db, p) if is_model(order.teacher) else None,
        had=tally(db, asked.record) if asked.record else None, longest_side=p.longest_side,
    )  # fmt: skip


def _criterion(order: Order) -> str:
    if criterion := order.criterion.strip():
        return criterion
    raise UsageError("--by: the criterion is empty; say in words what to cluster by, e.g. --by suit")


def _check_images(order: Order, found: Collection) -> None:
    if any(item.kind != "image" for item in found.items):
        raise UsageError(f"{order.collection} holds texts: models are trained on images here")


def _check_enough(order: Order, items: int) -> None:
    if items < 2 * FEWEST:
        raise UsageError(f"{order.collection}: {items} items are too few to train on; it takes {2 * FEWEST}")


def _in_a_line(would: TeachingEstimate, limits: Limits) -> str:
    low, likely, high = (getattr(would.total, name) for name in ("low", "likely", "high"))
    line = f"expected: {count(likely)} ({count(low)} to {count(high)}) calls of the teacher"
    if would.cost.high:
        currency = would.price.currency
        line += f", {money(would.cost.likely, currency)} (at most {money(would.cost.high, currency)})"
        line += "" if would.price.known else ", at an assumed price"
    pauses = _pauses(would, limits)
    return line + (f"; {pauses}" if pauses else "")


def _pauses(would: TeachingEstimate, limits: Limits) -> str:
    """Which limits may be passed; "" for none."""
    most = [name for name, limit, high in (("--max-calls", limits.max_calls, would.total.high),
                                           ("--max-cost", limits.max_cost, would.cost.high))
            if limit is not None and limit < high]  # fmt: skip
    return f"{' and '.join(most)} may pause it before its end" if most else ""


def base_folder(named: str) -> Path:
    """The folder of the model that a training begins with.

    Raises:
        UsageError: there is none.
    """
    if named == BUILT_IN:
        from serving.llava import MINI

        return MINI
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"--base {named}: there is no such folder; give one with a LLaVA or LLaVA-OneVision over Qwen2, or "
            f"{BUILT_IN}, the built-in model"
        )
    return folder.resolve()


def is_small(base: Path) -> bool:
    """Whether a base is partita-mini or was trained from it, which is trained whole."""
    return not reads_texts(base)


def picture(items: dict[str, Item], content_hash: str) -> Image.Image:
    """An item's image as it reaches a model that is asked: bounded and encoded anew.

    Raises:
        CollectionError: its file is gone, or is not the file it was.
    """
    item = items.get(content_hash)
    try:
        content = None if item is None else read_bytes(item)
    except CollectionError:
        content = None
    if content is None:
        name = item.name if item else f"an item (SHA-256 {content_hash[:12]}…)"
        back = f"put the file back at {item.path}" if item else "put the file back"
        raise CollectionError(
            f"{name}, which this training uses, is gone or has changed: {back} and run the same command again, or "
            "train what is there with another --out"
        )
    with opened(encode_image(content)) as image:
        return image.convert("RGB")


def _check_installed() -> None:
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(f"training needs {' and '.join(missing)}: pip install 'partita[train]'")


def _told(order: Order, prompts: str, base: Path) -> dict[str, Any]:
    """What a training is of. It goes on with the same only, but for settings that change nothing of what is learnt."""
    return {
        "what": order.what,
        "collection": str(order.collection.resolve()),
        "criterion": order.criterion,
        "prompts": prompts,
        "teacher": order.teacher if is_model(order.teacher) else str(Path(order.teacher).expanduser().resolve()),
        "column": order.column,
        "teacher_model": order.teacher_model,
        "base": str(base),
        "recipe": order.recipe.model_dump(mode="json"),
    }
