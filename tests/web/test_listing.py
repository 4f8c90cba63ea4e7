"""The first page: what each session is, in a line and a strip of pictures."""

from __future__ import annotations

import io
import re
from html import unescape
from pathlib import Path

from PIL import Image

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


def test_pictures_that_are_gone_leave_gaps(finished: Finished, sites: Sites, tmp_path: Path) -> None:
    site = sites(finished.copy(tmp_path))
    moved = finished.folder.with_name("elsewhere")
    finished.folder.rename(moved)
    try:
        with site.client() as client:
            assert client.get("/s/s/strip").status_code == 404 and client.get("/").status_code == 200
    finally:
        moved.rename(finished.folder)
