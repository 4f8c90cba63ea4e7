"""The first page: what each session is, in a line and a strip of pictures."""

from __future__ import annotations

import io
import re
from html import unescape
from pathlib import Path

from PIL import Image

from partita.estimate import count
from partita.prices import load_prices
from partita.spend import spend_of
from serving.images import encode_image
from storage.items import FailedItem
from storage.sessions import add_items, list_sessions, load_items, load_session
from tests.web.conftest import Finished, Site, Sites


def test_a_strip_shows_the_first_of_each_cluster_and_changes_with_them(site: Site) -> None:
    with site.client() as client:
        address = unescape(re.findall(r'<img class="strip" src="([^"]*/strip[^"]*)"', client.get("/").text)[0])
        answer = client.get(address)
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert picture.size == (5 * 96 + 4 * 6, 96)
        assert client.get(address, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
        united = client.post("/s/s/correct", data={"did": "unite", "cluster": ["1", "2"]})
        assert united.status_code == 200
        other = unescape(re.findall(r'<img class="strip" src="([^"]*/strip[^"]*)"', client.get("/live").text)[0])
        assert other != address
        with Image.open(io.BytesIO(client.get(other).content)) as picture:
            assert picture.size == (4 * 96 + 3 * 6, 96)


def test_what_each_session_spent_is_told_as_the_command_line_does(site: Site) -> None:
    total = spend_of(site.db, "s", load_prices()).total
    with site.client() as client:
        told = client.get("/").text
    assert f"<b>{total.calls - 60:,}</b> calls" in told  # embeddings are no calls to the agents' model
    assert f"{count(total.tokens)} tokens, {total.price()}" in told


def test_an_answer_shows_pictures_as_the_model_was_shown_them(site: Site) -> None:
    with site.client() as client:
        page = client.get("/s/s/a/150").text
        address = unescape(re.findall(r'<img src="([^"]*/picture[^"]*)"', page)[0])
        assert "side=model" in address
        number = int(address.split("/")[4])
        item = next(row for row in load_items(site.db, load_session(site.db, "s").id) if row.position == number)
        file = Path(load_session(site.db, "s").collection) / item.name
        assert client.get(address).content == encode_image(file.read_bytes(), 768)


def test_what_a_session_is_made_of_and_what_could_not_be_read(site: Site) -> None:
    (record,) = list_sessions(site.db)
    add_items(site.db, record.id, [FailedItem("<b>.png", "it is empty")])
    with site.client() as client:
        page = client.get("/s/s").text
        assert record.collection in page and "policy evidence" in page
        assert f'href="/prompts/{record.prompt_set_hash}"' in page
        assert "in no cluster: 1<" in page and "&lt;b&gt;.png" in page and "it is empty" in page
        assert client.get(f"/prompts/{record.prompt_set_hash}").status_code == 200
        wrong = client.get("/s/s/c/99")
        assert wrong.status_code == 400 and "Back to <bdi>s</bdi>" in wrong.text
        assert "Back to" not in client.get("/s/none").text + client.get("/begun/s/x").text


def test_pictures_that_are_gone_leave_gaps(finished: Finished, sites: Sites, tmp_path: Path) -> None:
    site = sites(finished.copy(tmp_path))
    moved = finished.folder.with_name("elsewhere")
    finished.folder.rename(moved)
    try:
        with site.client() as client:
            assert client.get("/s/s/strip").status_code == 404 and client.get("/").status_code == 200
    finally:
        moved.rename(finished.folder)
