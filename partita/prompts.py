"""Which prompt set is meant, and its versions: a file, a shipped set, or one that was kept or used, by its hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agents.prompt_sets import (
    SHIPPED,
    PromptSet,
    is_file,
    parse_prompts,
    prompt_text,
    set_for_criterion,
    shipped_names,
    shipped_set,
)
from agents.prompt_yaml import differences, to_yaml
from storage import prompts as stored
from storage.database import Database, is_there, open_database
from storage.errors import PromptError
from storage.prompts import Source, Version, find, is_hash


@dataclass(frozen=True, slots=True)
class Chosen:
    """A prompt set, and where it came from."""

    prompts: PromptSet
    source: Source | None
    """None for a version that is in the database already."""
    text: str | None = None
    """The YAML of a file."""

    def kept_in(self, db: Database) -> bool:
        """Keep it as a version; whether it is a new one."""
        if self.source is None:
            return False
        return stored.keep(db, self.prompts.hash, self.prompts.model_dump(mode="json"), self.source, self.text)


def choose(db: Database | None, criterion: str | None, named: str | None, *, files: bool = True) -> Chosen:
    """The prompt set that a user names: a file, a shipped name, a version's hash; None: that of the criterion.

    Args:
        db: where versions are; None: there are none.
        criterion: what ``$criterion`` stands for; None: a set that has it is refused.
        files: a name may be a file's; False for names that come from elsewhere.

    Raises:
        PromptError: there is none of that name, or it is not valid.
    """
    if named is None:
        return Chosen(set_for_criterion(criterion or ""), "shipped")
    if named in shipped_names():
        return Chosen(_shipped(named, criterion), "shipped")
    if files and is_file(named):
        text = prompt_text(Path(named))
        return Chosen(parse_prompts(text, criterion, named), "file", text)
    if is_hash(named):
        if db is None:
            raise PromptError(f"no prompt set with the hash {named!r} is known: there is no database yet; see --db")
        return Chosen(prompts_of(find(db, named)), None)
    return Chosen(_shipped(named, criterion), "shipped")  # says what there is


def choose_at(url: str, criterion: str | None, named: str | None) -> Chosen:
    """The same, for whom no database is open: the one at `url` is opened only for a hash, and not made."""
    if named is None or not is_hash(named) or named in shipped_names() or is_file(named) or not is_there(url):
        return choose(None, criterion, named)
    with open_database(url) as db:
        return choose(db, criterion, named)


def keep_text(
    db: Database, text: str, criterion: str | None, source: Source, where: str = "prompts"
) -> tuple[PromptSet, bool]:
    """Keep what somebody wrote as a version; the set, and whether it is new.

    Args:
        criterion: what ``$criterion`` in it stands for.
        where: what the text is called in errors.

    Raises:
        PromptError: it is no valid set; nothing was kept.
    """
    prompts = parse_prompts(text, criterion, where)
    return prompts, Chosen(prompts, source, text).kept_in(db)


def prompts_of(version: Version) -> PromptSet:
    """A version as a prompt set.

    Raises:
        PromptError: it is none: the session is of another Partita.
    """
    return stored_set(version.prompt_set, version.hash)


def stored_set(stored: Mapping[str, Any], hashed: str) -> PromptSet:
    """A prompt set as the database has it.

    Raises:
        PromptError: it is none: the session is of another Partita.
    """
    try:
        return PromptSet.model_validate(stored)
    except ValidationError:
        raise PromptError(f"the prompt set {hashed} is not one that this version of Partita can read") from None


def yaml_of(version: Version) -> str:
    """A version as YAML that gives the same set: as it was written, or else as we write it.

    What was written with ``$criterion`` in it is another set for another criterion, so that is filled in.
    """
    prompts = prompts_of(version)
    if version.text is not None:
        try:
            if parse_prompts(version.text, None, version.hash).hash == version.hash:
                return version.text if version.text.endswith("\n") else version.text + "\n"
        except PromptError:
            pass
    return to_yaml(prompts, f"The prompt set {version.hash}.")


def shipped_yaml(name: str) -> str:
    """A shipped set as it is written, comments included.

    Raises:
        PromptError: there is none of that name.
    """
    shipped_set(name, "$criterion")
    return (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def compare(
    db: Database | None, one: str, other: str, criterion: str | None = None, *, files: bool = True
) -> list[str]:
    """What differs between two sets, each a file, a shipped name or a hash: the lines of a unified diff.

    Without a criterion, ``$criterion`` stands for that of the one that is a version, if one is.

    Args:
        files: a name may be a file's; False for names that come from elsewhere.

    Raises:
        PromptError: one of them is not there, or not valid.
    """
    if criterion is None and db is not None:
        hashes = [named for named in (one, other) if is_hash(named) and not (files and is_file(named))]
        criterion = find(db, hashes[0]).criterion if hashes else None
    sets = [choose(db, criterion or _VARIABLE, named, files=files).prompts for named in (one, other)]
    lines = differences(sets[0], sets[1], (one, other))
    return lines if criterion else [line.replace(f"${_VARIABLE}", _VARIABLE) for line in lines]


_VARIABLE = "$criterion"


def _shipped(name: str, criterion: str | None) -> PromptSet:
    if criterion is None and name in shipped_names():
        return parse_prompts(shipped_yaml(name), None, name)
    return shipped_set(name, criterion)
