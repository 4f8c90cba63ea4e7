"""What `partita doctor` finds at servers of several makes."""

from __future__ import annotations

from serving.client import Endpoint
from serving.probe import Finding, Report, probe
from tests.serving.pretended import Server, images_in
from tests.serving.scripted import Asked, Scripted, error, scripted


async def examined(server: Server, script: object = None) -> tuple[Report, dict[str, Finding], Scripted]:
    async with (
        scripted(script or server) as running,  # type: ignore[arg-type]
        Endpoint(running.url, model=None, api_key=None, max_attempts=2) as endpoint,
    ):
        said: list[str] = []
        report = await probe(endpoint, endpoint, say=said.append)
    assert said
    return report, {finding.name: finding for finding in report.findings}, running


async def test_an_endpoint_that_can_do_all() -> None:
    headers = {"X-RateLimit-Limit-Requests": "500", "x-ratelimit-remaining-requests": "499"}
    told = Server(conversations=True, texts=True, headers=headers)
    report, found, running = await examined(told)
    assert all(finding.ok is not False for finding in report.findings)
    assert found["images in one question"].detail == "16 at least; a run needs 6"
    assert found["structured output"].detail == "not offered; not needed"
    assert found["rate limits"].detail == "500 requests, 499 left"
    assert found["embeddings of a conversation"].ok and found["embeddings of a text"].ok
    assert (report.embed_mode, report.representatives, report.concurrency) == ("native", None, 32)
    assert not any("structured_outputs" in asked.body for asked in running.asked if asked.body)


async def test_a_key_in_a_header_of_limits_is_not_shown() -> None:
    key = "sk-0123456789-canary"
    told = Server(texts=True, headers={"x-ratelimit-limit-requests": f"{key} requests"})
    async with scripted(told) as running, Endpoint(running.url, model="m", api_key=key) as endpoint:
        report = await probe(endpoint, endpoint)
    assert all(key not in finding.detail + finding.advice for finding in report.findings)
    assert "***" in next(finding.detail for finding in report.findings if finding.name == "rate limits")


async def test_a_limit_of_four_images() -> None:
    report, found, running = await examined(Server(owner="vllm", most_images=4, texts=True))
    assert found["chat with several images"].ok and found["conclusion"].ok
    assert found["images in one question"].ok and found["images in one question"].detail.startswith("4; a run")
    assert report.representatives == 2
    assert "--representatives 2 --candidates 1" in found["images in one question"].advice
    assert found["structured output"].ok
    assert max(len(images_in(a.body)) for a in running.asked if a.body and "messages" in a.body) == 6


async def test_a_limit_of_three_images_and_of_one() -> None:
    report, found, _ = await examined(Server(most_images=3, texts=True))
    assert found["chat with several images"].ok and report.representatives == 1
    _, found, _ = await examined(Server(most_images=1, texts=True))
    assert found["chat with one image"].ok
    assert found["chat with several images"].ok is False and found["chat with several images"].essential


async def test_a_limit_that_nobody_tells() -> None:
    def script(server: Scripted, asked: Asked) -> bytes:
        if asked.body and "messages" in asked.body and len(images_in(asked.body)) > 5:
            return error("400 Bad Request", "no")
        return Server(texts=True)(server, asked)

    report, found, _ = await examined(Server(), script)
    assert found["images in one question"].detail.startswith("5;") and report.representatives == 2


async def test_a_model_for_texts_only() -> None:
    report, found, _ = await examined(Server(most_images=0, texts=True))
    assert found["chat with one image"].ok is None and "texts can be clustered" in found["chat with one image"].advice
    assert found["chat with several texts"].ok and found["conclusion"].ok and report.texts_only
    assert all(finding.ok is not False for finding in report.findings)
    assert "images in one question" not in found


async def test_a_server_that_fails_over_images() -> None:
    def script(server: Scripted, asked: Asked) -> bytes:
        if asked.body and "messages" in asked.body and images_in(asked.body):
            return error("500 Internal Server Error", "image input is not supported")
        return Server(texts=True)(server, asked)

    report, found, _ = await examined(Server(), script)
    assert report.texts_only and "not supported" in found["chat with one image"].detail


async def test_embeddings_that_are_all_alike_are_none() -> None:
    report, found, _ = await examined(Server(conversations=True, texts=True, constant=True))
    assert report.embed_mode is None and "not looked at" in found["embeddings of a conversation"].detail
    assert "--embed-endpoint local" in found["embed mode"].advice

    def deaf(server: Scripted, asked: Asked) -> bytes:
        alike = asked.path.endswith("/embeddings") and "messages" in asked.body
        return Server(conversations=True, texts=True, constant=alike)(server, asked)

    report, found, _ = await examined(Server(), deaf)
    assert report.embed_mode == "caption" and found["embeddings of a conversation"].ok is None


async def test_a_model_that_embeds_is_pointed_at() -> None:
    _, found, _ = await examined(Server(models=("m", "text-embedding-3-small")))
    assert "--embed-model text-embedding-3-small" in found["embed mode"].advice


async def test_an_endpoint_that_turns_calls_away() -> None:
    served = 0

    def script(server: Scripted, asked: Asked) -> bytes:
        nonlocal served
        served += 1
        if 7 < served < 13:
            return error("429 Too Many Requests", "slow down", Retry_After="0")
        return Server(texts=True)(server, asked)

    report, found, _ = await examined(Server(), script)
    assert found["several at once"].ok is None and "--concurrency" in found["several at once"].advice
    assert report.concurrency < 8


async def test_what_a_parameter_is_asked_without() -> None:
    def script(server: Scripted, asked: Asked) -> bytes:
        if asked.body and "temperature" in asked.body:
            return error("400 No", "'temperature' does not support 0.2 with this model.")
        return Server(texts=True)(server, asked)

    _, found, _ = await examined(Server(), script)
    assert found["parameters"].ok and "temperature" in found["parameters"].detail


async def test_a_chat_that_says_nothing() -> None:
    _, found, _ = await examined(Server(says=" ", texts=True))
    assert found["chat with one image"].ok is False and "chat template" in found["chat with one image"].advice
