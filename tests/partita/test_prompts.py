"""Versions of prompt sets, drafts and trials: from Python, and once from the command line, against an HTTP endpoint."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from agents.prompt_sets import parse_prompts, shipped_set
from partita import Session, cluster
from partita.drafting import draft, some_of
from partita.prices import Prices, load_prices
from partita.prompts import Chosen, choose, choose_at, compare, keep_text, yaml_of
from partita.settings import Parameters
from partita.trying import plan_trial, try_prompts
from partita.verbs import cli as front_door
from storage.database import open_database
from storage.errors import EndpointMisbehaves, LimitTooLow, PromptError, UsageError
from storage.items import scan
from storage.prompts import find, versions
from storage.sessions import load_session
from storage.tables import answers
from tests.partita.test_bad_input import refused
from tests.truth import Truth, numbers, serving

OWN = "# mine\n" + "".join(
    f"{field}: {text}\n"
    for field, text in (
        ("name", "own"), ("criterion", "$criterion"), ("describe", "By $criterion, what is it?"),
        ("membership", "Contrary to $criterion? <CONCLUSION> YES </CONCLUSION>"), ("merge", "One? <CONCLUSION>"),
    )
)  # fmt: skip


class World:
    """A session of 40 items that an endpoint judged."""

    def __init__(self, folder, truth):
        self.folder, self.truth = truth.write(folder / "c"), truth
        self.db = f"sqlite:///{folder}/partita.db"
        asked = {"endpoint": truth.url, "embed_mode": "native", "db": self.db}
        self.result = cluster(self.folder, "kind", session="s", **asked)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with serving(Truth(numbers(40, 4), contrary="Contrary")) as truth:
        yield World(tmp_path_factory.mktemp("world"), truth)


@pytest.fixture
def db(world):
    with open_database(world.db) as database:
        yield database


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    return path


def drafting(truth, items=(), prices: Prices | None = None):
    parameters = Parameters(endpoint=truth.url, embed_endpoint="http://127.0.0.1:9/never")
    return asyncio.run(draft("kind of cells", parameters, items=items, prices=prices))


# -- versions ---------------------------------------------------------------------------------------------------------


def test_a_run_keeps_the_version_it_uses(world, db):
    [used] = [version for version in versions(db) if "s" in version.sessions]
    assert (used.source, used.hash) == ("shipped", load_session(db, "s").prompt_set_hash)
    assert yaml_of(used).startswith(f"# The prompt set {used.hash}")
    assert parse_prompts(yaml_of(used), None, "shown").hash == used.hash


def test_a_fork_keeps_the_file_as_it_was_written_and_a_hash_names_it(world, db, own):
    made = Session("s", world.db).fork(str(own), session="forked")
    kept = find(db, load_session(db, made.name).prompt_set_hash)
    assert (kept.source, kept.text, kept.sessions, kept.criterion) == ("file", OWN, ("forked",), "kind")
    assert "$criterion" not in yaml_of(kept) and parse_prompts(yaml_of(kept), None, "shown").hash == kept.hash
    again = Session("s", world.db).fork(kept.hash[:6], session="by-hash")
    assert load_session(db, again.name).prompt_set == load_session(db, made.name).prompt_set
    assert find(db, kept.hash).sessions == ("by-hash", "forked")
    assert choose_at(world.db, "whatever", kept.hash[:6]).prompts.hash == kept.hash
    assert choose(db, "whatever", kept.hash) == Chosen(choose(db, "kind", str(own)).prompts, None)


def test_what_was_written_is_shown_where_it_says_the_same(db):
    text = OWN.replace("$criterion", "price in $$")
    prompts, is_new = keep_text(db, text, None, "page")
    assert is_new and yaml_of(find(db, prompts.hash)) == text and prompts.criterion == "price in $"
    assert not keep_text(db, text, None, "file")[1]
    with pytest.raises(PromptError, match="--by"):
        keep_text(db, OWN, None, "page")


def test_two_sets_are_compared_whatever_they_are_named_by(world, db, own):
    lines = compare(db, "default", str(own))
    assert "-name: default" in lines and "+  By $criterion, what is it?" in lines
    used = load_session(db, "s").prompt_set_hash
    assert compare(db, "type", used[:8]) == [] == compare(None, "pose", "pose")
    prompts, _ = keep_text(db, OWN, "how $ it is", "file")
    assert any("how $$ it is" in line for line in compare(db, "default", prompts.hash))
    assert compare(db, str(own), prompts.hash) == []


@pytest.mark.parametrize(
    ("named", "says"), [("abcdef", "was kept"), ("defalt", "did you mean default"), ("none.yaml", "no such")]
)
def test_what_is_not_there_is_said(db, named, says):
    with pytest.raises(PromptError, match=says):
        choose(db, "kind", named)


def test_without_a_database_no_hash_is_known_and_none_is_made(tmp_path):
    with pytest.raises(PromptError, match="no database yet"):
        choose_at(f"sqlite:///{tmp_path}/none.db", "kind", "abcdef")
    assert choose_at(f"sqlite:///{tmp_path}/none.db", "kind", None).prompts == shipped_set("type")
    assert list(tmp_path.iterdir()) == []


# -- drafts -----------------------------------------------------------------------------------------------------------


def test_a_draft_is_a_set_with_a_comment_that_says_whose_it_is(world):
    items = some_of(scan(world.folder).items, 4)
    made = drafting(world.truth, items)
    assert made.text.startswith('# Drafted by truth for "kind of cells" on 20')
    assert parse_prompts(made.text, None, "draft") == made.prompts
    assert "Look at the cells. Ignore the light." in made.prompts.merge and made.prompts.values == ("a", "b")
    assert (made.calls, made.tokens, made.price_known) == (1, 100, False) and made.cost > 0
    assert len({item.content_hash for item in items}) == 4


def test_a_reply_that_is_no_use_is_asked_about_again():
    with serving(Truth({}, drafts=("I can't.", '{"look_at": ["<CONCLUSION> YES"]}', '{"look_at": "ears"}'))) as truth:
        made = drafting(truth)
        assert made.calls == 3 and "Look at ears." in made.prompts.describe
        assert len({key for _, key in truth.asked}) == 3


def test_three_of_them_end_it():
    with serving(Truth({}, drafts=("I can't.",))) as truth:
        with pytest.raises(EndpointMisbehaves, match=r"3 replies .*`partita prompts show default"):
            drafting(truth)
        assert len(truth.asked) == 3


def test_too_many_pictures_are_said_to_be(world):
    with serving(Truth(world.truth.kinds, most_images=2)) as truth, pytest.raises(LimitTooLow, match="--show 2"):
        drafting(truth, some_of(scan(world.folder).items, 4))


@pytest.mark.parametrize("criterion", ["", "  ", "x" * 501, "a\x1bb"])
def test_a_criterion_that_is_none_asks_nobody(criterion):
    with pytest.raises(UsageError, match="what to cluster by"):
        asyncio.run(draft(criterion, Parameters(endpoint="http://127.0.0.1:9")))


# -- trials -----------------------------------------------------------------------------------------------------------


def ledger(db):
    with db.reading() as connection:
        return connection.execute(answers.select().order_by(answers.c.id)).all()


def test_a_trial_asks_a_dozen_and_leaves_the_session_alone(world, db, own):
    before, spend = ledger(db), Session("s", world.db).spend().to_json()
    since = len(world.truth.asked)
    plan = plan_trial(db, "s", choose(db, "kind", str(own)).prompts)
    assert plan.calls == len(plan.tried) == 11 and len(world.truth.asked) == since
    assert plan.line().startswith("4 descriptions, 6 memberships, 1 merge: 11 calls to truth")
    trial = asyncio.run(try_prompts(plan, prices=load_prices()))
    assert Counter(kind for kind, _ in world.truth.asked[since:]) == {"describe": 4, "membership": 6, "merge": 1}
    assert (trial.calls, trial.taken, trial.tokens) == (11, 0, 1100)
    assert ledger(db) == before and Session("s", world.db).spend().to_json() == spend

    home = {item: c.id for c in world.result.clusters for item in c.items}
    described = [one for one in trial.tried if one.kind == "describe"]
    assert len({home[one.candidates[0]] for one in described}) == 4
    assert all(one.before is not None and one.now is not None and one.now.text for one in described)
    judged = [one for one in trial.tried if one.kind == "membership"]
    assert [one.within for one in judged] == [True] * 3 + [False] * 3
    for one in judged:  # the endpoint answers these prompts the other way round
        assert one.clusters == (home[one.candidates[0]], home[one.representatives[0][0]])
        assert one.now is not None and one.now.conclusion == ("NO" if one.within else "YES")
        assert one.before is None or one.before.conclusion == one.expected
        assert one.candidates[0] not in one.representatives[0]
    assert trial.compared >= 4 and trial.changed == trial.compared - 1
    merge = trial.tried[-1]
    assert merge.now is not None and merge.now.conclusion == "NO" == merge.expected and not merge.changed
    assert json.loads(json.dumps(trial.to_json()))["changed"] == trial.changed


def test_what_the_ledger_has_is_not_asked_again(world, db):
    since = len(world.truth.asked)
    trial = Session("s", world.db).try_prompts("type")
    asked = world.truth.asked[since:]
    assert trial.calls == len(asked) == sum(one.before is None for one in trial.tried)
    assert trial.taken >= 8 and trial.changed == 0
    assert all(one.now == one.before for one in trial.tried if one.before is not None)


def test_the_items_may_be_named_and_the_choice_is_always_the_same(world, db):
    prompts = shipped_set("pose")
    name = world.result.clusters[-1].items[-1]
    plan = plan_trial(db, "s", prompts, chosen=[name, name])
    assert [one.candidates for one in plan.tried] == [(name,)] * 3 + [()]
    assert plan_trial(db, "s", prompts, items=7).tried == plan_trial(db, "s", prompts, items=7).tried
    with pytest.raises(UsageError, match="no item 'nobody'"):
        plan_trial(db, "s", prompts, chosen=["nobody"])


def test_the_least_certain_item_comes_first(world, db):
    plan = plan_trial(db, "s", shipped_set("pose"))
    sure = {i: p for c in world.result.clusters for i, p in zip(c.items, c.confidence or (), strict=True)}
    assert plan.tried[0].confidence == min(sure.values()) == sure[plan.tried[0].candidates[0]]


def test_before_there_are_clusters_items_are_described(world, tmp_path):
    url = f"sqlite:///{tmp_path}/p.db"
    with pytest.raises(Exception, match="budget"):
        cluster(world.folder, "kind", session="p", db=url, endpoint=world.truth.url, embed_mode="native", max_calls=5)
    with open_database(url) as db:
        plan = plan_trial(db, "p", shipped_set("pose"))
    assert [one.kind for one in plan.tried] == ["describe"] * 4 and "no clusters" in plan.notes[0]


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def verb(monkeypatch, tmp_path):
    """Runs `partita prompts` in this process, in a folder of its own with a database that isn't there."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("PARTITA_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PARTITA_DB", f"sqlite:///{tmp_path}/partita.db")
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: object):
        return CliRunner().invoke(front_door, ["prompts", *map(str, words)], catch_exceptions=False)

    return run


def test_versions_from_the_command_line(verb, own, tmp_path):
    assert "versions" not in verb("list").stdout and not (tmp_path / "partita.db").exists()
    with pytest.raises(PromptError, match="--by CRITERION"):
        verb("keep", own)
    assert "(own)" in verb("keep", own, "--by", "how [red]it[/] is\x1b[31m").stdout
    listed = verb("list").stdout
    assert "own, file" in listed and "how [red]it[/] is\\x1b[31m" in listed
    assert max(map(len, listed.splitlines())) <= 80
    [version] = json.loads(verb("list", "--json").stdout)["versions"]
    assert version["source"] == "file" and version["sessions"] == []
    assert parse_prompts(verb("show", version["hash"][:5]).stdout, None, "shown").hash == version["hash"]
    assert verb("show", "pose").stdout.startswith("# What the agents ask")
    diff = verb("diff", "default", version["hash"]).stdout
    assert "-name: default" in diff and "+name: own" in diff and "\x1b" not in diff
    for words in (("show", "ffff"), ("diff", "pose", "ffff")):
        with pytest.raises(PromptError, match="was kept or used here"):
            verb(*words)


def test_drafting_from_the_command_line(verb, world, tmp_path, monkeypatch):
    words = ("draft", "kind of cells", "--endpoint", world.truth.url)
    printed = verb(*words, "--collection", world.folder, "--show", 2)
    assert parse_prompts(printed.stdout, None, "stdout").name == "kind" and "1 call, 100 tokens" in printed.stderr
    assert "kept" not in printed.stderr and not (tmp_path / "partita.db").exists()
    monkeypatch.setenv("PARTITA_DB", world.db)
    written = verb(*words, "--to", "draft.yaml")
    assert written.stdout == "" and "written: draft.yaml" in written.stderr
    checked = verb("check", "draft.yaml")
    assert "fine" in checked.stdout and "note" not in checked.stderr
    sound = Path("draft.yaml").read_text()
    Path("broken.yaml").write_text(sound.replace("<CONCLUSION> NO", "<CONCLUSION NO"))
    for words_of_it in (("check", "broken.yaml"), ("keep", "broken.yaml")):
        assert "note: membership doesn't name both" in verb(*words_of_it).stderr
    [version] = [v for v in json.loads(verb("list", "--json").stdout)["versions"] if v["source"] == "drafted"]
    assert version["hash"] in written.stderr
    since = len(world.truth.asked)
    with pytest.raises(UsageError, match="not written over"):
        verb(*words, "--to", "draft.yaml")
    with pytest.raises(UsageError, match="--collection"):
        verb(*words, "--show", 3)
    assert len(world.truth.asked) == since


def test_trying_from_the_command_line(verb, world, own, monkeypatch):
    monkeypatch.setenv("PARTITA_DB", world.db)
    tried = verb("try", own, "s")
    assert "11 calls to truth" in tried.stderr
    assert "before  YES “They agree.”" in tried.stdout and "now     NO “They differ.”" in tried.stdout
    assert "verdicts changed" in tried.stdout and "11 calls, 1,100 tokens" in " ".join(tried.stdout.split())
    as_json = json.loads(verb("try", own, "s", "--items", 1, "--json").stdout)
    assert as_json["calls"] == len(as_json["tried"]) == 4 and as_json["name"] == "own"
    assert "from its ledger" in verb("try", "type", "s").stdout


def test_the_built_in_model_drafts_nothing(cli):
    refused(cli("prompts", "draft", "breed of the dog"), 2, "built-in model can't write prompts")
