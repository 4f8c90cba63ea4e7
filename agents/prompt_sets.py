"""Prompt sets: what agents ask under one criterion, as validated YAML.

A set is a file with the instruction texts of the three questions (CONTRACT 4). ``$criterion`` in a text stands for the
words after ``--by``; any other variable is an error. The hash of the rendered text is stored with every answer.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import Template
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agents.conclusions import Conclusion, ending, named
from storage.errors import PromptError

QuestionKind = Literal["describe", "membership", "merge"]

SHIPPED = Path(__file__).parent / "prompts"
_MAX_FILE = 256 * 1024
TEMPLATES = ("criterion", "describe", "membership", "merge")
"""Fields in which ``$criterion`` is the criterion, and ``$$`` a dollar sign."""


class _WithoutAliases(yaml.SafeLoader):
    """Takes no aliases: with them a few bytes stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="an alias (*name): write the text out", problem_mark=mark)
        return super().compose_node(parent, index)


def prompt_hash(text: str) -> str:
    """The name under which an instruction text is stored and traced: 16 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class PromptSet(BaseModel):
    """The instructions of one criterion. Texts are rendered: no variable is left in them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """How the set is called: lower-case letters, digits, ``-`` and ``_``."""
    criterion: str = Field(min_length=1, max_length=2000)
    """The criterion in words."""
    describe: str = Field(min_length=1, max_length=20_000)
    """Asks for a description of one item under the criterion."""
    membership: str = Field(min_length=1, max_length=20_000)
    """Asks whether a candidate belongs with the representatives of a cluster."""
    merge: str = Field(min_length=1, max_length=20_000)
    """Asks whether two clusters are one."""
    aliases: tuple[str, ...] = ()
    """Other spellings of the criterion that choose this set."""
    values: tuple[str, ...] = ()
    """Values that the criterion is known to take; used to name clusters, never to limit them."""

    @field_validator("membership", "merge")
    @classmethod
    def _asks_for_a_conclusion(cls, text: str) -> str:
        if not re.search(r"<CONCLUSION>", text):
            raise ValueError(
                "must tell the model to end with <CONCLUSION> YES </CONCLUSION> or <CONCLUSION> NO </CONCLUSION>; "
                "a reply without one counts as UNKNOWN"
            )
        return text

    @property
    def hash(self) -> str:
        """Hash of the whole set, the same wherever it was loaded from."""
        return prompt_hash(self.model_dump_json())

    def doubts(self) -> tuple[str, ...]:
        """What may keep replies from being read, a line each."""
        kinds: tuple[QuestionKind, ...] = ("membership", "merge")
        return tuple(
            f"{kind} doesn't name both {ending(Conclusion.YES)} and {ending(Conclusion.NO)}: "
            "what a model ends otherwise counts as UNKNOWN"
            for kind in kinds
            if len(named(self.instruction(kind))) < 2
        )

    def instruction(self, kind: QuestionKind) -> str:
        """The instruction text of a question of this kind."""
        return {"describe": self.describe, "membership": self.membership, "merge": self.merge}[kind]


def shipped_names() -> tuple[str, ...]:
    """Names of the sets that come with Partita, ``default`` first."""
    return ("default", *sorted(p.stem for p in SHIPPED.glob("*.yaml") if p.stem != "default"))


def read_prompt_file(path: Path, criterion: str | None) -> PromptSet:
    """The prompt set in a YAML file, rendered for a criterion; raises what `prompt_text` and `parse_prompts` raise."""
    return parse_prompts(prompt_text(path), criterion, str(path))


def prompt_text(path: Path) -> str:
    """What is written in a prompt file.

    Raises:
        PromptError: the file is missing, too large, or no text.
    """
    try:
        if path.stat().st_size > _MAX_FILE:
            raise PromptError(f"{path}: larger than 256 KiB, which no prompt set is; give a YAML file with prompts")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PromptError(f"{path}: no such prompt file; `partita prompts list` shows the shipped sets") from None
    except (OSError, UnicodeDecodeError) as e:
        raise PromptError(f"{path}: can't be read as a UTF-8 text file ({e}); give a YAML file with prompts") from None


def parse_prompts(text: str, criterion: str | None, where: str) -> PromptSet:
    """The prompt set that is written in a text as YAML, rendered for a criterion.

    Args:
        criterion: what ``$criterion`` stands for; None: it is an error there.
        where: what the text is called in errors.

    Raises:
        PromptError: it is no YAML, lacks a field, or names an unknown variable.
    """
    if len(text) > _MAX_FILE:
        raise PromptError(f"{where}: longer than 256 KiB, which no prompt set is; give YAML with prompts")
    try:
        raw = yaml.load(text, _WithoutAliases)
    except (yaml.YAMLError, ValueError, RecursionError) as e:  # a date such as 2026-99-99 is a ValueError
        mark = getattr(e, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(e, "problem", None) or "syntax error"
        raise PromptError(
            f"{where}:{line} no valid YAML ({problem}); compare with `partita prompts show default`"
        ) from None
    if not isinstance(raw, Mapping):
        raise PromptError(f"{where}: not a mapping of fields; `partita prompts show default` shows the form")
    return _validated(raw, criterion, where)


def _validated(raw: Mapping[object, object], criterion: str | None, where: str) -> PromptSet:
    rendered: dict[str, object] = {}
    for field, value in raw.items():
        if isinstance(value, str) and field in TEMPLATES:
            template = Template(value)
            if not template.is_valid():
                raise PromptError(
                    f"{where}: {field}: a lone '$'; write '$$' for a dollar sign, $criterion for the criterion"
                )
            unknown = set(template.get_identifiers()) - {"criterion"}
            if unknown:
                raise PromptError(
                    f"{where}: {field}: unknown variable ${sorted(unknown)[0]}; only $criterion can be used"
                )
            if criterion is None and template.get_identifiers():
                raise PromptError(f"{where}: {field}: $criterion stands for a criterion: say which with --by CRITERION")
            value = template.substitute(criterion=criterion)
            if "\0" in value:
                raise PromptError(f"{where}: {field}: holds a NUL, which no database takes; remove it")
        rendered[str(field)] = value
    try:
        made = PromptSet.model_validate(rendered)
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(map(str, first["loc"])) or "file"
        fault = {"missing": "is missing", "extra_forbidden": "is no field of a prompt set"}.get(
            first["type"], first["msg"]
        )
        fault = fault.removeprefix("Value error, ")
        raise PromptError(f"{where}: {field}: {fault}; `partita prompts show default` shows the form") from None
    for plural, words in (("aliases", made.aliases), ("values", made.values)):
        if any("\0" in word for word in words):
            raise PromptError(f"{where}: {plural}: holds a NUL, which no database takes; remove it")
    return made


@cache
def shipped_set(name: str, criterion: str | None = None) -> PromptSet:
    """A set that comes with Partita, by its name; ``criterion`` fills the variable of the default set."""
    if name not in shipped_names():
        near = difflib.get_close_matches(name, shipped_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(shipped_names())}."
        raise PromptError(f"no prompt set is called {name!r}: {hint} Your own file works with --prompts FILE")
    return read_prompt_file(SHIPPED / f"{name}.yaml", criterion if criterion is not None else name)


def spelling(words: str) -> str:
    """A name of a criterion without what does not matter: case, punctuation, "by the" before it."""
    words = re.sub(r"[^\w]+", " ", words.casefold()).strip()
    return re.sub(r"^(by )?(the |its )?", "", words)


def set_for_criterion(criterion: str) -> PromptSet:
    """The shipped set whose name or alias is the criterion, otherwise ``default`` (CONTRACT 3)."""
    wanted = spelling(criterion)
    for name in shipped_names()[1:]:
        found = shipped_set(name)
        if wanted in {spelling(s) for s in (found.name, *found.aliases)}:
            return found
    return shipped_set("default", criterion)


def criterion_name(criterion: str) -> str:
    """What a criterion is called, however it is spelled: the name of its shipped set, otherwise its own words."""
    found = set_for_criterion(criterion)
    return found.name if found.name != "default" else spelling(criterion)


def is_file(prompts: str) -> bool:
    """Whether what a user names is meant as a file, and not as the name of a set."""
    return os.path.exists(prompts) or "/" in prompts or prompts.endswith((".yaml", ".yml"))  # noqa: PTH110 - never raises


def choose_prompt_set(criterion: str, prompts: str | None) -> PromptSet:
    """The set that a run uses: a file, a shipped name, or the one that matches the criterion."""
    if prompts is None:
        return set_for_criterion(criterion)
    if prompts in shipped_names() or not is_file(prompts):
        return shipped_set(prompts, criterion)
    return read_prompt_file(Path(prompts), criterion)
