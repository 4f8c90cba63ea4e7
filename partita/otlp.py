"""Spans to a collector, by OTLP over HTTP, or to a file in OTLP's JSON form: one request a line.

How the collector is reached is said by OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_HEADERS (keys),
OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_COMPRESSION. Only its address is not:
nothing is sent unless it is given.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from storage.artefacts import new_file
from storage.errors import EndpointError, UsageError
from storage.urls import without_secrets

_BATCH = 256
"""Spans in one request, and in one line of a file."""
_PATH = "/v1/traces"
_LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk.trace.export")


def collector(url: str) -> str:
    """The address that traces go to: a collector's base URL, or the whole with ``/v1/traces``.

    Raises:
        UsageError: it is no http(s) URL, or holds a user name, password, query or fragment.
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if not is_url:
        raise UsageError(f"--otlp {without_secrets(url)!r}: give a collector's URL, such as http://localhost:4318")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            f"--otlp {without_secrets(url)!r}: leave out user name, password and query; "
            "keys go into OTEL_EXPORTER_OTLP_HEADERS"
        )
    return url if parts.path.rstrip("/").endswith(_PATH) else url.rstrip("/") + _PATH


def send(spans: Iterable[ReadableSpan], url: str) -> int:
    """Send spans to a collector; how many there were. Sending again gives the same traces.

    Args:
        url: as ``collector`` gives it.

    Raises:
        EndpointError: the collector did not take all of them.
    """
    heard = _Heard()
    sent = 0
    with heard.session() as session, _quiet():
        exporter = OTLPSpanExporter(endpoint=url, session=session)
        try:
            for batch in _batches(spans):
                if exporter.export(batch) is not SpanExportResult.SUCCESS or heard.rejected:
                    raise EndpointError(
                        f"--otlp {url}: {heard.said()}; {sent} spans were sent before: when it works, the same command "
                        "sends all of them again, under the same ids"
                    )
                sent += len(batch)
        finally:
            exporter.shutdown()  # type: ignore[no-untyped-call]
    return sent


def write(spans: Iterable[ReadableSpan], path: Path) -> int:
    """Write spans to a file, a line of OTLP's JSON for every few of them; how many there were.

    Raises:
        UsageError: it can't be written there.
    """
    written = 0
    with new_file(path) as stream:
        for batch in _batches(spans):
            request = MessageToDict(encode_spans(batch), use_integers_for_enums=True)
            _with_hexadecimal_ids(request)
            stream.write(json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            written += len(batch)
    return written


def _with_hexadecimal_ids(request: dict[str, Any]) -> None:
    """OTLP's JSON has identities in hexadecimal, other than Protobuf's, which has bytes in base64."""
    for resource in request["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = base64.b64decode(span[name]).hex()


def _batches(spans: Iterable[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
    left = iter(spans)
    while batch := list(islice(left, _BATCH)):
        yield batch


class _Heard:
    """What a collector answered. None of its words are kept: they may hold the key that it was sent."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.rejected = 0

    @contextmanager
    def session(self) -> Iterator[requests.Session]:
        """A session that hears the answers."""
        with requests.Session() as session:
            session.hooks["response"].append(self._hear)
            yield session

    def _hear(self, response: requests.Response, *_: Any, **__: Any) -> None:
        self.status = response.status_code
        if 300 <= response.status_code < 400:
            response.close()
            raise requests.TooManyRedirects("redirects are not followed")
        if response.ok and response.headers.get("Content-Type", "").startswith("application/x-protobuf"):
            try:
                told = ExportTraceServiceResponse.FromString(response.content)
            except DecodeError:
                return
            self.rejected += told.partial_success.rejected_spans

    def said(self) -> str:
        """Why it did not take the spans, and what to do."""
        match self.status:
            case None:
                return "no answer came: check that a collector runs there and takes OTLP over HTTP"
            case 401 | 403:
                return f"the collector refuses us ({self.status}): set OTEL_EXPORTER_OTLP_HEADERS to what it wants"
            case 404 | 405:
                return f"there is no collector there ({self.status}): correct the URL"
            case status if 300 <= status < 400:
                return f"it redirects ({status}), which is not followed: give the URL that it leads to"
            case status if status >= 400:
                return f"the collector answered {status}: see its log, and try again"
        return f"the collector rejected {self.rejected} spans: see its log"


@contextmanager
def _quiet() -> Iterator[None]:
    """What the exporter would log is said in one line, without the collector's words."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
