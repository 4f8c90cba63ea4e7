"""Work that is started and stopped from the page: real processes against an endpoint that knows the truth."""

from __future__ import annotations

import asyncio
import html
import os
import re
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url
from starlette.testclient import TestClient

from partita import Session, cluster
from partita.prices import load_prices
from partita.web.app import build_app
from partita.web.desk import Desk
from partita.web.work import bounds_of
from storage.database import open_database
from storage.errors import Paused, UsageError
from storage.locks import is_locked, session_lock
from storage.prompts import versions
from storage.sessions import SessionRecord, create_session, list_sessions, load_session
from tests.truth import Truth, numbers, serving

KEY, PASSWORD = "canary-key-7d1f", "canary-password-2b9c"


class Held(Truth):
    """An endpoint that keeps whoever asks waiting from so many answers on."""

    at = 10**9

    async def chat(self, request):
        while len(self.asked) >= self.at:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return await super().chat(request)


@pytest.fixture
def truth():
    with serving(Held(numbers(40, 4), noise=1.2, error=0.05, key=KEY)) as t:
        yield t
        t.at = 10**9


@dataclass
class Site:
    """The page over a database, in this process."""

    desk: Desk
    client: TestClient
    url: str

    def get(self, path: str, status: int = 200) -> str:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    def post(self, path: str, status: int = 303, **fields: str) -> httpx.Response:
        answer = self.client.post(path, data=fields, follow_redirects=False)
        assert answer.status_code == status, answer.text
        return answer

    def record(self, name: str = "s") -> SessionRecord:
        return load_session(self.desk.db, name)

    def ended(self, name: str = "s") -> None:
        """Wait until what was started for a session has ended."""
        latest = self.desk.work.latest(name)
        assert latest is not None and latest.wait(60)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_site(request, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/partita.db"
    if request.param == "postgresql":
        url = make_url(request.getfixturevalue("postgres_url")).set(username="postgres", password=PASSWORD)
        url = url.render_as_string(hide_password=False)
    yield from opened(url, monkeypatch)


@pytest.fixture
def site(tmp_path, monkeypatch):
    yield from opened(f"sqlite:///{tmp_path}/partita.db", monkeypatch)


def opened(url, monkeypatch):
    monkeypatch.setenv("PARTITA_API_KEY", KEY)
    with open_database(url) as db:
        desk = Desk(db, load_prices())
        try:
            yield Site(desk, TestClient(build_app(desk)), url)
        finally:
            desk.work.end(str)


def begun(site_url: str, truth: Truth, tmp_path: Path, calls: int | None = 45, session: str = "s") -> Path:
    """A session that has paused after so many calls."""
    folder = tmp_path / "c"
    if not folder.exists():
        truth.write(folder)
    given = {"endpoint": truth.url, "embed_mode": "native", "session": session, "db": site_url}
    if calls is None:
        cluster(folder, "kind", **given)
    else:
        with pytest.raises(Paused):
            cluster(folder, "kind", max_calls=calls, **given)
    return folder


def until(look, wanted=bool):
    """What is seen as soon as it is what is wanted."""
    deadline = time.monotonic() + 60
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def command_lines(parent: int) -> list[str]:
    """Those of the processes below one, as everybody on the machine sees them."""
    found: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().decode().replace("\0", " ")
            found.setdefault(above, []).append((int(folder.name), words))
    lines, left = [], [parent]
    while left:
        below = found.get(left.pop(), [])
        lines += [words for _, words in below]
        left += [number for number, _ in below]
    return lines


def shown_status(page: str) -> str:
    return re.findall(r'<span class="pill \w+">(\w+)</span>', page)[0]


def test_a_session_is_resumed_paused_and_resumed_to_its_end(any_site, truth, tmp_path):
    site = any_site
    begun(site.url, truth, tmp_path, None, "whole")
    needed = len(truth.asked)
    truth.asked.clear()
    begun(site.url, truth, tmp_path)
    assert 'action="/s/s/resume"' in site.get("/s/s")
    listed = site.get("/")
    assert 'action="/s/s/resume"' not in listed and "Resume…" in listed, "a limit is not lifted by one click"
    made = len(truth.asked)

    truth.at = made + 10
    assert site.post("/s/s/resume").headers["location"] == "/s/s"
    assert shown_status(site.get("/s/s")) in ("starting", "running")
    until(lambda: shown_status(site.get("/s/s/live")), lambda status: status == "running")
    until(lambda: len(truth.asked), lambda asked: asked >= truth.at)
    lines = command_lines(os.getpid())
    assert sum("partita resume" in line for line in lines) == 2  # the one that holds the line, and the one that works
    assert not any(secret in line for line in lines for secret in (KEY, PASSWORD))
    assert 'action="/s/s/pause"' in site.get("/s/s/work") and 'action="/s/s/pause"' in site.get("/live")

    assert site.post("/s/s/pause", back="/").headers["location"] == "/"
    assert shown_status(site.get("/s/s/live")) == "pausing" and "Pausing" in site.get("/s/s/work")
    truth.latency, truth.at = 0.3, 10**9  # it looks once a second whether it is to pause
    site.ended()
    truth.latency = 0
    assert shown_status(site.get("/s/s")) == "paused" and "asked to pause" in site.get("/s/s/live")
    assert made + 10 <= len(truth.asked) < needed

    site.post("/s/s/resume")
    site.ended()
    page = site.get("/s/s")
    assert (
        shown_status(page) == "done" and "could not go on" not in page and "<form class=" not in site.get("/s/s/work")
    )
    assert Session("s", site.url).result().clusters == Session("whole", site.url).result().clusters
    assert max(Counter(key for _, key in truth.asked).values()) == 1
    assert KEY not in page + site.get("/") and PASSWORD not in page + site.get("/")


def test_bounds_of_the_form_hold(site, truth, tmp_path):
    begun(site.url, truth, tmp_path)
    site.post("/s/s/resume", max_calls=" 55 ", max_cost="9.5")
    site.ended()
    assert sum(kind != "embed" for kind, _ in truth.asked) == 55
    page = site.get("/s/s")
    assert shown_status(page) == "paused" and "budget of 55 calls is used up" in page and "could not go on" not in page


def test_what_people_write_into_the_fields():
    assert bounds_of("", " ").options == []
    assert bounds_of(" 0", ".5").options == ["--max-calls", "0", "--max-cost", "0.500000"]
    wrong = [(calls, "") for calls in ("-1", "1e3", "٣", "1" * 10, "--x")]
    for calls, cost in wrong + [("", cost) for cost in ("nan", "-2", "1.2.3", ".", "inf", "1e9", "٣")]:
        with pytest.raises(UsageError, match="give a"):
            bounds_of(calls, cost)


def test_clicks_at_once_start_one_process(site, truth, tmp_path):
    begun(site.url, truth, tmp_path)
    truth.at = 0
    with ThreadPoolExecutor(8) as clicks:
        list(clicks.map(lambda _: site.post("/s/s/resume"), range(8)))
    assert len(site.desk.work.alive()) == 1
    assert sum("lifeline.py" in line for line in command_lines(os.getpid())) == 1
    site.post("/s/s/pause")  # whether or not it has come to listen
    until(lambda: shown_status(site.get("/s/s/live")), lambda status: status in ("pausing", "paused"))
    truth.at = 10**9
    site.ended()
    assert shown_status(site.get("/s/s")) == "paused"


def test_what_it_ended_with_is_told(site, truth, tmp_path):
    begun(site.url, truth, tmp_path)
    truth.key = "another"
    site.post("/s/s/resume")
    site.ended()
    page, listed = site.get("/s/s"), site.get("/")
    assert shown_status(page) == "paused" and "It could not go on: " in page and "It could not go on: " in listed
    assert "401" in page and KEY not in page + listed
    truth.key = KEY
    Session("s", site.url).resume()
    assert "could not go on" not in site.get("/s/s") + site.get("/")


def test_what_can_not_be_gone_on_with_starts_nothing(site, truth, tmp_path):
    begun(site.url, truth, tmp_path)
    begun(site.url, truth, tmp_path, None, "whole")
    teacher = SessionRecord(name="t", criterion="kind", policy="teacher", collection=str(tmp_path), status="paused")
    create_session(site.desk.db, teacher, [])
    with session_lock(site.desk.db, site.record().id, "s"):
        assert "another process is working on" in site.post("/s/s/resume", 409).text
    for path, status, said in (
        ("/s/whole/resume", 400, "done"), ("/s/t/resume", 400, "partita train"),
        ("/s/nobody/resume", 404, "no session"), ("/s/s/pause", 400, "not running"), ("/s/whole/pause", 400, "done"),
    ):  # fmt: skip
        assert said in site.post(path, status).text
    assert "whole number" in site.post("/s/s/resume", 400, max_calls="many").text
    assert not site.desk.work.alive()
    assert 'action="/s/t/resume"' not in site.get("/") + site.get("/s/t")


def test_nobody_else_can_work_on_a_database_in_memory(truth, tmp_path):
    with open_database("sqlite://") as db:
        create_session(
            db, SessionRecord(name="s", criterion="kind", policy="paper", collection=str(tmp_path), status="paused"), []
        )
        answer = TestClient(build_app(Desk(db, load_prices()))).post("/s/s/resume")
        assert answer.status_code == 400 and "memory" in answer.text


def test_a_session_is_estimated_and_begun(site, truth, tmp_path):
    order = {"collection": str(truth.write(tmp_path / "c")), "criterion": "kind", "endpoint": truth.url,
             "embed_mode": "native", "session": "s", "max_calls": "41"}  # fmt: skip
    told = site.post("/new", 200, do="estimate", **order).text
    assert "40 items" in told and "Nobody was asked" in told and "--max-calls 41 is too little" in told
    assert not truth.asked and not site.desk.work.alive()

    with ThreadPoolExecutor(4) as clicks:
        answers = list(clicks.map(lambda _: site.post("/new", do="run", **order), range(4)))
    where = {answer.headers["location"] for answer in answers}
    assert len(where) == 1 and len(site.desk.work.alive()) == 1
    waiting = site.client.get(where.pop(), follow_redirects=False)
    assert waiting.status_code == 303 or "Beginning" in waiting.text
    site.ended()
    assert site.client.get("/begun/s", follow_redirects=False).headers["location"] == "/s/s"
    assert "budget of 41 calls" in site.get("/s/s") and KEY not in site.get("/s/s")
    assert sum(kind != "embed" for kind, _ in truth.asked) == 41
    site.post("/s/s/resume", max_calls="42")
    site.ended()
    assert "budget of 42 calls" in site.get("/s/s")


def test_an_order_that_can_not_be_begun_keeps_its_fields(site, truth, tmp_path):
    order = {"collection": str(truth.write(tmp_path / "c")), "criterion": "<b>kind</b>", "endpoint": truth.url}
    for changes, said in (
        ({"collection": ""}, "name a folder"), ({"criterion": " "}, "what to cluster by"),
        ({"collection": str(tmp_path / "none")}, "no such folder"), ({"collection": "--help"}, "no such folder"),
        ({"endpoint": "ftp://x"}, "no http(s) URL"), ({"endpoint": "http://me:pw@host/v1"}, "holds a user name"),
        ({"endpoint": "http://host/v1?api_key=sk"}, "has a query"),
        ({"endpoint": ""}, "built-in model can"), ({"session": "a b"}, "“Name” &#39;a b&#39;: use up to"),
        ({"endpoint": "", "collection": str(tmp_path / "none")}, "no such folder"),
        ({"endpoint": "", "criterion": "pose"}, "name a model with “Endpoint” (any"),
        ({"max_cost": "much"}, "USD"), ({"model": "a\0b"}, "NUL"), ({"prompts": "no-such"}, "no prompt set"),
    ):  # fmt: skip
        page = site.post("/new", 400, do="run", **(order | changes)).text
        assert said in page and (changes.get("criterion") or "&lt;b&gt;kind&lt;/b&gt;") in page
    begun(site.url, truth, tmp_path)
    assert "give another name" in site.post("/new", 400, do="run", session="s", **order).text
    assert not site.desk.work.alive()
    assert "no session" in site.get("/begun/nobody", 404)


def test_why_a_session_did_not_begin(site, truth, tmp_path):
    truth.key = "another"
    order = {"collection": str(truth.write(tmp_path / "c")), "criterion": "kind", "endpoint": truth.url, "session": "s"}
    waiting = site.post("/new", do="run", **order).headers["location"]
    site.ended()
    page = site.get(waiting)
    assert "It did not begin" in page and "401" in page and KEY not in page
    again = re.search('href="(/new[^"]+)"', page).group(1).replace("&amp;", "&")
    assert all(f'value="{value}"' in site.get(again) for value in order.values())


def textarea(page: str) -> str:
    return html.unescape(re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL).group(1))


def test_a_fork_from_the_page_asks_only_what_is_worded_otherwise(site, truth, tmp_path):
    begun(site.url, truth, tmp_path, None)
    text = textarea(site.get("/s/s/fork"))
    unchanged = site.post("/s/s/fork", 200, text=text.replace("\n", "\r\n"), session="t", do="check").text
    assert "nothing would be asked anew" in unchanged and textarea(unchanged) == text
    other = re.sub(r"(?m)^merge: .*\n", r"\g<0>  Look twice.\n", text)
    checked = site.post("/s/s/fork", 200, text=other, session="t").text
    assert "It asks anew: merge." in checked and "Look twice." in checked and textarea(checked) == other
    assert len(list_sessions(site.desk.db)) == 1 and not versions(site.desk.db)[0].text

    since = len(truth.asked)
    with ThreadPoolExecutor(4) as clicks:
        answers = list(clicks.map(lambda _: site.post("/s/s/fork", do="run", text=other, session="t"), range(4)))
    assert {answer.headers["location"] for answer in answers} == {"/s/t"}
    site.ended("t")
    page = site.get("/s/t")
    assert shown_status(page) == "done"
    assert (
        "Forked from s: answers taken over: " in page and "40 describe" in page and "merge questions are asked" in page
    )
    assert {kind for kind, _ in truth.asked[since:]} <= {"merge", "membership"}
    kept = versions(site.desk.db)[0]
    assert kept.sessions == ("t",) and kept.source == "page" and kept.text == other
    assert textarea(site.get("/s/t/fork")) == textarea(site.get(f"/s/s/fork?prompts={kept.hash}")) == other


def test_prompts_that_are_none_keep_their_text(site, truth, tmp_path):
    begun(site.url, truth, tmp_path)
    secret = tmp_path / "secret.yaml"
    secret.write_text("name: secret-set\n")
    shipped = textarea(site.get("/s/s/fork?prompts=default"))
    assert "$criterion" in shipped
    for text, fields, said in (
        ("describe: [", {}, "no valid YAML"), ("</textarea><script>", {}, "not a mapping"),
        ("name: x", {}, "is missing"), (shipped + "more: 1\n", {}, "no field of"),
        (shipped, {"session": "s"}, "give another name"),
        (shipped, {"session": "../x"}, "letters, digits"), (shipped, {"max_calls": "x"}, "whole number"),
    ):  # fmt: skip
        page = site.post("/s/s/fork", 400, text=text, do="run", **fields).text
        assert said in page and textarea(page) == text and "<script>" not in page
    assert len(list_sessions(site.desk.db)) == 1 and not site.desk.work.alive()
    assert "secret-set" not in site.get(f"/s/s/fork?prompts={secret}", 400)
    create_session(site.desk.db, SessionRecord(name="t", criterion="kind", policy="teacher", collection="c"), [])
    assert "nothing to fork" in site.get("/s/t/fork", 400)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_was_started_pauses_when_the_server_ends(cli, truth, tmp_path, monkeypatch, number):
    monkeypatch.setenv("PARTITA_API_KEY", KEY)
    begun(cli.db, truth, tmp_path)
    server = cli.start("web", "--port", "0", PARTITA_API_KEY=KEY)
    line = server.stdout.readline()
    address = re.search(r"http://\S+", line).group()
    home = address.partition("/?")[0]
    made = len(truth.asked)
    truth.at = made + 5
    with httpx.Client(follow_redirects=True, headers={"Origin": home}) as browser:
        browser.get(address).raise_for_status()
        browser.post(f"{home}/s/s/resume").raise_for_status()
    until(lambda: len(truth.asked), lambda asked: asked >= truth.at)
    server.send_signal(number)
    with open_database(cli.db) as db:
        if number == signal.SIGKILL:
            server.wait(60)
        truth.at = 10**9
        until(lambda: is_locked(db, load_session(db, "s").id, "s"), lambda locked: not locked)
        record = load_session(db, "s")
    out, err = server.communicate(timeout=60)
    assert record.status == "paused" and record.why.startswith("stopped")
    assert KEY not in line + out + err and "Traceback" not in err
    if number == signal.SIGINT:
        assert "1 session started from the page pauses: s" in out
    assert Session("s", cli.db).resume().status == "done"
    assert max(Counter(key for _, key in truth.asked).values()) == 1
