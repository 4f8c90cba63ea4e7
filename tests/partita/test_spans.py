"""A session as an OpenTelemetry trace: what a collector gets over HTTP, what is in the file, and what is in neither."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExportResult
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, http_attributes
from opentelemetry.semconv.attributes import error_attributes, server_attributes

from partita import Session
from partita.spans import spans
from storage.calls import KINDS, Wanted
from storage.database import open_database
from storage.errors import EndpointError, UsageError
from tests.partita.receiver import Receiver, receiving
from tests.partita.test_bad_input import refused
from tests.partita.test_sessions import run
from tests.truth import Truth, numbers, serving

KEY = "chat-canary-0123"
COLLECTOR_KEY = "otel-canary-0123"


@pytest.fixture
def truth() -> Iterator[Truth]:
    with serving(Truth(numbers(24, 3), key=KEY)) as t:
        yield t


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiving() as receiver:
        receiver.kind, receiver.answer = "application/x-protobuf", b""
        yield receiver


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")


def begun(cli, truth: Truth, tmp_path: Path, *words: object) -> Path:
    folder = truth.write(tmp_path / "c")
    done = cli(*run(folder, truth), *words, PARTITA_API_KEY=KEY)
    assert done.code in (0, 3), done.err
    return folder


def arrived(collector: Receiver) -> list[Span]:
    requests = [ExportTraceServiceRequest.FromString(body) for _, _, body in collector.got]
    return [
        span for request in requests for resource in request.resource_spans
        for scope in resource.scope_spans for span in scope.spans
    ]  # fmt: skip


def told(span: Span | Span.Event) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


def by_operation(found: list[Span]) -> dict[str, list[Span]]:
    sorted_out: dict[str, list[Span]] = {}
    for span in found:
        sorted_out.setdefault(told(span)["gen_ai.operation.name"], []).append(span)
    return sorted_out


def test_a_collector_gets_one_trace(any_cli, truth, tmp_path, collector):
    cli = any_cli
    begun(cli, truth, tmp_path)
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {COLLECTOR_KEY}"}
    done = cli("trace", "s", "--otlp", collector.url, **headers)
    assert done.code == 0, done.err
    assert {path for path, _, _ in collector.got} == {"/v1/traces"}
    assert {sent["authorization"] for _, sent, _ in collector.got} == {f"Bearer {COLLECTOR_KEY}"}
    found = arrived(collector)
    trace_id = Session("s", cli.db).trace_id
    assert f"{len(found)} spans of trace {trace_id}" in done.err
    assert {span.trace_id.hex() for span in found} == {trace_id}
    ids = {span.span_id: span for span in found}
    assert len(ids) == len(found)

    operations = by_operation(found)
    (session,) = operations["invoke_workflow"]
    assert session.parent_span_id == b"" and session.name == "invoke_workflow partita"
    agents = operations["invoke_agent"]
    assert {span.parent_span_id for span in agents} == {session.span_id}
    assert {"invoke_agent describe", "invoke_agent merge", "invoke_agent component 0"} <= {s.name for s in agents}
    calls = operations["chat"] + operations["embeddings"]
    assert Counter(told(span)["partita.kind"] for span in calls) == Counter(kind for kind, _ in truth.asked)
    for span in calls:
        agent = ids[span.parent_span_id]
        assert agent in agents and told(span)["partita.kind"] in ("embed", agent.name.split()[1], "membership")
        assert span.kind == Span.SPAN_KIND_CLIENT and span.status.code == Status.STATUS_CODE_UNSET
    for span in found:
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        if (parent := ids.get(span.parent_span_id)) is not None:
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano

    rows = {row["id"]: row for kind in KINDS for row in Session("s", cli.db).trace(kind=kind)}
    for span in calls:
        row, said = rows[told(span)["partita.answer"]], told(span)
        took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        assert took == pytest.approx(row["seconds"], abs=2e-6)
        tokens = said.get("gen_ai.usage.input_tokens", 0) + said.get("gen_ai.usage.output_tokens", 0)
        assert tokens == row["tokens"] and said.get("partita.conclusion") == row["conclusion"]
        assert said["gen_ai.response.model"] == row["model"] == said["gen_ai.request.model"]
        assert said["server.address"] == "127.0.0.1" and f":{said['server.port']}/" in truth.url
        assert [told(event)["partita.did"] for event in span.events] == [one["did"] for one in row["decisions"]]


def test_names_are_those_of_the_conventions(cli, truth, tmp_path, collector):
    begun(cli, truth, tmp_path)
    assert cli("trace", "s", "--otlp", collector.url, "--contents").code == 0
    modules = (gen_ai_attributes, http_attributes, error_attributes, server_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    used = {name for span in arrived(collector) for name in told(span)}
    assert {name for name in used if not name.startswith("partita.")} <= known
    operations = {one.value for one in gen_ai_attributes.GenAiOperationNameValues}
    assert set(by_operation(arrived(collector))) <= operations


def test_sent_again_it_has_the_same_ids_and_filters_hold(cli, truth, tmp_path, collector):
    begun(cli, truth, tmp_path)
    for _ in range(2):
        assert cli("trace", "s", "--otlp", f"{collector.url}/v1/traces").code == 0
    first, second = (ExportTraceServiceRequest.FromString(body) for _, _, body in collector.got)
    assert first == second
    collector.got.clear()
    assert cli("trace", "s", "--otlp", collector.url, "--kind", "merge", "--conclusion", "NO").code == 0
    chats = by_operation(arrived(collector))["chat"]
    assert {(told(s)["partita.kind"], told(s)["partita.conclusion"]) for s in chats} == {("merge", "NO")}


def test_contents_only_when_asked_for_and_never_images_or_keys(cli, truth, tmp_path, collector):
    folder = begun(cli, truth, tmp_path)
    environment = {"PARTITA_API_KEY": KEY, "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={COLLECTOR_KEY}"}
    assert cli("trace", "s", "--otlp", collector.url, **environment).code == 0
    for word in (b"They agree", b"They differ", b"images/", b"It is of kind", b"CONCLUSION", str(folder).encode()):
        assert word not in collector.bodies
    bare = collector.bodies
    collector.got.clear()
    assert cli("trace", "s", "--otlp", collector.url, "--contents", **environment).code == 0
    assert b"They agree" in collector.bodies and b"images/0000.png" in collector.bodies
    for picture in (folder / "images").iterdir():
        assert base64.b64encode(picture.read_bytes())[100:160] not in collector.bodies
    for body in (bare, collector.bodies):
        assert b"canary" not in body and b"data:image" not in body and str(tmp_path).encode() not in body

    call = next(s for s in by_operation(arrived(collector))["chat"] if told(s)["partita.kind"] == "membership")
    (asked,), (said,) = (json.loads(told(call)[f"gen_ai.{side}.messages"]) for side in ("input", "output"))
    texts = [part["content"] for part in asked["parts"] if part["type"] == "text"]
    shown = [part["uri"] for part in asked["parts"] if part["type"] == "uri"]
    assert asked["role"] == "user" and "<CONCLUSION>" in texts[0] and texts[-1] == "Candidate 1:"
    about = [json.loads(told(call)[f"partita.{name}"]) for name in ("representatives", "candidates")]
    assert shown == [*about[0], *about[1]] and len(texts) == 1 + len(shown)
    assert said["role"] == "assistant" and "<CONCLUSION>" in said["parts"][0]["content"]


def test_texts_are_contents_too(cli, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("text\n" + "\n".join(f"secret words of {n}" for n in numbers(12, 2)) + "\n")
    with serving(Truth(numbers(12, 2))) as truth:
        assert cli(*run(table, truth)).code == 0
    assert cli("trace", "s", "--to", tmp_path / "a.otlp.jsonl").code == 0
    assert "secret words" not in (tmp_path / "a.otlp.jsonl").read_text()
    assert cli("trace", "s", "--to", tmp_path / "b.otlp.jsonl", "--contents").code == 0
    assert "secret words" in (tmp_path / "b.otlp.jsonl").read_text()


def test_failures_are_in_the_status(cli, truth, tmp_path, collector):
    truth.rejects, truth.rejection = next(iter(truth.kinds)), "no such picture as images/0000.png"
    begun(cli, truth, tmp_path)
    assert cli("trace", "s", "--otlp", collector.url).code == 0
    failed = [span for span in arrived(collector) if span.status.code == Status.STATUS_CODE_ERROR]
    assert failed and all(told(span)["error.type"] == "request_rejected" for span in failed)
    assert {span.status.message for span in failed} == {"the endpoint refused the question"}
    collector.got.clear()
    assert cli("trace", "s", "--otlp", collector.url, "--contents").code == 0
    failed = [span for span in arrived(collector) if span.status.code == Status.STATUS_CODE_ERROR]
    assert all("no such picture" in span.status.message for span in failed)


def test_a_session_that_failed(cli, truth, tmp_path, collector):
    truth.fault = lambda served: "401" if served > 30 else None
    assert cli(*run(truth.write(tmp_path / "c"), truth), PARTITA_API_KEY=KEY).code == 4
    assert cli("trace", "s", "--otlp", collector.url).code == 0
    (session,) = by_operation(arrived(collector))["invoke_workflow"]
    assert session.status.code == Status.STATUS_CODE_ERROR and told(session)["partita.status"] == "failed"


def test_the_file_is_what_is_sent(any_cli, truth, tmp_path, collector):
    cli = any_cli
    begun(cli, truth, tmp_path)
    target = tmp_path / "out" / "s.otlp.jsonl"
    done = cli("trace", "s", "--to", target, "--otlp", collector.url, "--contents")
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    found = []
    for line in lines:
        for span in line["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            found.append((span["traceId"], span["spanId"]))
            assert isinstance(span["kind"], int) and isinstance(span["startTimeUnixNano"], str)
            for name in ("traceId", "spanId", "parentSpanId"):
                if name in span:
                    span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    assert found == [(span.trace_id.hex(), span.span_id.hex()) for span in arrived(collector)]
    sent = [ExportTraceServiceRequest.FromString(body) for _, _, body in collector.got]
    assert [ParseDict(line, ExportTraceServiceRequest()) for line in lines] == sent
    assert [path.name for path in target.parent.iterdir()] == ["s.otlp.jsonl"]


def test_they_are_spans_of_the_sdk(cli, truth, tmp_path, monkeypatch):
    begun(cli, truth, tmp_path, "--max-calls", 40)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    with open_database(cli.db) as db:
        made = list(spans(db, "s", Wanted(KINDS), contents=True))
    assert all(isinstance(span, ReadableSpan) and span.get_span_context().is_valid for span in made)
    assert ConsoleSpanExporter(out=io.StringIO()).export(made) is SpanExportResult.SUCCESS
    told = made[0].resource.attributes
    assert told["service.name"] == "mine" and told["deployment.environment.name"] == "test"
    assert made[0].attributes is not None and made[0].attributes["partita.status"] == "paused"


def test_many_spans_go_in_several_requests(cli, truth, tmp_path, collector, monkeypatch):
    begun(cli, truth, tmp_path)
    monkeypatch.setattr("partita.otlp._BATCH", 7)
    sent = Session("s", cli.db).send_spans(collector.url)
    assert len(collector.got) == -(-sent // 7) > 3 and len({s.span_id for s in arrived(collector)}) == sent


def test_nothing_is_sent_unasked(cli, truth, tmp_path, collector):
    folder = truth.write(tmp_path / "c")
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_TRACES_EXPORTER": "otlp"}
    assert cli(*run(folder, truth), PARTITA_API_KEY=KEY, **variables).code == 0
    assert cli("trace", "s", **variables).code == 0
    assert cli("trace", "s", "--to", tmp_path / "s.otlp.jsonl", **variables).code == 0
    assert collector.got == []


@pytest.mark.parametrize(
    ("status", "says"),
    [(400, "answered 400"), (401, "OTEL_EXPORTER_OTLP_HEADERS"), (404, "correct the URL"), (503, "answered 503")],
)
def test_a_collector_that_refuses(cli, truth, tmp_path, collector, status, says):
    begun(cli, truth, tmp_path)
    collector.status = status
    collector.answer = COLLECTOR_KEY.encode()
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization={COLLECTOR_KEY}", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    done = cli("trace", "s", "--otlp", collector.url, **headers)
    refused(done, 4, "--otlp", says)
    assert len(done.err.splitlines()) == 1 and "canary" not in done.err + done.out


def test_a_collector_that_is_not_there_redirects_or_takes_a_part(cli, truth, tmp_path, collector):
    begun(cli, truth, tmp_path)
    session = Session("s", cli.db)
    with pytest.raises(EndpointError, match="no answer came"):
        session.send_spans("http://127.0.0.1:9")
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message=f"no {COLLECTOR_KEY}")
    collector.answer = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    with pytest.raises(EndpointError, match="rejected 3 spans") as caught:
        session.send_spans(collector.url)
    assert COLLECTOR_KEY not in str(caught.value)
    with receiving() as elsewhere:
        collector.status, collector.headers = 307, {"Location": elsewhere.url}
        with pytest.raises(EndpointError, match="redirects"):
            session.send_spans(collector.url)
        assert elsewhere.got == []


def test_bad_use(cli, truth, tmp_path, monkeypatch):
    begun(cli, truth, tmp_path)
    refused(cli("trace", "s", "--otlp", "localhost:4318"), 2, "--otlp", "http://localhost:4318")
    wrong = cli("trace", "s", "--otlp", "http://me:canary@localhost:4318")
    refused(wrong, 2, "OTEL_EXPORTER_OTLP_HEADERS")
    assert "canary" not in wrong.err
    refused(cli("trace", "s", "--contents"), 2, "--contents", "--otlp")
    refused(cli("trace", "s", "--to", tmp_path / "a.json"), 2, ".jsonl")
    refused(cli("trace", "s", "--json", "--to", tmp_path / "a.jsonl"), 2, "--json")
    (tmp_path / "file").touch()
    refused(cli("trace", "s", "--to", tmp_path / "file" / "a.otlp.jsonl"), 2, "can't be written")
    monkeypatch.delitem(sys.modules, "partita.otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(UsageError, match=r"partita\[otel\]"):
        Session("s", cli.db).send_spans("http://localhost:4318")
