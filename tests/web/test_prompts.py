"""Prompt sets on the page: seen, edited, checked, kept, compared, tried and drafted, with an endpoint over HTTP."""

from __future__ import annotations

import asyncio
import html
import re
from dataclasses import dataclass

import httpx
import pytest
from starlette.testclient import TestClient

from agents.prompt_sets import parse_prompts, shipped_set
from agents.prompt_yaml import to_yaml
from partita import cluster
from partita.prices import load_prices
from partita.web.app import build_app
from partita.web.desk import Desk
from partita.web.jobs import AT_ONCE, KEPT, Jobs
from storage.database import open_database
from storage.errors import UsageError
from storage.items import collection_from_rows
from storage.ledger import tally
from storage.prompts import Version, find, versions
from storage.sessions import SessionRecord, create_session, load_items, load_session
from tests.truth import Truth, numbers, serving

KEY = "canary-key-41c7"
HARM = "'\"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}"
OWN = "# mine\n" + "".join(
    f"{field}: {text}\n"
    for field, text in (
        ("name", "own"), ("criterion", "$criterion"), ("describe", "By $criterion, what is it?"),
        ("membership", "Contrary to $criterion? <CONCLUSION> YES </CONCLUSION>"), ("merge", "One? <CONCLUSION>"),
    )
)  # fmt: skip


class Held(Truth):
    """An endpoint that answers no question while it is shut."""

    shut = False

    async def chat(self, request):
        while self.shut:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return await super().chat(request)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An endpoint, and the URL of a database with the session `s`, which it judged."""
    folder = tmp_path_factory.mktemp("world")
    with serving(Held(numbers(24, 3), contrary="Contrary", key=KEY)) as truth, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARTITA_API_KEY", KEY)
        url = f"sqlite:///{folder}/partita.db"
        collection = truth.write(folder / "c")
        cluster(collection, "kind", session="s", db=url, endpoint=truth.url, embed_mode="native")
        yield truth, url


@dataclass
class Site:
    """The page over a database, in this process."""

    desk: Desk
    truth: Held
    client: TestClient
    number: int = 0

    def get(self, path: str, status: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        assert KEY not in answer.text and "<script>alert" not in answer.text and "<img src=x" not in answer.text
        return answer.text

    def post(self, path: str, status: int = 303, **fields: object) -> httpx.Response:
        answer = self.client.post(path, data=fields, follow_redirects=False)
        assert answer.status_code == status, answer.text
        assert KEY not in answer.text and "<script>alert" not in answer.text
        return answer

    def edit(self, do: str, text: str, status: int = 200, **fields: object) -> str:
        return self.post("/prompts/edit", status, do=do, text=text, **fields).text

    def keep(self, text: str, criterion: str = "") -> Version:
        at = self.post("/prompts/edit", do="keep", text=text, criterion=criterion).headers["location"]
        return find(self.desk.db, at.removeprefix("/prompts/"))

    def order(self, path: str, **fields: object) -> str:
        """Send a form that begins a job; its page."""
        self.number += 1
        return self.post(path, **{"number": f"a-number-{self.number}", "session": "s"} | fields).headers["location"]

    def ended(self, at: str) -> str:
        """What a job's page says when it has ended."""
        job = self.desk.jobs.get(at.rpartition("/")[2])
        assert job is not None and job.wait(30)
        return self.get(at)


@pytest.fixture
def site(world, monkeypatch):
    truth, url = world
    truth.key, truth.drafts, truth.shut = KEY, Truth.drafts, False
    monkeypatch.setenv("PARTITA_API_KEY", KEY)
    with open_database(url) as db:
        desk = Desk(db, load_prices())
        yield Site(desk, truth, TestClient(build_app(desk), raise_server_exceptions=False))
        truth.shut = False
        desk.jobs.end()


def written(page: str) -> str:
    """What is in the editor."""
    [text] = re.findall(r'<textarea name="text" rows[^>]*>\n(.*?)</textarea>', page, re.DOTALL)
    return html.unescape(text)


def another(site: Site, name: str, **parameters: object) -> None:
    """One more session over the collection of `s`, without answers."""
    s = load_session(site.desk.db, "s")
    found = collection_from_rows(s.collection, load_items(site.desk.db, s.id))
    given = s.parameters | parameters if parameters else {}
    create_session(site.desk.db, SessionRecord(name, "kind", "evidence", s.collection, given, status="done"), found)


# -- seen, compared ---------------------------------------------------------------------------------------------------


def test_versions_and_shipped_sets_are_listed_with_who_used_them(site):
    used = load_session(site.desk.db, "s").prompt_set_hash
    listed = site.get("/prompts")
    assert (
        'href="/prompts"' in site.get("/") and 'href="/prompts/suit"' in listed and f'href="/prompts/{used}"' in listed
    )
    assert used[:6] in listed and listed.count('used by <a href="/s/s"') == 2  # the version, and the set that ships
    one = site.get(f"/prompts/{used[:7]}")
    assert '<a href="/s/s">' in one and f"/prompts/edit?from={used}" in one and "To describe an item" in one
    assert "$criterion" in site.get("/prompts/default") and "hearts" in site.get("/prompts/suit")
    for wrong in ("/prompts/nope", "/prompts/ffffffff", "/prompts/labels.csv"):
        site.get(wrong, status=400)


def test_two_are_compared_and_never_a_file(site, tmp_path, monkeypatch):
    kept = site.keep(OWN, "size").hash
    differs = site.get(f"/prompts/diff?which={kept}&which=default")
    assert "-name: default" in differs and "+name: own" in differs and 'href="/prompts/default"' in differs
    assert "the same words" in site.get("/prompts/diff?which=pose&which=pose")
    site.get("/prompts/diff?which=pose", status=400)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "abcd").write_text(OWN)
    assert "was kept or used" in site.get("/prompts/diff?which=abcd&which=pose", status=400)


# -- edited, checked, kept --------------------------------------------------------------------------------------------


def test_a_copy_is_edited_checked_and_kept(site):
    copy = written(site.get("/prompts/edit?from=suit"))
    assert parse_prompts(copy, None, "copy").name == "suit"
    assert written(site.get("/prompts/edit?session=s")).startswith("name: type")
    text = copy.replace("by suit?", "by suit, or not?")
    checked = site.edit("check", text, base="suit")
    assert "Fine" in checked and "What you changed" in checked and written(checked) == text
    version = site.keep(text.replace("\n", "\r\n"))
    assert (version.source, version.text, version.sessions) == ("page", text, ())
    assert "there already" in site.edit("check", text) and "kept here" in site.get(f"/prompts/{version.hash}")
    to = site.client.get(f"/prompts/fork?session=s&prompts={version.hash}", follow_redirects=False)
    assert to.headers["location"] == f"/s/s/fork?prompts={version.hash}"
    assert "or not?" in site.get(to.headers["location"])


def test_conclusions_that_no_reply_is_read_by_are_doubted(site):
    told = html.unescape(site.edit("check", OWN, criterion="c"))
    assert "Fine" in told and "But merge doesn't name both <CONCLUSION> YES </CONCLUSION> and" in told
    assert "But" not in site.edit("check", to_yaml(shipped_set("suit")))


def test_a_criterion_that_is_left_is_asked_for(site):
    assert "$criterion is left in it" in site.edit("check", OWN)
    assert "$criterion is left in it" in site.edit("keep", OWN, 400)
    assert site.keep(OWN, "how big").criterion == "how big"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [x", "line 1"),
        ("", "not a mapping"),
        (OWN.replace("merge", "mergre"), "mergre"),
        (OWN.replace("By $criterion", "By $kind"), "unknown variable $kind"),
        (OWN + "values: [&a x, *a, *a]", "line 7"),
        (OWN + "values: [&a [x], [*a, *a], " + "[" * 5000, "no valid YAML"),
        (OWN + 'values: ["\\0"]', "NUL"),
        ("!!python/object/apply:os.system [true]", "no valid YAML"),
        (OWN + "#" * 300_000, "256 KiB"),
        (HARM, "no valid YAML"),
        (f"{OWN}{HARM}: 1", "prompts"),
    ],
)
def test_what_is_wrong_is_said_and_the_text_stays(site, text, says):
    before = len(versions(site.desk.db))
    for do in ("check", "keep", "try"):
        told = site.edit(do, text, 400, session="s", criterion="c")
        assert says in html.unescape(told) and written(told) == text
    assert len(versions(site.desk.db)) == before


# -- tried ------------------------------------------------------------------------------------------------------------


def test_a_trial_is_planned_agreed_to_and_shown_beside_what_was(site):
    before, asked = tally(site.desk.db, load_session(site.desk.db, "s").id), len(site.truth.asked)
    planned = site.edit("try", OWN, session="s", items=3)
    assert "3 descriptions, 6 memberships, 1 merge: 10 calls to truth" in planned and "Ask 10 questions" in planned
    assert len(site.truth.asked) == asked and written(planned) == OWN
    [number] = re.findall(r'name="number" value="([^"]+)"', planned)
    at = site.order("/prompts/try", text=OWN, items=3, number=number)
    told = site.ended(at)
    assert site.order("/prompts/try", text=OWN, items=3, number=number) == at  # the same form again
    assert len(site.truth.asked) - asked == 10 and site.truth.sent_keys == {f"Bearer {KEY}"}
    assert "10 calls, 1,000 tokens" in told and 'class="verdict yes">YES' in told and "They differ." in told
    assert told.count('class="changed"') >= 3 and len(re.findall(r'<img src="/s/s/i/\d+/picture', told)) >= 15
    assert (
        'id="job"' in site.get(f"{at}/live") and written(site.get(f"/prompts/edit?job={at.rpartition('/')[2]}")) == OWN
    )
    assert tally(site.desk.db, load_session(site.desk.db, "s").id) == before
    fork = site.post("/prompts/edit", do="fork", text=OWN, criterion="kind", session="s").headers["location"]
    assert fork.startswith("/s/s/fork?prompts=") and f'href="{fork}"' in site.get(at)


def test_the_same_at_once_is_one_and_a_trial_can_be_stopped(site):
    site.truth.shut = True
    asked = len(site.truth.asked)
    text = OWN.replace("mine", "held")
    at = site.order("/prompts/try", text=text, items=2)
    assert site.order("/prompts/try", text=text, items=2) == at
    site.order("/prompts/try", text=text, items=5)
    refused = site.post("/prompts/try", 400, text=text, items=6, session="s", number="another-number")
    assert "running already" in refused.text and written(refused.text) == text
    running = site.get(at)
    assert f'data-live="{at}/live"' in running and "0 of 7" in running and "Look again" in running
    site.post(f"{at}/stop")
    assert "Stopped; there is no result" in site.ended(at) and len(site.truth.asked) == asked


def test_what_an_endpoint_says_is_words(site, monkeypatch):
    reply = Truth.reply
    monkeypatch.setattr(Truth, "reply", lambda self, content: (reply(self, content)[0], HARM + "\x1b[31m \u202e" * 400))
    told = site.ended(site.order("/prompts/try", text=OWN.replace("One?", "Hostile?"), items=2))
    assert "&lt;script&gt;alert(1)" in told and "\x1b" not in re.sub(r"<pre>.*?</pre>", "", told, flags=re.DOTALL)
    assert "unknown" in told


def test_an_endpoint_that_is_gone_or_refuses_is_told(site, monkeypatch):
    site.truth.key = "another"
    told = site.ended(site.order("/prompts/try", text=OWN, items=2))
    assert "It did not work" in told and "PARTITA_API_KEY" in told
    monkeypatch.setattr("serving.retries.QUICK_BACK_OFF", 0.001)
    another(site, "gone", endpoint="http://127.0.0.1:9/v1")
    told = site.ended(site.order("/prompts/try", text=OWN, items=2, session="gone"))
    assert "It did not work" in told and "127.0.0.1:9" in told and "Edit on" in told


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"session": "nobody"}, "no session"),
        ({"session": ""}, "choose a session"),
        ({"items": 7}, "2 to 6 items"),
        ({"number": "?"}, "load it again"),
        ({"text": "name: 1"}, "prompts"),
    ],
)
def test_what_can_not_be_tried_is_said_in_the_editor(site, fields, says):
    given = {"text": OWN, "items": 2, "session": "s", "number": "a-good-number"} | fields
    told = site.post("/prompts/try", 400, **given).text
    assert says in html.unescape(told) and written(told) == given["text"]


# -- drafted ----------------------------------------------------------------------------------------------------------


def test_a_draft_is_kept_and_opens_in_the_editor(site):
    assert 'value="s"' in site.get("/prompts/draft")
    at = site.order("/prompts/draft", criterion="kind of cells", shown=2)
    told = site.ended(at)
    opens = html.unescape(re.findall(r'data-then="([^"]+)"', told)[0])
    assert written(site.get(opens)).startswith('# Drafted by truth for "kind of cells"')
    version = find(site.desk.db, re.findall(r"from=(\w+)", opens)[0])
    assert version.source == "drafted" and "drafted by a model" in site.get("/prompts")
    assert "1 call, 100 tokens" in told and site.truth.asked[-1][0] == "draft"


def test_a_hostile_draft_is_words(site):
    site.truth.drafts = ('{"name": "x", "look_at": ["fur & claws"], "values": ["<img src=x>", "a &lt; b"]}',)
    told = site.ended(site.order("/prompts/draft", criterion=HARM, shown=0))
    opens = html.unescape(re.findall(r'data-then="([^"]+)"', told)[0])
    drafted = parse_prompts(written(site.get(opens)), None, "drafted")
    assert "fur & claws" in drafted.merge and HARM in drafted.merge
    assert "&lt;script&gt;alert(1)" in told and "&amp; claws" in site.get(f"/prompts/{drafted.hash}")
    site.get("/prompts")


def test_a_model_that_drafts_nothing_is_told(site):
    site.truth.drafts = ("I can't.",)
    told = site.ended(site.order("/prompts/draft", criterion="another", shown=0))
    assert "It did not work" in told and "gave 3 replies" in told


def test_the_built_in_model_drafts_nothing(site):
    another(site, "mini")
    assert '<option value="mini"' not in site.get("/prompts/draft")
    told = site.post("/prompts/draft", 400, criterion="suit", session="mini", number="a-good-number").text
    assert "built-in model" in told and "choose a session" in told
    assert "up to 500" in site.post("/prompts/draft", 400, session="s", number="a-good-number").text
    assert "never got to a model" in site.edit("try", OWN, 400, session="mini")


def test_without_sessions_there_is_still_the_editor(tmp_path):
    with open_database(f"sqlite:///{tmp_path}/new.db") as db:
        client = TestClient(build_app(Desk(db, load_prices())))
        assert "None yet" in client.get("/prompts").text and "--endpoint URL" in client.get("/prompts/draft").text
        edited = client.get("/prompts/edit").text
        assert written(edited).startswith("# What the agents ask") and "Try…" not in edited
        assert client.get("/prompts/job/never-was").status_code == 404


# -- jobs -------------------------------------------------------------------------------------------------------------


async def done(job):
    return job.number


def test_few_jobs_run_and_few_are_remembered():
    jobs = Jobs()

    async def forever(job):
        await asyncio.Event().wait()

    held = [jobs.order(f"held-job-{i}", i, None, forever) for i in range(AT_ONCE)]
    with pytest.raises(UsageError, match="running already"):
        jobs.order("one-too-many", "x", None, done)
    jobs.end()
    assert [job.state for job in held] == ["stopped"] * AT_ONCE
    for i in range(KEPT + 3):
        last = jobs.order(f"short-job-{i}", i, None, done)
        assert last.wait(10) and last.result == last.number
    there = [i for i in range(KEPT + 3) if jobs.get(f"short-job-{i}")]
    assert there == list(range(3, KEPT + 3)) and jobs.get("held-job-0") is None
