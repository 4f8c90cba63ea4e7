"""Estimates hold for what was measured and for what a run really takes, and cost nothing themselves."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.prompt_sets import shipped_set
from partita.estimate import Job, Span, count, duration, estimate, expected_questions, image_tokens, money, text_tokens
from partita.prices import ASSUMED, FREE, Price
from storage.spend import Usual
from tests.partita.test_bad_input import refused
from tests.partita.test_sessions import run
from tests.truth import Truth, numbers, serving

GPT = Price(2.5, 10.0)
URL = "https://api.example.com/v1"


def job(**changes) -> Job:
    given = {"prompts": shipped_set("suit"), "items": 600, "distinct": 600, "item_tokens": 700.0, "price": GPT}
    return Job(**(given | {"embed_price": Price(0.02, 0)} | changes))


@pytest.fixture
def truth():
    with serving(Truth(numbers(60, 5))) as t:
        yield t


# -- the prediction ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "per_item"), [(100, 2.24), (300, 1.88), (600, 1.75), (1500, 1.69), (5000, 1.85)], ids=str
)
def test_questions_of_policy_evidence_as_measured(n, per_item):
    memberships, merges = expected_questions("evidence", n)
    questions = memberships + merges
    assert questions.low <= per_item * n <= questions.high
    assert questions.likely == pytest.approx(per_item * n, rel=0.16)


@pytest.mark.parametrize(
    ("n", "steps"), [(8029, 12837), (8029, 9970), (640, 798), (640, 1452), (4856, 6404), (4856, 6964)], ids=str
)
def test_questions_of_policy_paper_as_published(n, steps):
    memberships, _ = expected_questions("paper", n)
    assert memberships.low <= steps <= memberships.high


@given(
    n=st.integers(1, 10**6),
    policy=st.sampled_from(["evidence", "paper"]),
    candidates=st.integers(1, 8),
    concurrency=st.integers(1, 100),
    built_in=st.booleans(),
)
def test_low_is_never_above_high(n, policy, candidates, concurrency, built_in):
    said = estimate(
        job(
            items=n, distinct=n, policy=policy, concurrency=concurrency, built_in=built_in,
            candidates=1 if policy == "paper" else candidates,
        )
    )  # fmt: skip
    for s in (
        said.memberships,
        said.merges,
        said.calls,
        said.prompt_tokens,
        said.reply_tokens,
        said.cost,
        said.seconds,
    ):
        assert 0 <= s.low <= s.likely <= s.high
    assert said.calls.low >= n
    assert json.loads(json.dumps(said.to_json(), allow_nan=False)) == said.to_json()


def test_one_item_has_no_questions():
    assert estimate(job(items=5, distinct=1)).questions == Span(0, 0, 0)


@pytest.mark.parametrize("policy", ["evidence", "paper"])
def test_two_items_have_one_pair(policy):
    said = estimate(job(items=2, distinct=2, policy=policy))
    assert (said.questions.low, said.questions.likely) == (1, 1) and said.calls.low == 3
    assert estimate(job(items=40, distinct=40)).questions.high > 198  # as 40 cards of 12 ranks took


def test_sizes_of_items():
    assert image_tokens(56, 28, 768) == 2
    assert image_tokens(57, 29, 768) == 6
    assert image_tokens(7680, 7680, 768) == image_tokens(768, 768, 768) == 28 * 28
    assert image_tokens(10_000, 10, 768) == 28
    assert text_tokens("a" * 400) == 100
    assert text_tokens("数" * 400) == 300


def test_tokens_and_cost_by_hand():
    p = shipped_set("suit")
    said = estimate(job())
    describe = 10 + text_tokens(p.describe) + 706
    memberships = 10 + text_tokens(p.membership) + 4 * 706
    merges = 10 + text_tokens(p.merge) + 6 * 706
    chat = 600 * describe + said.memberships.likely * memberships + said.merges.likely * merges
    assert said.prompt_tokens.likely == pytest.approx(chat + 600 * 80)
    assert said.reply_tokens.likely == pytest.approx(600 * 80 + said.questions.likely * 60)
    cost = chat * 2.5e-6 + said.reply_tokens.likely * 10e-6 + 600 * 80 * 0.02e-6
    assert said.cost.likely == pytest.approx(cost)
    assert said.seconds.likely == pytest.approx((600 * 2.3 + said.questions.likely * 2 * 1.13) / 32)


def test_what_was_measured_is_used():
    took = {
        "describe": Usual(1016.0, 20.0, 1.0, 300),
        "membership": Usual(4000.0, 30.0, 3.0, 100),
        "embed": Usual(0.0, 0.0, 0.1, 300),
    }
    plain, said = estimate(job()), estimate(job(usual=took))
    assert said.measured == 400 and plain.measured == 0
    item = 1016 - 10 - text_tokens(shipped_set("suit").describe)
    merges = 10 + text_tokens(shipped_set("suit").merge) + 6 * item
    expected = 600 * 1016 + 600 * 20 + said.memberships.likely * 4000 + said.merges.likely * merges
    assert said.prompt_tokens.likely == pytest.approx(expected)
    questions = said.memberships.likely * 3.0 + said.merges.likely * 1.5
    assert said.seconds.likely == pytest.approx((600 * 1.1 + questions * 1.13) / 32)
    assert "from 400 calls of this model" in "\n".join(said.lines())
    assert "no call of this model" in "\n".join(plain.lines())


def test_several_candidates_in_a_call_are_fewer_and_larger_calls():
    one, four = estimate(job()), estimate(job(candidates=4))
    assert four.memberships.likely == pytest.approx(one.memberships.likely * 1.5 / 4, abs=1)
    assert four.memberships.high > one.memberships.high / 4
    assert four.merges == one.merges
    assert four.prompt_tokens.likely < one.prompt_tokens.likely


def test_policy_paper_waits_for_one_answer_at_a_time():
    said = estimate(job(policy="paper"))
    assert said.seconds.high > said.questions.high * 2.0
    assert estimate(job(policy="paper", concurrency=1)).seconds.low >= said.calls.low * 2.0


def test_budgets():
    said = estimate(job(max_calls=300, max_cost=1000.0))
    calls, cost = said.budgets
    assert (calls.verdict, calls.described, calls.questions) == ("short", 0.5, 0.0)
    assert cost.verdict == "enough"
    assert "about 300 of 600 items are described" in said.lines()[-2] and "resumed" in said.lines()[-2]
    half = estimate(job(max_calls=600 + round(said.questions.likely / 2)))
    assert half.budgets[0].described == 1 and half.budgets[0].questions == pytest.approx(0.5, abs=0.01)
    assert "50% of the questions" in half.lines()[-1]
    likely = estimate(job(max_cost=said.cost.likely * 1.01)).budgets[0]
    assert (likely.verdict, likely.described) == ("probably", 1.0)
    assert estimate(job(max_calls=round(said.calls.high))).budgets[0].verdict == "enough"
    assert "next to nothing" in estimate(job(max_calls=0)).lines()[-1]
    nothing = estimate(job(max_calls=0, max_cost=0.0))
    assert [(b.verdict, b.described) for b in nothing.budgets] == [("short", 0.0)] * 2
    free = estimate(job(price=FREE, embed_price=FREE, max_cost=0.0))
    assert free.budgets[0].verdict == "enough" and free.cost == Span(0, 0, 0)


def test_words_for_people():
    assert [count(n) for n in (7, 999, 1234.0, 56_789, 1_234_567, 2.5e9)] == [
        "7", "999", "1,230", "56,800", "1.23 million", "2.5 billion",
    ]  # fmt: skip
    assert [money(x, "USD") for x in (0, 0.004, 1.234, 12345.6)] == [
        "nothing", "under 0.01 USD", "1.23 USD", "12,345.60 USD",
    ]  # fmt: skip
    assert [duration(s) for s in (0.2, 89.5, 100, 3000, 9000, 400_000)] == [
        "1 s", "90 s", "2 min", "50 min", "2 h", "5 days",
    ]  # fmt: skip
    said = estimate(job(price=ASSUMED, failed=3, distinct=590, remarks=("no price of x is known",)))
    text = "\n".join(said.lines())
    assert "can't be used and are left out: 3" in text and "asked about once: 10" in text and "no price of x" in text


# -- the command ------------------------------------------------------------------------------------------------------


def expect(collection, *words):
    return ("estimate", collection, "--by", "kind", *words, "--json")


def test_it_asks_nobody_and_writes_nothing(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    done = cli(*expect(folder, "--endpoint", truth.url, "--max-calls", 70, "--max-cost", 5))
    assert done.code == 0, done.err
    said = done.json
    assert said["items"] == 60 and said["failed_items"] == 0 and said["measured"] == 0
    assert said["calls"]["describe"] == said["calls"]["embed"] == 60
    assert said["calls"]["total"]["likely"] == 60 + said["calls"]["questions"]["likely"]
    assert said["cost"]["currency"] == "USD"
    assert said["cost"]["price"] == {"input": 2.5, "output": 10.0, "known": False}
    assert set(said["tokens"]) == {"prompt", "completion", "total"} and set(said["seconds"]) == {
        "low",
        "likely",
        "high",
    }
    assert said["budget"]["max_calls"]["verdict"] == "short" and said["budget"]["max_cost"]["verdict"] == "enough"
    assert truth.served == 0
    assert not (tmp_path / "partita.db").exists()
    assert cli(*expect(folder, "--endpoint", truth.url, "--db", "sqlite:///a/b/c.db")).code == 0
    assert not (tmp_path / "a").exists()


def test_it_learns_from_what_was_measured_and_holds(any_cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    assert any_cli(*run(folder, truth)).code == 0
    asked, served = len(truth.asked), truth.served
    words = ("--endpoint", truth.url, "--model", "truth", "--embed-mode", "native", "--policy", "paper")
    said = any_cli(*expect(folder, *words)).json
    calls = any_cli("show", "s", "--json").json["calls"]
    chat = calls["describe"] + calls["membership"] + calls["merge"]
    assert said["measured"] == chat
    assert said["calls"]["describe"] == calls["describe"] and said["calls"]["embed"] == calls["embed"]
    assert said["calls"]["total"]["low"] <= chat <= said["calls"]["total"]["high"]
    # The endpoint counts 90 and 10 tokens for every question and 1 for an embedding.
    assert said["tokens"]["completion"]["likely"] == 10 * said["calls"]["total"]["likely"]
    assert said["tokens"]["prompt"]["likely"] == 90 * said["calls"]["total"]["likely"] + 60
    assert any_cli(*expect(folder, "--endpoint", truth.url, "--model", "another")).json["measured"] == 0
    assert (len(truth.asked), truth.served) == (asked, served)
    assert len(any_cli("sessions", "--json").out.splitlines()) == 1


def test_the_collection_is_read_as_run_does(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    shutil.copy(folder / "images" / "0000.png", folder / "copy.png")
    (folder / "zero.png").touch()
    said = cli(*expect(folder, "--endpoint", URL)).json
    assert (said["items"], said["calls"]["describe"], said["failed_items"]) == (61, 60, 1)
    shown = cli("estimate", folder, "--by", "kind", "--endpoint", URL)
    assert shown.code == 0 and "left out: 1" in shown.out and "asked about once: 1" in shown.out
    assert "likely" in shown.out and "--model" in shown.out and ".config/partita/prices.yaml" in shown.out
    (tmp_path / "texts.csv").write_text("text\n" + "".join(f"{'word ' * 80}{i}\n" for i in range(20)))
    texts = cli(*expect(tmp_path / "texts.csv", "--endpoint", URL)).json
    assert texts["items"] == 20 and texts["tokens"]["prompt"]["likely"] > 20 * 100


def test_prices_are_the_users_first(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    words = expect(folder, "--endpoint", URL, "--model", "gpt-4o", "--embed-model", "text-embedding-3-small")
    assert cli(*words).json["cost"]["price"] == {"input": 2.5, "output": 10.0, "known": True}
    (tmp_path / "home" / "partita").mkdir(parents=True)
    (tmp_path / "home" / "partita" / "prices.yaml").write_text("prices: {'gpt-*': {input: 1, output: 2}}")
    own = cli(*words, XDG_CONFIG_HOME=str(tmp_path / "home")).json["cost"]
    assert own["price"] == {"input": 1.0, "output": 2.0, "known": True}
    assert 0 < own["likely"] < cli(*words).json["cost"]["likely"]
    (tmp_path / "free.yaml").write_text("prices: {'*': {input: 0, output: 0}}")
    named = {"XDG_CONFIG_HOME": str(tmp_path / "home"), "PARTITA_PRICES": str(tmp_path / "free.yaml")}
    assert cli(*words, **named).json["cost"]["likely"] == 0
    refused(cli(*words, PARTITA_PRICES=str(tmp_path / "none.yaml")), 2, "none.yaml", "PARTITA_PRICES")
    (tmp_path / "bad.yaml").write_text("prices: {m: {input: -1, output: 0}}")
    refused(cli(*words, PARTITA_PRICES=str(tmp_path / "bad.yaml")), 2, "prices.m.input", "negative")


def test_the_built_in_model_is_free(cli, tmp_path):
    assert cli("examples", "cards", "--count", 12).code == 0
    done = cli("estimate", "cards", "--by", "suit", "--max-cost", 0)
    assert done.code == 0 and "nothing" in done.out and "should be enough" in done.out
    said = cli("estimate", "cards", "--by", "suit", "--json").json
    assert said["cost"]["likely"] == 0 and said["cost"]["price"]["known"]


def test_bad_input(cli, truth, tmp_path):
    folder = truth.write(tmp_path / "c")
    refused(cli(*expect(tmp_path / "nowhere", "--endpoint", URL)), 2, "nowhere", "folder of images")
    refused(cli("estimate", folder, "--by", " ", "--endpoint", URL), 2, "--by")
    refused(cli("estimate", folder, "--by", "the mood of the sky"), 2, "suit", "--endpoint")
    refused(cli(*expect(folder, "--endpoint", "ftp://x")), 2, "--endpoint")
    refused(cli(*expect(folder, "--endpoint", URL, "--prompts", "nonesuch")), 2, "nonesuch")
    refused(cli(*expect(folder, "--endpoint", URL, "--policy", "paper", "--candidates", 4)), 2, "--candidates")
    refused(cli(*expect(folder, "--endpoint", URL, "--representatives", 0)), 2, "--representatives")
    refused(cli(*expect(folder, "--endpoint", URL, "--max-cost", "nan")), 2, "--max-cost")
    refused(cli(*expect(folder, "--endpoint", URL, "--db", "mysql://x/y")), 2, "mysql")
    refused(cli(*expect(folder, "--endpoint", URL, "--db", "nonsense")), 2, "nonsense")
    assert cli(*expect(folder, "--max-calls", -1)).code == 2
    assert not (tmp_path / "partita.db").exists()
