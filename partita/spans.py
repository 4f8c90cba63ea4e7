"""A session as an OpenTelemetry trace: a span for the session, one for each agent, one for each call.

Names follow the GenAI semantic conventions (https://github.com/open-telemetry/semantic-conventions-genai); what these
have no name for is ``partita.*``. Identities are derived from the session's id and the ledger's keys, so that the same
session always gives the same trace. What was asked and said, and the names of items, are in it only if that is asked
for; pictures and keys never are.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from agents import questions
from agents.prompt_sets import PromptSet
from partita import __version__
from partita.settings import EMBEDDED, LOCAL, Parameters
from partita.stored import status_now
from storage.calls import Call, Wanted, calls, extents
from storage.database import Database
from storage.sessions import SessionRecord, load_items, load_session

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SCOPE = InstrumentationScope("partita", __version__)
_PROVIDER = "openai"
"""The API that is spoken, whoever speaks it; ``server.address`` tells who."""
_OWN_PROVIDER = "partita"
_NOT_TOLD = "unknown"
"""Why a reply ended, which the ledger does not hold and the conventions want."""

Attributes = dict[str, Any]


def spans(db: Database, name: str, wanted: Wanted, *, contents: bool = False) -> Iterator[ReadableSpan]:
    """The spans of a session, the session's own first, streamed from the ledger.

    Args:
        wanted: of which calls there are spans; the session and its agents always have theirs.
        contents: with instructions, replies, reasons and the names of items.

    Raises:
        UnknownSession: no session of that name.
    """
    record = load_session(db, name)
    session = _Session(
        record, Parameters.model_validate(record.parameters), _resource(), _contents(db, record, contents)
    )
    parts: dict[str, tuple[datetime, datetime]] = {}
    for (kind, component), (begun, ended) in extents(db, record.id).items():
        part = _part(kind, component)
        first, last = parts.get(part, (begun, ended))
        parts[part] = min(first, begun), max(last, ended)
    yield session.whole(parts, status_now(db, record))
    for part, (begun, ended) in parts.items():
        yield session.part(part, begun, ended)
    for call in calls(db, record.id, wanted):
        yield session.call(call)


def trace_id(session_id: str) -> int:
    """The trace's identity: the session's own."""
    return uuid.UUID(session_id).int


def _part(kind: str, component: int | None) -> str:
    """What a call is part of."""
    if component is not None:
        return f"component {component}"
    return "describe" if kind == "embed" else kind


def _resource() -> Resource:
    """Who tells: ``partita``, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say otherwise."""
    own = Resource({SERVICE_NAME: "partita", SERVICE_VERSION: __version__})
    return own.merge(OTELResourceDetector().detect())


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is needed to tell what was asked and said."""

    prompts: PromptSet
    texts: Mapping[str, str]
    """What each text says, by the item's name."""

    def of(self, call: Call) -> Attributes:
        """Messages, reason and names of items."""
        about = dict(call.about)
        if about.get("clusters") == about["representatives"]:
            del about["clusters"]
        told = {f"partita.{name}": json.dumps(named, ensure_ascii=False) for name, named in about.items() if named}
        if call.reason:
            told["partita.reason"] = call.reason
        if call.kind != "embed":
            told["gen_ai.input.messages"] = json.dumps(self._asked(call), ensure_ascii=False)
        if call.reply:
            said = {"role": "assistant", "parts": [_text(call.reply)], "finish_reason": _NOT_TOLD}
            told["gen_ai.output.messages"] = json.dumps([said], ensure_ascii=False)
        return told

    def _asked(self, call: Call) -> list[dict[str, Any]]:
        shown = call.about["representatives"]
        if call.kind == "merge":
            question = questions.merge(self.prompts, *shown)
        elif call.kind == "membership":
            question = questions.membership(self.prompts, shown, call.about["candidates"])
        else:
            question = questions.describe(self.prompts, *call.about["candidates"])
        question = replace(question, instruction=call.prompt or "")
        return [
            {"role": message["role"], "parts": [self._part(part) for part in message["content"]]}
            for message in question.messages(lambda item: {"type": "item", "item": item})
        ]

    def _part(self, part: Mapping[str, Any]) -> dict[str, Any]:
        if part["type"] == "text":
            return _text(part["text"])
        if part["item"] in self.texts:
            return _text(self.texts[part["item"]])
        return {"type": "uri", "modality": "image", "uri": quote(str(part["item"]))}


def _text(words: str) -> dict[str, Any]:
    return {"type": "text", "content": words}


def _contents(db: Database, record: SessionRecord, wanted: bool) -> _Contents | None:
    if not wanted:
        return None
    texts = {row.name: row.text for row in load_items(db, record.id) if row.text is not None}
    return _Contents(PromptSet.model_validate(record.prompt_set), texts)


@dataclass(frozen=True, slots=True)
class _Session:
    """Makes the spans of one session."""

    record: SessionRecord
    parameters: Parameters
    resource: Resource
    contents: _Contents | None

    def whole(self, parts: Mapping[str, tuple[datetime, datetime]], status: str) -> ReadableSpan:
        """The session's span: from its making, or its first call, to what was last done on it."""
        begun = min((self.record.created_at, *(first for first, _ in parts.values())))
        ended = max((self.record.updated_at, *(last for _, last in parts.values())))
        attributes: Attributes = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": "partita",
            "partita.session": self.record.name,
            "partita.status": status,
            "partita.criterion": self.record.criterion,
            "partita.policy": self.record.policy,
            "partita.version": self.record.version,
        }
        failed = status == "failed"
        why = (self.record.why or "") if self.contents else ""
        if failed:
            attributes["error.type"] = "failed"
        return self._span("session", None, "invoke_workflow partita", attributes, begun, ended, _status(failed, why))

    def part(self, part: str, begun: datetime, ended: datetime) -> ReadableSpan:
        """An agent's span: from its first question to its last answer."""
        attributes: Attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": self._provider(self.parameters.endpoint),
            "gen_ai.agent.name": part,
        }
        if self.parameters.model:
            attributes["gen_ai.request.model"] = self.parameters.model
        return self._span(part, "session", f"invoke_agent {part}", attributes, begun, ended)

    def call(self, call: Call) -> ReadableSpan:
        """A call's span, with an event for each decision that was made on the answer."""
        embeds = call.kind == "embed"
        operation = "embeddings" if embeds else "chat"
        endpoint = self.parameters.endpoint
        if embeds:
            endpoint = self.parameters.embed_endpoint or endpoint
        asked = (self.parameters.embed_model if embeds else self.parameters.model) or call.model
        refused = call.seconds == 0 and not embeds
        attributes: Attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": self._provider(endpoint),
            "gen_ai.request.model": asked,
            "gen_ai.response.model": call.model,
            **_server(endpoint),
            "partita.kind": call.kind,
            "partita.answer": call.id,
            "partita.origin": call.origin,
            "partita.images": call.images,
            "partita.prompt_hash": call.prompt_hash,
        }
        counted = {
            "gen_ai.usage.input_tokens": call.prompt_tokens,
            "gen_ai.usage.output_tokens": None if embeds else call.completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": call.cached_tokens,
            "http.request.resend_count": call.attempts - 1 or None,
            "partita.component": call.component,
            "partita.step": call.step,
            "partita.conclusion": call.conclusion,
            "error.type": "request_rejected" if refused else None,
        }
        attributes |= {name: value for name, value in counted.items() if value is not None}
        if self.contents is not None:
            attributes |= self.contents.of(call)
        said = (call.reason or "") if self.contents else "the endpoint refused the question"
        return self._span(
            call.key,
            _part(call.kind, call.component),
            f"{operation} {asked}",
            attributes,
            call.at - timedelta(seconds=call.seconds),
            call.at,
            _status(refused, said),
            kind=SpanKind.CLIENT if _server(endpoint) else SpanKind.INTERNAL,
            events=[self._decision(decision, call.at) for decision in call.decisions],
        )

    def _decision(self, decision: Mapping[str, Any], at: datetime) -> Event:
        told = {
            f"partita.{name}": decision[name] for name in ("did", "odds", "bound") if decision.get(name) is not None
        }
        about = {name: decision[name] for name in ("item", "items", "clusters") if name in decision}
        if self.contents is not None:
            told |= {f"partita.{name}": json.dumps(named, ensure_ascii=False) for name, named in about.items()}
        return Event("partita.decision", told, _nanoseconds(at))

    def _provider(self, endpoint: str) -> str:
        return _PROVIDER if _server(endpoint) else _OWN_PROVIDER

    def _span(
        self,
        called: str,
        parent: str | None,
        name: str,
        attributes: Attributes,
        begun: datetime,
        ended: datetime,
        status: Status | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        events: list[Event] | None = None,
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            self._context(called),
            None if parent is None else self._context(parent),
            self.resource,
            attributes,
            events or [],
            kind=kind,
            status=status or Status(StatusCode.UNSET),
            start_time=_nanoseconds(begun),
            end_time=_nanoseconds(ended),
            instrumentation_scope=_SCOPE,
        )

    def _context(self, called: str) -> SpanContext:
        digest = hashlib.sha256(f"{self.record.id}/{called}".encode()).digest()
        number = int.from_bytes(digest[:8]) or 1  # zero is no identity
        return SpanContext(
            trace_id(self.record.id), number, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
        )


def _server(endpoint: str) -> Attributes:
    """Where an endpoint is; nothing for a model of this machine's own."""
    if endpoint in (EMBEDDED, LOCAL):
        return {}
    url = urlsplit(endpoint)
    return {"server.address": url.hostname or "", "server.port": url.port or (443 if url.scheme == "https" else 80)}


def _status(failed: bool, why: str) -> Status:
    return Status(StatusCode.ERROR, why) if failed else Status(StatusCode.UNSET)


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND * 1000
