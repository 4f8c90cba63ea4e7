"""Prices: the user's before the shipped, an assumed one for the rest, and one clear line for a table that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from partita.prices import ASSUMED, DEAR_INPUT, DEAR_OUTPUT, FREE, SHIPPED, Price, load_prices, own_file
from storage.errors import UsageError

URL = "https://api.example.com/v1"


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    return path


def test_shipped_prices():
    prices = load_prices()
    assert prices.of("gpt-4o", endpoint=URL) == Price(2.5, 10.0)
    assert prices.of("gpt-4o-2024-08-06", endpoint=URL) == Price(2.5, 10.0)
    assert prices.of("GPT-4o-mini-2024-07-18", endpoint=URL) == Price(0.15, 0.6)
    assert prices.of("openai/gpt-4.1-mini", endpoint=URL) == Price(0.4, 1.6)
    assert not prices.of("gpt-4o-audio-preview", endpoint=URL).known
    assert "out of date" in SHIPPED.read_text() and "written:" in SHIPPED.read_text()


def test_cost_is_by_the_million():
    price = Price(2.0, 8.0)
    assert price.cost(1_000_000, 0) == 2.0
    assert price.cost(500_000, 250_000) == pytest.approx(3.0)
    assert FREE.cost(10**9, 10**9) == 0 and FREE.known


def test_a_call_that_was_not_counted_is_not_free():
    price = Price(2.0, 8.0)
    assert price.cost_of_call("merge", 100, 0) == price.cost(100, 0)
    for kind in ("describe", "embed", "membership", "merge"):
        assert price.cost_of_call(kind, None, None) == price.cost_of_call(kind, 0, 0) > 0
        assert FREE.cost_of_call(kind, None, None) == 0


def test_what_was_cached_has_a_price_of_its_own(tmp_path):
    prices = load_prices(own(tmp_path, "prices: {m: {input: 2, output: 8, cached: 0.5}, n: {input: 2, output: 8}}"))
    with_cache, without = prices.of("m", endpoint=URL), prices.of("n", endpoint=URL)
    assert with_cache.cost_of_call("merge", 1_000_000, 0, 400_000) == pytest.approx(0.6 * 2 + 0.4 * 0.5)
    assert without.cost_of_call("merge", 1_000_000, 0, 400_000) == 2
    assert with_cache.cost_of_call("merge", 0, 0, 0) == without.cost_of_call("merge", None, None)


def test_an_unlisted_model_is_dear_and_says_where_its_price_goes(tmp_path):
    prices = load_prices(tmp_path / "prices.yaml")
    price = prices.of("home-made", endpoint=URL)
    assert price == ASSUMED and (price.input, price.output, price.known) == (DEAR_INPUT, DEAR_OUTPUT, False)
    said = prices.remark("home-made", price)
    assert said is not None and "home-made" in said and str(tmp_path / "prices.yaml") in said
    assert prices.remark("gpt-4o", prices.of("gpt-4o", endpoint=URL)) is None


def test_the_users_table_comes_first(tmp_path):
    text = "prices: {gpt-*: {input: 1, output: 2}, '*': {input: 0.5, output: 0}, gpt-4o-x: {input: 7, output: 7}}"
    prices = load_prices(own(tmp_path, text))
    assert prices.of("gpt-4o", endpoint=URL) == Price(1, 2)
    assert prices.of("gpt-4o-x", endpoint=URL) == Price(7, 7)
    assert prices.of("claude-sonnet-4-5", endpoint=URL) == Price(0.5, 0)
    assert prices.of("gpt-4o", endpoint="embedded") == FREE


def test_where_the_users_table_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert own_file("~/p.yaml", "/etc/mine") == Path("/home/me/p.yaml")
    assert own_file(None, "/etc/mine") == Path("/etc/mine/partita/prices.yaml")
    assert own_file("", "") == Path("/home/me/.config/partita/prices.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prices: {m: {input: -1, output: 0}}", "prices.m.input: is negative"),
        ("prices: {m: {input: cheap, output: 0}}", "prices.m.input: is no number"),
        ("prices: {m: {input: '1', output: 0}}", "prices.m.input: is no number"),
        ("prices: {m: {input: .nan, output: 0}}", "prices.m.input: is no"),
        ("prices: {m: {input: 1, output: .inf}}", "prices.m.output: is no finite number"),
        ("prices: {m: {input: true, output: 0}}", "prices.m.input: is no number"),
        ("prices: {m: {input: 1}}", "prices.m.output: is missing"),
        ("prices: {m: 5}", "prices.m: is no price"),
        ("prices: {m: {input: 1, output: 2, image: 3}}", "prices.m.image: is no field"),
        ("prices: {m: {input: 1, output: 2, cached: -3}}", "prices.m.cached: is negative"),
        ("prices: {4: {input: 1, output: 2}}", "prices.4: is no name in quotes"),
        ("m: {input: 1, output: 2}", "prices: is missing"),
        ("prices: [1, 2]", "prices: is no mapping"),
        ("written: yesterday\nprices: {}", "written: is not"),
        ("- a\n- b", "not a mapping"),
        ("", "not a mapping"),
        ("prices: {m: {input: 1", "line 1: no valid YAML"),
        ("written: 2026-99-99\nprices: {}", "no valid YAML"),
        ("prices: {m: !!python/object/apply:os.getcwd []}", "no valid YAML"),
    ],
)
def test_a_table_that_is_none(tmp_path, text, says):
    path = own(tmp_path, text)
    with pytest.raises(UsageError) as refused:
        load_prices(path)
    said = str(refused.value)
    assert says in said and str(path) in said and "some-model: {input:" in said and "\n" not in said


def test_a_table_that_can_not_be_read(tmp_path):
    with pytest.raises(UsageError, match="PARTITA_PRICES"):
        load_prices(tmp_path / "none.yaml", must_exist=True)
    (tmp_path / "latin.yaml").write_bytes("prices: {é: {input: 1, output: 2}}".encode("latin-1"))
    with pytest.raises(UsageError, match="UTF-8"):
        load_prices(tmp_path / "latin.yaml")
    with pytest.raises(UsageError, match="can't be read"):
        load_prices(tmp_path)
    (tmp_path / "long.yaml").write_text("#" * 300_000)
    with pytest.raises(UsageError, match="256 KiB"):
        load_prices(tmp_path / "long.yaml")
