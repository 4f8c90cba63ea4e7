"""What tokens cost: a table of prices by model that users can edit (``prices.yaml`` beside this file has the form)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graphs.budget import Cost
from partita.settings import EMBEDDED, LOCAL, Parameters
from storage.errors import UsageError

SHIPPED = Path(__file__).with_name("prices.yaml")
DEAR_INPUT, DEAR_OUTPUT = 2.50, 10.00
"""USD per million tokens, assumed for a model without a price: a dear model's, so that a cap on cost errs to the safe
side."""
UNCOUNTED = {"describe": (900, 100), "embed": (900, 0), "membership": (3500, 100), "merge": (5000, 100)}
"""(prompt, reply) tokens assumed for a call whose endpoint counts none: images of 768 pixels, 3 representatives."""
_MILLION = 1_000_000
_MAX_FILE = 256 * 1024
_FORM = "write `prices: {some-model: {input: 0.15, output: 0.60}}`, USD per million tokens"


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost, per million; ``known`` is False where it is assumed.

    ``cached`` is the price of prompt tokens that the endpoint had in its cache; without one they cost as others.
    """

    input: float
    output: float
    known: bool = True
    currency: Literal["USD"] = "USD"
    cached: float | None = None

    def cost(self, prompt_tokens: float, completion_tokens: float, cached_tokens: float = 0) -> float:
        """Cost of so many tokens, in ``currency``; ``cached_tokens`` are among those of the prompt."""
        cached = self.input if self.cached is None else self.cached
        prompt = (prompt_tokens - cached_tokens) * self.input + cached_tokens * cached
        return (prompt + completion_tokens * self.output) / _MILLION

    def cost_of_call(
        self, kind: str, prompt_tokens: int | None, completion_tokens: int | None, cached_tokens: int | None = None
    ) -> float:
        """Cost of one call; one whose tokens were not counted is not taken for free."""
        counted = (prompt_tokens or 0, completion_tokens or 0)
        return self.cost(*counted, cached_tokens or 0) if any(counted) else self.cost(*UNCOUNTED[kind])


FREE = Price(0.0, 0.0)
ASSUMED = Price(DEAR_INPUT, DEAR_OUTPUT, known=False)

_FAULTS = {
    "missing": "is missing",
    "extra_forbidden": "is no field of a table of prices",
    "greater_than_equal": "is negative",
    "finite_number": "is no finite number",
    "float_type": "is no number",
    "string_type": "is no name in quotes",
    "model_type": "is no price",
    "dict_type": "is no mapping of models to prices",
}
_Amount = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    input: _Amount
    output: _Amount
    cached: _Amount | None = None


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    written: datetime.date | None = None
    prices: dict[str, _Entry]

    def find(self, model: str) -> _Entry | None:
        """An exact name comes first, then the pattern with the most letters of its own."""
        names = {name.casefold(): entry for name, entry in self.prices.items()}
        for asked in dict.fromkeys((model.casefold(), model.casefold().rpartition("/")[2])):
            if asked in names:
                return names[asked]
            fitting = [name for name in names if fnmatchcase(asked, name)]
            if fitting:
                return names[max(fitting, key=lambda name: len(name) - name.count("*"))]
        return None


@dataclass(frozen=True, slots=True)
class Rates:
    """What the models that a session asks cost."""

    chat: Price
    embed: Price

    def of(self, kind: str) -> Price:
        """The price of the model that calls of this kind go to."""
        return self.embed if kind == "embed" else self.chat


@dataclass(frozen=True, slots=True)
class Prices:
    """The user's table over the shipped one."""

    tables: tuple[_Table, ...]
    own: Path | None
    """The user's file, whether it is there or not."""

    def of(self, model: str, *, endpoint: str) -> Price:
        """The price of a model at an endpoint: one on this machine is free, an unlisted one is assumed to be dear."""
        if endpoint in (EMBEDDED, LOCAL):
            return FREE
        for table in self.tables:
            if (entry := table.find(model)) is not None:
                return Price(entry.input, entry.output, cached=entry.cached)
        return ASSUMED

    def rates(self, p: Parameters) -> Rates:
        """The prices of a session's models, by the names under which they are asked."""
        chat = self.of(p.model or "", endpoint=p.endpoint)
        return Rates(chat, self.of(p.embed_model or "", endpoint=p.embed_endpoint or p.endpoint))

    def remark(self, model: str, price: Price) -> str | None:
        """What to tell the user of a price that is not known: what is assumed, and where to put it."""
        if price.known:
            return None
        where = self.own or "a file that PARTITA_PRICES names"
        return (
            f"no price of {model} is known: assumed {price.input:.2f} / {price.output:.2f} {price.currency} per "
            f"million tokens, as for a dear model; put its price into {where}"
        )


def own_file(named: str | None, config_home: str | None) -> Path:
    """Where the user's table is looked for.

    Args:
        named: what ``PARTITA_PRICES`` says. config_home: what ``XDG_CONFIG_HOME`` says.
    """
    if named:
        return Path(named).expanduser()
    return (Path(config_home) if config_home else Path("~/.config").expanduser()) / "partita" / "prices.yaml"


def find_prices(named: str | None, config_home: str | None) -> Prices:
    """The prices that hold for a user whose environment says so: a table that is named must be there."""
    return load_prices(own_file(named, config_home), must_exist=bool(named))


def load_prices(own: Path | None = None, *, must_exist: bool = False) -> Prices:
    """The shipped prices, and the user's own before them.

    Args:
        own: the user's table; one that isn't there adds nothing, unless it ``must_exist`` (the user has named it).

    Raises:
        UsageError: the user's table can't be read, or has a price that is none.
    """
    shipped = _shipped()
    if own is None or not (must_exist or own.exists()):
        return Prices((shipped,), own)
    return Prices((_read(own), shipped), own)


@cache
def _shipped() -> _Table:
    return _read(SHIPPED)


def _read(path: Path) -> _Table:
    try:
        if path.stat().st_size > _MAX_FILE:
            raise UsageError(f"{path}: larger than 256 KiB, which no table of prices is; {_FORM}")
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{path}: there is no such table of prices; correct PARTITA_PRICES, or unset it for the shipped prices"
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: can't be read as a UTF-8 text file ({e}); {_FORM}") from None
    except (yaml.YAMLError, ValueError) as e:  # a date such as 2026-99-99 is a ValueError
        mark = getattr(e, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(e, "problem", None) or "a value that is none"
        raise UsageError(f"{path}:{line} no valid YAML ({problem}); {_FORM}") from None
    if not isinstance(raw, Mapping):
        raise UsageError(f"{path}: not a mapping of fields; {_FORM}")
    try:
        return _Table.model_validate(raw)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "[key]")
        said = _FAULTS.get(first["type"], "is not what belongs there")
        raise UsageError(f"{path}: {where}: {said}; {_FORM}") from None


def call_cost(prices: Prices, p: Parameters) -> Cost:
    """What a call of this session costs, from the tokens that the endpoint counts."""
    rates = prices.rates(p)

    def cost(kind: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> float:
        return rates.of(kind).cost_of_call(kind, prompt_tokens, completion_tokens, cached_tokens)

    return cost
