"""Everything that can be set about a run, in one place, checked at the door; nobody else reads the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from agents.questions import Sampling
from serving.llava.about import read_about
from serving.sentences import PACKAGED
from storage.errors import UsageError
from storage.urls import without_secrets

DEFAULT_DB = "sqlite:///.partita/partita.db"
EMBEDDED = "embedded"
"""The endpoint's name for the built-in model."""
BUILT_IN = "partita-mini"
"""The built-in model's name, under which its answers are in the ledger."""
LOCAL = "local"
"""The embedding endpoint's name for a sentence embedder on this machine."""


class Parameters(BaseModel):
    """What is stored with a session, so that ``resume`` needs nothing else. Holds no key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str = EMBEDDED
    """Base URL of the chat model, or ``embedded``."""
    model: str | None = None
    """Model at the endpoint; None until resolved: the first one it lists."""
    model_folder: str | None = None
    """Where the model behind ``embedded`` lies; None: the one that ships with Partita."""
    embed_endpoint: str | None = None
    """Where embeddings come from; None: the chat endpoint. ``local``: a sentence embedder on this machine."""
    embed_model: str | None = None
    """Model that embeds; None: the chat model, or the first of ``embed_endpoint``. The name alone of a local one."""
    embed_folder: str | None = None
    """Where a local sentence embedder lies; None: in the package of the ``text`` extra."""
    embed_mode: Literal["native", "caption"] | None = None
    """CONTRACT 5; None: native for the built-in model, otherwise caption."""
    policy: Literal["evidence", "paper"] = "evidence"
    """How the search is done (METHOD 7)."""
    representatives: int = Field(default=3, ge=1, le=16)
    """K of METHOD 4."""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """τ; None: the embedder's own, calibrated for foreign embeddings."""
    calibrate: bool = False
    """Calibrate τ even if the embedder has its own (``--threshold auto``)."""
    candidates: int = Field(default=1, ge=1, le=64)
    """B: candidates in one membership call; policy paper asks about one at a time."""
    window: int = Field(default=0, ge=0)
    """W: calls that the search may have outstanding (CONTRACT 6); policy paper has one in each component. 0 until the
    session begins, which chooses it."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    temperature: float = Field(default=0.2, ge=0, le=2)
    max_tokens: int = Field(default=2048, ge=1)
    longest_side: int = Field(default=768, ge=32, le=8192)
    """Images are sent with at most this many pixels on their longer side."""
    constrain: bool | None = None
    """Assessments are held to their form, where the endpoint can do that; None until the session begins."""
    concurrency: int = Field(default=32, ge=1, le=4096)
    """Calls in flight."""
    request_timeout: float = Field(default=120, gt=0)
    """Seconds for one try of a call."""

    @field_validator("endpoint", "embed_endpoint")
    @classmethod
    def _is_url(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None or url == EMBEDDED:
            return url
        if url == LOCAL:
            if info.field_name == "embed_endpoint":
                return url
            raise ValueError(
                "a local sentence embedder can't judge; name the agents' model with --endpoint URL, and embed with "
                "--embed-endpoint local"
            )
        if not re.match(r"https?://[^/\s]+", url):
            raise ValueError(
                f"{without_secrets(url)!r} is no http(s) URL; give an OpenAI-compatible API's base URL, or 'embedded'"
            )
        if re.match(r"https?://[^/]*@", url):
            key = "PARTITA_EMBED_API_KEY" if info.field_name == "embed_endpoint" else "PARTITA_API_KEY"
            raise ValueError(f"the URL holds a user name or password; leave it out and set {key}")
        if "?" in url or "#" in url:  # a key, perhaps: it must not get as far as a command line or an address
            raise ValueError("the URL has a query (?…) or a fragment (#…); give the base URL only")
        return url.rstrip("/")

    @field_validator("embed_mode")
    @classmethod
    def _can_embed_so(cls, mode: str | None, info: ValidationInfo) -> str | None:
        if mode == "native" and info.data.get("embed_endpoint") == LOCAL:
            raise ValueError("a local sentence embedder embeds texts only: leave it out, or give caption")
        return mode

    @field_validator("candidates")
    @classmethod
    def _one_at_a_time(cls, candidates: int, info: ValidationInfo) -> int:
        if candidates != 1 and info.data.get("policy") == "paper":
            raise ValueError("policy paper asks about one candidate at a time: leave it out, or give 1")
        return candidates

    @property
    def sampling(self) -> Sampling:
        """How the chat model is asked, once it is known which it is."""
        assert self.model is not None
        return Sampling(
            self.model, self.temperature, self.max_tokens, self.seed, self.longest_side, constrain=bool(self.constrain)
        )

    @property
    def embeds_natively(self) -> bool:
        """Whether embeddings come from the chat form of CONTRACT 5."""
        if self.embed_mode:
            return self.embed_mode == "native"
        return self.endpoint == EMBEDDED and self.embed_endpoint != LOCAL


class Environment(BaseModel):
    """What the environment says. Keys go to the endpoints and nowhere else (``partita.keys``)."""

    model_config = ConfigDict(frozen=True)

    db: str = DEFAULT_DB
    endpoint: str | None = None
    model: str | None = None
    api_key: SecretStr | None = None
    """The chat endpoint's key, by Partita's own name for it."""
    api_key_file: str | None = None
    openai_api_key: SecretStr | None = None
    """Stands in where there is no other."""
    embed_api_key: SecretStr | None = None
    """The embedding endpoint's, where that is another one."""
    embed_api_key_file: str | None = None
    prices: str | None = None
    """The user's table of prices."""
    config_home: str | None = None
    follows: bool = False
    """Another process of several, which torchrun has started together, leads and shows what is done."""


def read_environment(environ: Mapping[str, str] = os.environ) -> Environment:
    """Settings from ``PARTITA_*`` (and ``OPENAI_API_KEY``)."""

    def secret(name: str) -> SecretStr | None:
        key = environ.get(name, "").strip()
        return SecretStr(key) if key else None

    return Environment(
        db=environ.get("PARTITA_DB") or DEFAULT_DB,
        endpoint=environ.get("PARTITA_ENDPOINT") or None,
        model=environ.get("PARTITA_MODEL") or None,
        api_key=secret("PARTITA_API_KEY"),
        api_key_file=environ.get("PARTITA_API_KEY_FILE") or None,
        openai_api_key=secret("OPENAI_API_KEY"),
        embed_api_key=secret("PARTITA_EMBED_API_KEY"),
        embed_api_key_file=environ.get("PARTITA_EMBED_API_KEY_FILE") or None,
        prices=environ.get("PARTITA_PRICES") or None,
        config_home=environ.get("XDG_CONFIG_HOME") or None,
        follows=environ.get("RANK", "0") != "0",
    )


def make_parameters(given: Mapping[str, Any], base: Parameters | None = None) -> Parameters:
    """Parameters from options; options that are None keep their default (or what ``base`` says).

    Raises:
        UsageError: an option's value is out of range; names the option.
    """
    values = base.model_dump() if base else {}
    values |= {k: v for k, v in given.items() if v is not None}
    if values.get("embed_endpoint") == LOCAL and given.get("embed_model") not in (None, PACKAGED):
        folder = Path(given["embed_model"]).expanduser().absolute()
        # Its name is part of every embedding's key, not its place: a session goes on where the folder lies elsewhere.
        values |= {"embed_folder": str(folder), "embed_model": folder.name}
    values |= _folder_of(values, given)
    match values.get("threshold"):
        case "auto":
            values |= {"threshold": None, "calibrate": True}
        case str(text):
            try:
                values["threshold"] = float(text)
            except ValueError:
                raise UsageError(f"--threshold {text}: give a number between 0 and 1, or 'auto'") from None
    try:
        return Parameters.model_validate(values)
    except ValidationError as e:
        first = e.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        if first["type"] == "value_error":
            raise UsageError(f"{option}: {first['msg'].removeprefix('Value error, ')}") from None
        wanted = first["msg"].replace("Input should be", "it should be").replace("Input", "it")
        field = Parameters.model_fields.get(str(first["loc"][0]))
        if field is not None and (words := _range(field.metadata)):
            wanted = f"give a number {words}"
        raise UsageError(f"{option} {first['input']}: {wanted}") from None


def _folder_of(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The folder and name of a model that ``embedded`` is to be, where an option names a folder."""
    for endpoint, option in (("endpoint", "model"), ("embed_endpoint", "embed_model")):
        named = given.get(option)
        if values.get(endpoint, EMBEDDED if option == "model" else None) != EMBEDDED or named is None:
            continue
        folder = Path(named).expanduser().absolute()
        if folder.is_dir():
            # As with a sentence embedder, its name is part of every question's key, not its place.
            return {"model_folder": str(folder), option: read_about(folder).name}
        if named != BUILT_IN:
            raise UsageError(
                f"--{option.replace('_', '-')} {named}: there is no such folder, and the built-in model is {BUILT_IN}"
            )
    return {}


def _range(constraints: Sequence[Any]) -> str:
    """What a number may be, in words; empty without constraints."""
    names = ("ge", "gt", "le", "lt")
    bound = {name: getattr(c, name) for c in constraints for name in names if hasattr(c, name)}
    match bound:
        case {"ge": low, "le": high}:
            return f"from {low} to {high}"
        case {"ge": low, "lt": beyond}:
            return f"from {low} to {beyond - 1}"
        case {"gt": low, "lt": high}:
            return f"between {low} and {high}"
        case {"ge": low}:
            return f"of at least {low}"
        case {"gt": low}:
            return f"above {low}"
    return ""
