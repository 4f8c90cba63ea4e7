"""Partita from Python: the same job as the command line."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import uuid
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from partita.comparison import Comparison, Side, compare
from partita.evaluation import Score, score_labels
from partita.export import THUMBNAILS, Form, export
from partita.keys import Keys, find_keys
from partita.labels import read_labels
from partita.pausing import WITHIN, ask_to_pause, wait_for_pause
from partita.prices import Prices, find_prices
from partita.result import Result
from partita.settings import Environment, make_parameters, read_environment
from partita.spend import Spend, spend_of
from partita.steering import Steering
from partita.stored import found_with, result_of
from storage.artefacts import new_file
from storage.calls import KINDS, TOLD, Call, Held, Wanted, calls, held, name_in_calls
from storage.database import Database, open_database
from storage.errors import UsageError
from storage.sessions import load_items, load_session
from storage.trace import trace_row

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from partita.running import Limits
    from partita.trying import Trial
    from partita.watch import Watch

T = TypeVar("T")


def cluster(
    collection: str | Path,
    by: str,
    *,
    session: str | None = None,
    db: str | None = None,
    prompts: str | None = None,
    max_calls: int | None = None,
    max_cost: float | None = None,
    api_key: str | None = None,
    embed_api_key: str | None = None,
    watch: Watch | None = None,
    **parameters: Any,
) -> Result:
    """Cluster a collection by a criterion in words.

    Args:
        collection: folder of images, or a ``.csv``/``.jsonl``/``.parquet`` file (CONTRACT 3).
        by: the criterion, e.g. ``"suit"``.
        session: name of the session; made from criterion and time if not given.
        db: SQLAlchemy URL; otherwise ``PARTITA_DB`` or ``sqlite:///.partita/partita.db``.
        prompts: a prompt file, the name of a shipped set, or the hash of a version.
        max_calls: budget of chat calls.
        max_cost: budget in USD, by the table of prices (``PARTITA_PRICES``).
        api_key: key of the endpoint; otherwise from the environment. It is stored nowhere.
        embed_api_key: key of an ``embed_endpoint`` on another host, likewise.
        parameters: fields of ``partita.settings.Parameters``, e.g. ``endpoint=``, ``model=``, ``concurrency=``.

    Raises:
        PartitaError: see its subclasses; ``Paused`` and ``EndpointError`` leave a session to resume.
    """
    from partita.running import begin

    environment = read_environment()
    given = {"endpoint": environment.endpoint, "model": environment.model}
    given |= {name: value for name, value in parameters.items() if value is not None}
    with open_database(db or environment.db) as database:
        name = _run(
            begin(
                database,
                Path(collection),
                by,
                make_parameters(given),
                name=session,
                prompts=prompts,
                keys=_keys(environment, api_key, embed_api_key),
                limits=_limits(environment, max_calls, max_cost),
                watch=watch,
            )
        )
        return result_of(database, name)


class Session:
    """A session in the database, by its name.

    Raises:
        UnknownSession: no session of that name.
    """

    def __init__(self, name: str, db: str | None = None) -> None:
        self.name = name
        self._environment = read_environment()
        self._url = db or self._environment.db
        with open_database(self._url, make=False) as database:
            self._id = load_session(database, name).id

    def __repr__(self) -> str:
        return f"Session({self.name!r})"

    def result(self) -> Result:
        """Status, clusters and spend."""
        with open_database(self._url) as database:
            return result_of(database, self.name)

    def resume(
        self,
        *,
        max_calls: int | None = None,
        max_cost: float | None = None,
        api_key: str | None = None,
        embed_api_key: str | None = None,
        watch: Watch | None = None,
        **changes: Any,
    ) -> Result:
        """Go on where the session stopped; no finished call is made again."""
        from partita.running import go_on

        with open_database(self._url) as database:
            keys = _keys(self._environment, api_key, embed_api_key)
            limits = _limits(self._environment, max_calls, max_cost)
            _run(go_on(database, self.name, changes=changes, keys=keys, limits=limits, watch=watch))
            return result_of(database, self.name)

    def pause(self, *, within: float = WITHIN) -> Result:
        """Ask the process that works on the session to pause, and wait for it; another one may go on then.

        It may be done, or have failed, before it came to that: the result's ``status`` tells.

        Raises:
            SessionError: no process works on it, or it has not paused within so many seconds.
        """
        with open_database(self._url) as database:
            wait_for_pause(database, ask_to_pause(database, self.name), within)
            return result_of(database, self.name)

    def trace(
        self,
        *,
        item: str | None = None,
        cluster: int | None = None,
        kind: str | None = None,
        conclusion: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        model: str | None = None,
        last: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """One row for every assessment, with reason and conclusion (CONTRACT 3), streamed from the database.

        Args:
            item: only what this item took part in.
            cluster: only what members of the cluster of this id took part in.
            kind: ``membership``, ``merge``, ``correction``, ``describe`` or ``embed``; otherwise the first three.
            conclusion: ``YES``, ``NO`` or ``UNKNOWN``.
            since, until: aware times of the answers, both included.
            model: the name that the endpoint answered with.
            last: only so many rows, the last ones.
        """
        kinds = TOLD if kind is None else (kind,)
        wanted = Wanted(kinds, item, None, conclusion, since, until, model, last)
        yield from map(trace_row, self._calls(wanted, cluster))

    def story(self, item: str, *, kind: str | None = None, **filters: Any) -> Iterator[dict[str, Any]]:
        """How an item came to its place: rows as ``trace`` gives them, in order.

        Besides what the item took part in, these are its description, the answers that decided about it, and the merges
        that the cluster took part in in which agents left it (``found_with``). ``filters`` are those of ``trace``.
        """
        kinds = ("describe", *TOLD) if kind is None else (kind,)
        cluster = filters.pop("cluster", None)
        wanted = Wanted(kinds, item, story=self.found_with(item), **filters)
        yield from map(trace_row, self._calls(wanted, cluster))

    def found_with(self, item: str) -> frozenset[str]:
        """The items that agents left in one cluster with an item, itself among them, whatever people corrected."""
        with open_database(self._url) as database:
            return found_with(database, self._id, item)

    def write_trace(self, to: str | Path, **filters: Any) -> int:
        """Write the rows of ``trace`` to a file, one JSON object a line; how many there were.

        Raises:
            UsageError: it can't be written there.
        """
        written = 0
        with new_file(to) as stream:
            for row in self.trace(**filters):
                stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                written += 1
        return written

    def send_spans(self, url: str, *, contents: bool = False, **filters: Any) -> int:
        """Send the session as one OpenTelemetry trace to a collector, by OTLP over HTTP; how many spans there were.

        The session and its agents always have a span, calls as the filters of ``trace`` leave them; without ``kind``,
        all kinds. Sent again, the trace has the same ids.

        Args:
            url: of the collector, such as ``http://localhost:4318``. Its key is in OTEL_EXPORTER_OTLP_HEADERS.
            contents: with instructions, replies, reasons and names of items; images and keys never.

        Raises:
            UsageError: it is no URL, or the ``otel`` extra is not installed.
            EndpointError: the collector did not take all of them.
        """
        with _opentelemetry():
            from partita.otlp import collector, send
        return send(self._spans(contents, filters), collector(url))

    def write_spans(self, to: str | Path, *, contents: bool = False, **filters: Any) -> int:
        """Write what ``send_spans`` would send to a file, in OTLP's JSON form; how many spans there were.

        Raises:
            UsageError: it can't be written there, or the ``otel`` extra is not installed.
        """
        with _opentelemetry():
            from partita.otlp import write
        return write(self._spans(contents, filters), Path(to))

    @property
    def trace_id(self) -> str:
        """The session's trace id in OpenTelemetry, in hexadecimal."""
        return uuid.UUID(self._id).hex

    def _spans(self, contents: bool, filters: dict[str, Any]) -> Iterator[ReadableSpan]:
        from partita.spans import spans

        kind, cluster = filters.pop("kind", None), filters.pop("cluster", None)
        with open_database(self._url) as database:
            wanted = self._in_cluster(database, Wanted(KINDS if kind is None else (kind,), **filters), cluster)
            yield from spans(database, self.name, wanted, contents=contents)

    def name_in_trace(self, item: str) -> str:
        """The name that an item has in trace rows: that of the first item of the same content.

        Raises:
            UsageError: there is no such item.
        """
        with open_database(self._url) as database:
            return name_in_calls(database, self._id, item)

    def held(self) -> list[Held]:
        """How many answers there are by kind, conclusion and model, and from when."""
        with open_database(self._url) as database:
            return held(database, self._id)

    def _calls(self, wanted: Wanted, cluster: int | None = None) -> Iterator[Call]:
        with open_database(self._url) as database:
            yield from calls(database, self._id, self._in_cluster(database, wanted, cluster))

    def _in_cluster(self, database: Database, wanted: Wanted, cluster: int | None) -> Wanted:
        if cluster is None:
            return wanted
        return replace(wanted, cluster_items=result_of(database, self.name).cluster(cluster).items)

    def spend(self) -> Spend:
        """Calls, images, tokens, time and cost by stage, model and cluster, by the table of prices."""
        with open_database(self._url) as database:
            return spend_of(database, self.name, self._prices())

    def fork(self, prompts: str, *, session: str | None = None) -> Session:
        """A new session with other prompts; its ``resume()`` asks only what they change.

        Args:
            prompts: a file, a shipped set's name, or a version's hash.
        """
        from partita.forking import fork

        with open_database(self._url) as database:
            return Session(fork(database, self.name, prompts, session=session).session, self._url)

    def try_prompts(
        self, prompts: str, *, items: int = 4, chosen: Sequence[str] = (), api_key: str | None = None
    ) -> Trial:
        """Try other prompts on a few items, beside what this session's own said; nothing of it is kept.

        Args:
            prompts: a file, a shipped set's name, or a version's hash.
            items: so many items, chosen so that they tell much. chosen: names of items, instead.
        """
        from partita.prompts import choose
        from partita.trying import plan_trial, try_prompts

        with open_database(self._url) as database:
            criterion = load_session(database, self.name).criterion
            named = choose(database, criterion, prompts).prompts
            plan = plan_trial(database, self.name, named, items=items, chosen=chosen)
        return _run(try_prompts(plan, keys=_keys(self._environment, api_key, None), prices=self._prices()))

    @contextmanager
    def steering(self) -> Iterator[Steering]:
        """Correct the clusters by hand: ``with session.steering() as hands: hands.move(["a.png"], to=2)``."""
        with open_database(self._url) as database:
            yield Steering(database, self.name)

    def export(
        self, to: str | Path, *, form: Form | None = None, copy: bool = False, thumbnails: int = THUMBNAILS
    ) -> Path:
        """Write the partition as ``.csv``, ``.json``, ``.parquet``, a report (``.html``), or a folder.

        Args:
            form: what the folder is to be: ``folder`` (the default) has one sub-folder per cluster, ``imagefolder``
                is read by Hugging Face's ``datasets``, ``fiftyone`` by FiftyOne.
            copy: copy images into the folder instead of linking to them.
            thumbnails: pictures that a report shows of each cluster.

        Raises:
            UsageError: there is no partition yet, or it can't be written there.
        """
        with open_database(self._url) as database:
            return export(database, self.name, Path(to), self._prices(), form=form, copy=copy, thumbnails=thumbnails)

    def picture(self, to: str | Path) -> Path:
        """Draw the clusters as a contact sheet (PNG)."""
        from partita.picture import write_picture

        return write_picture(self.result(), self._collection(), Path(to))

    def score(self, labels: str | Path, column: str) -> Score:
        """Compare the partition with labels."""
        result = self.result()
        result.require_clusters()
        found = {item: c.id for c in result.clusters for item in c.items}
        true = read_labels(Path(labels), column, self._collection(), list(found), result.texts)
        common = sorted(true)
        score = score_labels([found[i] for i in common], [true[i] for i in common], result.calls_per_item)
        return replace(score, supervised=result.supervised, corrections=result.corrections)

    def compare(self, other: Session | str) -> Comparison:
        """This session (A) and another (B) side by side: how far they agree, and the items on which they differ.

        Args:
            other: a session, or the name of one in the same database.

        Raises:
            UsageError: one of them has no clusters yet, or they have no item in common.
        """
        if isinstance(other, str):
            other = Session(other, self._url)
        return compare(self._side(), other._side())

    def _side(self) -> Side:
        with open_database(self._url) as database:
            record = load_session(database, self.name)
            return Side.of(record, result_of(database, self.name), load_items(database, record.id))

    def _prices(self) -> Prices:
        return find_prices(self._environment.prices, self._environment.config_home)

    def _collection(self) -> Path:
        with open_database(self._url) as database:
            return Path(load_session(database, self.name).collection)


@contextmanager
def _opentelemetry() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] not in ("opentelemetry", "google", "requests"):
            raise
        raise UsageError("spans need OpenTelemetry's libraries: pip install 'partita[otel]'") from None


def _keys(environment: Environment, api_key: str | None, embed_api_key: str | None) -> Keys:
    """Keys that are given, before those of the environment."""
    given = {"api_key": api_key, "embed_api_key": embed_api_key}
    return find_keys(environment.model_copy(update={name: SecretStr(key) for name, key in given.items() if key}))


def _limits(environment: Environment, max_calls: int | None, max_cost: float | None) -> Limits:
    from partita.running import Limits

    return Limits(max_calls, max_cost, find_prices(environment.prices, environment.config_home))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, also where an event loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
