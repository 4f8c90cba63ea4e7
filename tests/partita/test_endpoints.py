"""Sessions at endpoints of several makes, over real HTTP."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.partita.test_sessions import run
from tests.serving.pretended import Server
from tests.serving.scripted import scripted
from tests.truth import Truth, numbers, serving


@pytest.fixture
def truth():
    with serving(Truth(numbers(24, 3))) as truth:
        yield truth


def parameters(cli, session: str = "s") -> dict:
    from storage.database import open_database
    from storage.sessions import load_session

    with open_database(cli.db) as db:
        return load_session(db, session).parameters


def test_conclusions_are_held_to_their_form_where_the_server_is_vllm(cli, truth, tmp_path):
    truth.owner = "vllm"
    folder = truth.write(tmp_path / "c")
    assert cli(*run(folder, truth), "--max-calls", 40).code == 3
    assert parameters(cli)["constrain"] is True
    before = Counter(key for _, key in truth.asked)
    assert truth.forms == {("describe", False, True), ("membership", True, True)}
    truth.owner = ""  # the endpoint has moved
    done = cli("resume", "s", "--max-calls", 1000, "--json")
    assert done.code == 0 and len(done.json["clusters"]) == 3, done.err
    assert "can't hold replies to their form" in done.err
    after = Counter(key for _, key in truth.asked)
    assert set(after.values()) == {1} and all(key in after for key in before)
    assert parameters(cli)["constrain"] is True


def test_nothing_else_is_sent_to_a_server_that_is_not_known(cli, truth, tmp_path):
    assert cli(*run(truth.write(tmp_path / "c"), truth)).code == 0
    assert {(held, known) for _, held, known in truth.forms} == {(False, False)}
    assert parameters(cli)["constrain"] is False


def test_a_session_from_before_keeps_its_keys(cli, truth, tmp_path):
    from storage.database import open_database
    from storage.sessions import load_session, update_session

    assert cli(*run(truth.write(tmp_path / "c"), truth), "--max-calls", 30).code == 3
    with open_database(cli.db) as db:
        record = load_session(db, "s")
        old = {name: value for name, value in record.parameters.items() if name != "constrain"}
        update_session(db, record.id, parameters=old)
    truth.owner = "vllm"
    assert cli("resume", "s", "--max-calls", 1000).code == 0
    assert max(Counter(key for _, key in truth.asked).values()) == 1
    assert not any(held for _, held, _ in truth.forms)


def test_too_many_images_end_the_run_and_not_the_session(cli, truth, tmp_path):
    truth.most_images = 3
    ended = cli(*run(truth.write(tmp_path / "c"), truth))
    assert ended.code == 4 and "begin anew with --representatives 1 --candidates 1" in ended.err
    assert "--limit-mm-per-prompt" in ended.err and "Traceback" not in ended.err
    rows = cli("trace", "s", "--json").out.splitlines()
    assert all("image(s)" not in row for row in rows)
    truth.most_images = 6
    done = cli("resume", "s", "--json")
    assert done.code == 0 and len(done.json["clusters"]) == 3
    assert max(Counter(key for _, key in truth.asked).values()) == 1


def test_questions_that_are_too_long_end_the_run(cli, truth, tmp_path):
    truth.longest_question = 3
    ended = cli(*run(truth.write(tmp_path / "c"), truth))
    assert ended.code == 4 and "--longest-side" in ended.err and "--max-tokens" in ended.err
    assert all(json.loads(row)["reply"] for row in cli("trace", "s", "--json").out.splitlines())
    truth.longest_question = None
    assert cli("resume", "s").code == 0


def test_embeddings_from_elsewhere_as_long_as_there_are_none(cli, truth, tmp_path):
    truth.embeds = False
    ended = cli(*run(truth.write(tmp_path / "c"), truth))
    assert ended.code == 4 and "has no embeddings: name another --embed-endpoint" in ended.err
    with serving(Truth(truth.kinds)) as other:
        done = cli("resume", "s", "--embed-endpoint", other.url)
        assert done.code == 0, done.err
        assert {kind for kind, _ in other.asked} == {"embed"}
    assert max(Counter(key for _, key in truth.asked).values()) == 1


def test_a_server_of_ours_embeds_conversations(cli, truth, tmp_path):
    truth.owner = "partita"
    words = [word for word in run(truth.write(tmp_path / "c"), truth) if word not in ("--embed-mode", "native")]
    assert cli(*words).code == 0
    assert parameters(cli)["embed_mode"] == "native"
    truth.owner = "somebody"
    assert cli(*words[:-2], "t").code == 0
    assert parameters(cli, "t")["embed_mode"] == "caption"


def test_a_model_that_was_chosen_stays_chosen_when_the_endpoint_moves(cli, truth, tmp_path):
    truth.names, truth.embeds = ("truth", "embedder"), False
    assert cli(*run(truth.write(tmp_path / "c"), truth), "--embed-model", "embedder").code == 4
    with serving(Truth(truth.kinds, names=truth.names)) as moved:
        assert cli("resume", "s", "--endpoint", moved.url).code == 0
    assert parameters(cli)["embed_model"] == "embedder"


def test_another_endpoint_without_the_model(cli, truth, tmp_path):
    assert cli(*run(truth.write(tmp_path / "c"), truth), "--max-calls", 30).code == 3
    with serving(Truth(truth.kinds, names=("another",))) as other:
        ended = cli("resume", "s", "--endpoint", other.url)
    assert ended.code == 4 and f"{other.url} has no model 'truth': the session's questions were for" in ended.err


def test_an_image_that_is_too_large_stands_alone(cli, truth, tmp_path):
    truth.rejects, truth.rejection = next(iter(truth.kinds)), "maximum context length is 4096 tokens"
    done = cli(*run(truth.write(tmp_path / "c"), truth))
    assert done.code == 0 and sorted(c["size"] for c in done.json["clusters"])[:1] == [1], done.err


def test_a_text_that_is_too_long_stands_alone(cli, truth, tmp_path):
    truth.rejects, truth.rejection = next(iter(truth.kinds)), "maximum context length is 4096 tokens"
    table = Path(tmp_path / "texts.jsonl")
    table.write_text("\n".join(json.dumps({"text": f"item {number}"}) for number in truth.kinds))
    done = cli(*run(table, truth))
    assert done.code == 0 and ["row 1"] in [c["items"] for c in done.json["clusters"]], done.err


def test_no_room_for_a_question_is_told_before_any_is_asked(cli, truth, tmp_path):
    truth.longest = 2048
    folder = truth.write(tmp_path / "c")
    ended = cli(*run(folder, truth))
    assert ended.code == 4 and "begin with --max-tokens 512" in ended.err and truth.asked == []
    assert cli(*run(folder, truth, "t"), "--max-tokens", 512).code == 0


async def test_doctor_gives_the_line_to_run_with(cli):
    import asyncio

    told = Server(owner="vllm", longest=8192, most_images=4, texts=True)
    async with scripted(told) as server:
        done = await asyncio.to_thread(cli, "doctor", "--endpoint", server.url, "--json")
        found = {finding["name"]: finding for finding in done.json}
        assert found["run"]["detail"] == (
            f"partita run COLLECTION --by CRITERION --endpoint {server.url} --model m --embed-mode caption "
            "--concurrency 32 --representatives 2 --candidates 1"
        )
        assert done.code == 0 and "trying: 6 images in one question" in done.err
        assert found["chat endpoint: model"]["detail"] == "m, vllm, 8192 tokens for question and reply"
        told.texts = False
        done = await asyncio.to_thread(cli, "doctor", "--endpoint", server.url)
        assert done.code == 4 and "--embed-mode caption --embed-endpoint local" in done.out
        assert done.out.splitlines()[-1].startswith("partita run COLLECTION")
