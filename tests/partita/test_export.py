"""A partition in every form, from collections and clusters whose names mean harm."""

from __future__ import annotations

import csv
import errno
import json
import os
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathvalidate import is_valid_filename

from partita import Session
from partita.file_names import LONGEST, FolderNames, safe_item, safe_name
from partita.steering import Steering
from storage.database import open_database
from storage.errors import UsageError
from tests.partita.made import SURE, make_session
from tests.truth import draw, number_in

ITEMS = [
    "con.png", "A.png", "a.png", "a.jpg", "b/a.png", "b__a.png", "caf\u00e9.png", "cafe\u0301.png", "aux.tar.png",
    "test.png", "-rf.png", "<b>&\"'.png", "हिन्दी.png", "x .png", f"{'長' * 80}.png", "COM\u00b9.png", "a\u202egnp.png",
]  # fmt: skip
CLUSTERS = ["../../etc/passwd", "nul", "Test tubes", "test tubes.", "ends. ", "2024-01-01"]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/p.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def hostile(folder: Path, url: str, **how: object) -> dict[str, str]:
    """A session `s` over items of such names, in clusters of such names; cluster by item."""
    for number, name in enumerate(ITEMS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        draw(number + 1).save(folder / name)
    clusters = {name: ITEMS[3 * place : 3 * place + 3] for place, name in enumerate(CLUSTERS)}
    with open_database(url) as db:
        make_session(db, folder, clusters, **how)
    return {item: name for name, items in clusters.items() for item in items}


def alike(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def check_names(folder: Path) -> None:
    for where, folders, files in os.walk(folder):
        names = [*folders, *files]
        assert len({alike(name) for name in names}) == len(names), where
        for name in names:
            assert is_valid_filename(name, platform="universal") and name == name.strip(" ."), name


@pytest.mark.parametrize("copy", [False, True])
def test_a_folder_and_its_manifest(url, tmp_path, copy):
    of = hostile(tmp_path / "c", url)
    to = Session("s", url).export(tmp_path / "out", copy=copy)
    check_names(to)
    with (to / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["item"]: row["name"] for row in rows} == of
    assert {to / row["file"] for row in rows} == set(to.glob("*/*"))
    for row in rows:
        file = to / row["file"]
        assert number_in(file.read_bytes()) == ITEMS.index(row["item"]) + 1
        assert file.is_symlink() is not copy and float(row["confidence"]) in (0.5, SURE)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_an_empty_folder_is_filled_where_it_is(tmp_path, monkeypatch):
    hostile(tmp_path / "c", url := f"sqlite:///{tmp_path}/p.db")
    (there := tmp_path / "there").mkdir()
    monkeypatch.chdir(there)
    Session("s", url).export(".", copy=True)
    assert Path("manifest.csv").samefile(there / "manifest.csv") and len(list(there.iterdir())) == len(CLUSTERS) + 1
    with pytest.raises(UsageError, match="not empty; choose a new folder"):
        Session("s", url).export(".", copy=True)


def test_a_folder_has_the_rights_of_any_new_one(tmp_path):
    hostile(tmp_path / "c", url := f"sqlite:///{tmp_path}/p.db")
    for mask in (0o077, 0o022):
        before = os.umask(mask)
        try:
            to = Session("s", url).export(tmp_path / f"{mask:o}")
        finally:
            os.umask(before)
        assert {stat.S_IMODE(Path(folder).stat().st_mode) for folder, _, _ in os.walk(to)} == {0o777 & ~mask}


@given(st.text(max_size=300))
def test_names_that_every_file_system_takes(name):
    for safe in (safe_name(name), safe_item(name), safe_item(f"{name}.png")):
        assert is_valid_filename(safe, platform="universal", max_len=LONGEST) and safe == safe.strip(" ."), safe
        assert len(safe.encode()) <= LONGEST + 1
        assert len(unicodedata.normalize("NFD", safe).encode("utf-16-le")) <= 2 * 255


@given(st.lists(st.sampled_from(["a.png", "A.png", "a.jpg", "a 2.png", "\u00e9.png", "e\u0301.png"])), st.booleans())
def test_names_in_one_folder_are_told_apart(names, by_stem):
    folder = FolderNames(["metadata.jsonl"], by_stem=by_stem)
    free = [folder.free(name) for name in names]
    assert len({alike(Path(name).stem if by_stem else name) for name in free}) == len(names)
    assert folder.free("Metadata.JSONL") != "Metadata.JSONL"


@pytest.mark.parametrize(
    ("item", "file"),
    [
        ("images/0001.png", "images__0001.png"),
        ("con.txt", "_con.txt"),
        ("LPT\u00b3.tar.png", "_LPT\u00b3.tar.png"),
        ("console.png", "console.png"),
        (".../a.", "__a"),
        ("x/" * 200 + "y.png", "__".join(["x"] * 200 + ["y.png"])[-LONGEST + 1 :]),
        ("a\u0000\u001f:*?b.png", "a_b.png"),
    ],
)
def test_what_an_item_is_called(item, file):
    assert safe_item(item).lstrip("_") == file.lstrip("_")


def test_where_no_links_can_be_made(tmp_path, monkeypatch):
    """As on exFAT, or on Windows without the right to make them."""
    hostile(tmp_path / "c", url := f"sqlite:///{tmp_path}/p.db")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", refuse)
    for form in ("folder", "imagefolder", "fiftyone"):
        with pytest.raises(UsageError, match=r"no links can be made there \(Operation not permitted\); add --copy"):
            Session("s", url).export(tmp_path / "out", form=form)
        assert not (tmp_path / "out").exists()
        assert Session("s", url).export(tmp_path / form, form=form, copy=True).is_dir()


def test_a_copy_is_what_was_clustered(tmp_path):
    hostile(tmp_path / "c", url := f"sqlite:///{tmp_path}/p.db")
    draw(999).save(tmp_path / "c" / "con.png")
    with pytest.raises(UsageError, match=r"con\.png has changed since the session started"):
        Session("s", url).export(tmp_path / "out", copy=True)
    (tmp_path / "c" / "con.png").unlink()
    with pytest.raises(UsageError, match=r"the file is gone; put it back, or export to \.csv"):
        Session("s", url).export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


LOAD = """
import json, sys
import datasets
way, where = sys.argv[1:]
loaded = datasets.load_dataset(where) if way == "path" else datasets.load_dataset(way, data_dir=where)
assert list(loaded) == ["train"], loaded
rows = []
for row in loaded["train"]:
    if "image" in row:
        row["image"].save(file := f"{where}-{len(rows)}.png")
        row["image"] = file
    rows.append(row)
print(json.dumps(rows, default=str))
"""


def loaded(way: str, where: Path) -> list[dict[str, object]]:
    """What Hugging Face's library reads, offline."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(where.parent / "hf")}
    words = [sys.executable, "-c", LOAD, way, str(where)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("way", ["imagefolder", "path"])
@pytest.mark.parametrize("copy", [False, True])
def test_an_imagefolder_that_datasets_reads(url, tmp_path, way, copy):
    pytest.importorskip("datasets")
    of = hostile(tmp_path / "c", url, odds=way == "path")
    (tmp_path / "test").mkdir()
    to = Session("s", url).export(tmp_path / "test" / "out", form="imagefolder", copy=copy)
    check_names(to)
    rows = loaded(way, to)
    assert {row["item"]: row["label"] for row in rows} == of
    for row in rows:
        assert number_in(Path(row["image"]).read_bytes()) == ITEMS.index(row["item"]) + 1
        assert CLUSTERS[row["cluster"] - 1] == row["label"]
        assert (row["confidence"] in (0.5, SURE)) if way == "path" else "confidence" not in row


def test_texts_that_datasets_reads(tmp_path):
    pytest.importorskip("datasets")
    texts = ["=cmd()", "two\nlines", "“três”", "2024-01-01"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with open_database(url := f"sqlite:///{tmp_path}/p.db") as db:
        make_session(db, tmp_path / "t.jsonl", {"a": ["row 1", "row 3"], "1": ["row 2", "row 4"]})
    to = Session("s", url).export(tmp_path / "out", form="imagefolder")
    for way in ("json", "path"):
        rows = {row["item"]: row for row in loaded(way, to)}
        assert [rows[f"row {n}"]["text"] for n in range(1, 5)] == texts
        assert [rows[f"row {n}"]["label"] for n in range(1, 5)] == ["a", "1", "a", "1"]
    with pytest.raises(UsageError, match="FiftyOne shows images; export texts with --form imagefolder"):
        Session("s", url).export(tmp_path / "fo", form="fiftyone")
    assert not (tmp_path / "fo").exists()


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_clusters_of_one_name_are_two_classes(tmp_path, kind):
    items = [f"{number}.png" for number in range(4)] if kind == "images" else [f"row {n}" for n in range(1, 5)]
    collection = tmp_path / ("c" if kind == "images" else "t.jsonl")
    if kind == "images":
        collection.mkdir()
        for number, name in enumerate(items):
            draw(number + 1).save(collection / name)
    else:
        collection.write_text("".join(json.dumps({"text": item}) + "\n" for item in items))
    with open_database(url := f"sqlite:///{tmp_path}/p.db") as db:
        make_session(db, collection, {f"cluster {n}": [item] for n, item in enumerate(items, 1)})
        for number, called in enumerate(["con", "con (2)", "con", "con"], 1):
            Steering(db, "s").rename(number, called)
    to, apart = Session("s", url).export(tmp_path / "i", form="imagefolder"), ["con", "con (2)", "con (3)", "con (4)"]
    rows = (to / ("train/metadata.jsonl" if kind == "images" else "train.jsonl")).read_text().splitlines()
    assert [json.loads(row)["label"] for row in rows] == apart
    if kind == "images":
        to = Session("s", url).export(tmp_path / "f", form="fiftyone")
        whole = json.loads((to / "labels.json").read_text())
        assert whole["classes"] == apart == [whole["labels"][str(n)]["label"] for n in range(4)]


@pytest.mark.parametrize("odds", [False, True])
def test_a_dataset_for_fiftyone(url, tmp_path, odds):
    """By FiftyOne's description of a FiftyOneImageClassificationDataset."""
    of = hostile(tmp_path / "c", url, odds=odds)
    to = Session("s", url).export(tmp_path / "out", form="fiftyone")
    check_names(to)
    whole = json.loads((to / "labels.json").read_text(encoding="utf-8"))
    assert whole["classes"] == CLUSTERS and {path.name for path in to.iterdir()} == {"data", "labels.json"}
    images = {os.path.splitext(path.name)[0]: path for path in (to / "data").iterdir()}  # noqa: PTH122 - as it does
    assert images.keys() == whole["labels"].keys() and len(images) == len(ITEMS)
    for stem, target in whole["labels"].items():
        item = target["attributes"]["item"]
        assert target["label"] == of[item] == CLUSTERS[target["attributes"]["cluster"] - 1]
        assert number_in(images[stem].read_bytes()) == ITEMS.index(item) + 1
        assert (target["confidence"] in (0.5, SURE)) if odds else "confidence" not in target


def test_names_that_a_spreadsheet_would_run_are_kept_and_told(cli, tmp_path):
    (tmp_path / "c").mkdir()
    for number, name in enumerate(["=cmd|calc!A1.png", "b.png", "c-d.png"]):
        draw(number + 1).save(tmp_path / "c" / name)
    with open_database(cli.db) as db:
        make_session(db, tmp_path / "c", {"=1+1": ["=cmd|calc!A1.png"], "fine": ["b.png", "c-d.png"]})
        make_session(db, tmp_path / "c", {"a=b": ["b.png", "c-d.png"]}, name="fine")
    warning = "2 names of items and clusters begin with ="
    done = cli("export", "s", "--to", tmp_path / "out.csv")
    assert done.code == 0 and warning in done.err and len(done.err.splitlines()) == 2 and ".parquet" in done.err
    with (tmp_path / "out.csv").open(newline="") as file:
        assert next((row["item"], row["name"]) for row in csv.DictReader(file)) == ("=cmd|calc!A1.png", "=1+1")
    assert warning in cli("export", "s", "--to", tmp_path / "out").err
    quiet = [("s", "out.json"), ("s", "images", "--form", "imagefolder"), ("s", "r.html"), ("fine", "fine.csv")]
    for session, to, *how in quiet:
        done = cli("export", session, "--to", tmp_path / to, *how)
        assert done.code == 0 and len(done.err.splitlines()) == 1, done.err


def test_places_and_forms_that_do_not_fit(cli, tmp_path):
    hostile(tmp_path / "c", cli.db)

    def refused(to: object, *words: object) -> str:
        done = cli("export", "s", "--to", tmp_path / str(to), *words)
        assert done.code == 2 and "Traceback" not in done.err
        return done.err.splitlines()[-1]

    assert "--form fiftyone is a folder; give a name without .csv" in refused("x.csv", "--form", "fiftyone")
    assert ".html, a folder's name, or --form folder" in refused("v1.2")
    assert "not empty; choose a new folder" in refused("c", "--form", "imagefolder")
    assert "--thumbnails" in refused("x.html", "--thumbnails", -1)
    for suffix in ("csv", "json", "parquet", "html"):
        assert "there is no folder" in refused(f"new/x.{suffix}") and not (tmp_path / "new").exists()
    assert "choose another place" in refused("c/con.png/x.html") and "choose another place" in refused("c/con.png/x")
    assert cli("export", "s", "--to", tmp_path / "v1.2", "--form", "folder").code == 0
    with pytest.raises(UsageError, match="--form zip: there is no such form; there are folder, imagefolder, fiftyone"):
        Session("s", cli.db).export(tmp_path / "z", form="zip")  # type: ignore[arg-type]
