"""A session from another with other prompts: only what these change is asked again, over HTTP."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import yaml

from partita import Session
from tests.partita.test_steering import clusters, run
from tests.truth import Truth, numbers, serving


@pytest.fixture
def truth():
    with serving(Truth(numbers(60, 5))) as t:
        yield t


def prompts(cli, path, **changes):
    """The set of this criterion with other instructions."""
    told = yaml.safe_load(cli("prompts", "show", "type").out)
    path.write_text(yaml.safe_dump(told | {name: f"{told[name]} {words}" for name, words in changes.items()}))
    return path


def asked(truth, since):
    return Counter(kind for kind, _ in truth.asked[since:])


def test_other_words_for_the_merge_leave_the_rest_alone(any_cli, truth, tmp_path):
    cli = any_cli
    before = cli(*run(truth.write(tmp_path / "c"), truth)).json
    first, second = before["clusters"][:2]
    moved = first["items"][-1]
    assert cli("correct", "s", "rename", 2, "no more").code == cli("correct", "s", "undo").code == 0
    assert cli("correct", "s", "move", moved, "--to", second["id"]).code == 0
    since = len(truth.asked)
    done = cli("fork", "s", "--prompts", prompts(cli, tmp_path / "p.yaml", merge="Look twice."), "--session", "t",
               "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert "60 describe, 60 embed" in done.err and "merge questions are asked anew" in done.err
    again = asked(truth, since)
    likely, most = re.search(r"expected: (\d+) \(\d+ to (\d+)\) calls", done.err).groups()
    assert int(likely) < 20 and again["merge"] + again["membership"] <= int(most)
    assert set(again) <= {"merge", "membership"} and again["merge"] > 0
    assert again["membership"] <= 5  # what is asked next follows from the answers, which came in another order
    calls = done.json["calls"]
    assert calls["describe"] == calls["embed"] == 0 and calls["merge"] == again["merge"]
    assert calls["reused"] >= 120 + before["calls"]["membership"]
    home = {item: c["id"] for c in done.json["clusters"] for item in c["items"]}
    assert done.json["corrections"] == 1 and home[moved] == home[second["items"][0]] != home[first["items"][0]]
    assert cli("show", "s", "--json").json["corrections"] == 1
    assert cli("spend", "t", "--json").json["total"]["calls"] == sum(again.values())


def test_other_words_for_the_description_ask_all_of_it_anew(cli, truth, tmp_path):
    before = cli(*run(truth.write(tmp_path / "c"), truth)).json
    since = len(truth.asked)
    done = cli("fork", "s", "--prompts", prompts(cli, tmp_path / "p.yaml", describe="Be brief."), "--json")
    assert done.code == 0, done.err
    assert "describe questions are asked anew" in done.err
    assert asked(truth, since)["describe"] == 60 and asked(truth, since)["embed"] == 60
    assert clusters(done.json) == clusters(before) and done.json["session"] != "s"


def test_the_same_words_ask_nothing(cli, truth, tmp_path):
    before = cli(*run(truth.write(tmp_path / "c"), truth)).json
    since = len(truth.asked)
    done = cli("fork", "s", "--prompts", "type", "--max-calls", 0, "--json")
    assert done.code == 0, done.err
    assert "expected: no calls" in done.err and "too little" not in done.err
    assert len(truth.asked) == since and "the prompts are the same" in done.err
    assert done.json["clusters"] == before["clusters"]


def test_a_fork_of_a_paused_session_goes_on_and_pauses_itself(cli, truth, tmp_path):
    whole = cli(*run(truth.write(tmp_path / "c"), truth, "--max-calls", 80))
    assert whole.code == 3
    paused = cli("fork", "s", "--prompts", "type", "--session", "t", "--max-calls", 10)
    assert paused.code == 3 and "partita resume t" in paused.err
    likely, left = (int(re.search(r"expected: (\d+) ", one.err)[1]) for one in (whole, paused))
    assert left == likely - 80 and "--max-calls 10 is too little" in paused.err
    assert cli("resume", "t", "--json").json["status"] == "done"
    assert cli("show", "s", "--json").json["status"] == "paused"


def test_what_can_not_be_forked_leaves_nothing(cli, truth, tmp_path):
    assert cli(*run(truth.write(tmp_path / "c"), truth)).code == 0
    for words, said in (
        (("nobody", "--prompts", "type"), "no session 'nobody'"),
        (("s", "--prompts", tmp_path / "none.yaml"), "no such prompt file"),
        (("s", "--prompts", "type", "--session", "s"), "a session 's' already"),
        (("s", "--prompts", "type", "--session", "a b"), "letters, digits"),
    ):
        done = cli("fork", *words)
        assert done.code == 2 and said in done.err, done.err
    assert len(cli("sessions", "--json").out.splitlines()) == 1


def test_from_python(cli, truth, tmp_path):
    before = cli(*run(truth.write(tmp_path / "c"), truth)).json
    made = Session("s", cli.db).fork("type", session="t")
    assert made.result().status == "paused"
    assert clusters(made.resume().to_json()) == clusters(before)
