"""Collections: names, order, and every kind of file that is not what it says."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import pytest
from PIL import Image

from storage.errors import CollectionError
from storage.items import Collection, FailedItem, Item, ItemRow, collection_from_rows, read_bytes, scan


def picture(path: Path, color: str = "red", size: tuple[int, int] = (16, 12), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)  # type: ignore[arg-type]
    return path


def noise(path: Path, size: tuple[int, int] = (256, 256), **options: object) -> Path:
    Image.frombytes("RGB", size, os.urandom(size[0] * size[1] * 3)).save(path, **options)  # type: ignore[arg-type]
    return path


def names(collection: Collection) -> list[str]:
    return [item.name for item in collection.items]


def why(collection: Collection) -> dict[str, str]:
    return {item.name: item.why for item in collection.failed}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder that has two good images, `a.png` and `b.png`."""
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "b.png", "blue")
    return tmp_path / "in"


def png_header(width: int, height: int) -> bytes:
    """A small PNG file that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


# -- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder(two: Path) -> None:
    picture(two / "sub" / "deep" / "c.JPG")
    picture(two / "B.webp")
    for name in ("labels.csv", "notes.txt", "sub/labels.csv", "x.pdf"):
        (two / name).write_text("file,suit\n")
    picture(two / ".hidden.png")
    picture(two / ".cache" / "x.png")
    seen: list[tuple[int, int]] = []
    found = scan(two, lambda done, total: seen.append((done, total)))
    assert names(found) == ["B.webp", "a.png", "b.png", "sub/deep/c.JPG"]
    assert found.failed == () and found.root == two.resolve()
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    content = (two / "a.png").read_bytes()
    assert found.items[1] == Item("a.png", hashlib.sha256(content).hexdigest(), "image", None, two.resolve() / "a.png")
    assert scan(str(two)) == found


def test_every_format(tmp_path: Path) -> None:
    for suffix in ("jpg", "jpeg", "png", "gif", "bmp", "webp", "tif", "tiff", "avif", "ppm"):
        picture(tmp_path / f"x.{suffix}")
    Image.new("CMYK", (9, 9)).save(tmp_path / "cmyk.jpg")
    Image.new("I;16", (9, 9)).save(tmp_path / "deep.png")
    Image.new("P", (9, 9)).save(tmp_path / "palette.png", transparency=b"\0\1\2")
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue", "green")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    noise(tmp_path / "progressive.jpg", progressive=True)
    found = scan(tmp_path)
    assert found.failed == () and len(found.items) == 15


def test_duplicates_are_items_of_their_own(two: Path) -> None:
    (two / "copy.png").write_bytes((two / "a.png").read_bytes())
    found = scan(two)
    assert names(found) == ["a.png", "b.png", "copy.png"]
    assert found.items[0].content_hash == found.items[2].content_hash


def test_hostile_images(two: Path) -> None:
    (two / "empty.png").write_bytes(b"")
    (two / "text.png").write_text("not an image")
    (two / "random.jpg").write_bytes(os.urandom(5000))
    for suffix in ("png", "jpg", "webp", "tif", "gif", "bmp", "avif"):
        whole = noise(two / f"cut.{suffix}").read_bytes()
        (two / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    whole = noise(two / "cut-progressive.jpg", progressive=True, quality=95).read_bytes()
    (two / "cut-progressive.jpg").write_bytes(whole[: -len(whole) // 10])
    (two / "header.jpg").write_bytes(noise(two / "header.jpg").read_bytes()[:100])
    (two / "huge.png").write_bytes(png_header(20_000, 20_000))
    (two / "gigantic.png").write_bytes(png_header(2**31 - 1, 2**31 - 1))
    (two / "just-too-large.png").write_bytes(png_header(10_001, 10_000))
    (two / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    (two / "folder.png").mkdir()
    os.mkfifo(two / "pipe.png")
    found = scan(two)
    assert names(found) == ["a.png", "b.png"]
    said = why(found)
    assert said["empty.png"] == "the file is empty"
    assert said["text.png"] == said["random.jpg"] == said["script.png"] == "it is not an image"
    assert "20,000 x 20,000" in said["huge.png"] or "more pixels than" in said["huge.png"]
    assert "at most 100 megapixels" in said["gigantic.png"]
    assert "10,001 x 10,000 pixels" in said["just-too-large.png"]
    assert said["pipe.png"] == "it is not a regular file"
    assert all("\n" not in reason for reason in said.values())
    assert "folder.png" not in said and len(said) == 17
    assert [item.name for item in found.failed] == sorted(said)


def test_a_real_20000_by_20000_image_costs_nothing(two: Path) -> None:
    """A well-formed one this time: 400 megapixels in half a megabyte."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new("1", (20_000, 20_000)).save(two / "huge.png")
    tracemalloc.start()
    found = scan(two)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(why(found)) == ["huge.png"]
    assert peak < 20e6


def test_the_limit_is_a_setting(two: Path) -> None:
    picture(two / "c.png", size=(100, 50))
    assert why(scan(two, max_pixels=4999)) == {
        "c.png": "it has 100 x 50 pixels; at most 0.004999 megapixels are taken: make it smaller"
    }
    assert not scan(two, max_pixels=5000).failed


def test_large_but_allowed_with_warnings_as_errors(two: Path) -> None:
    """Pillow warns from 89 megapixels on; ours is the limit that counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new("1", (9_600, 9_600)).save(two / "large.png")
    assert names(scan(two)) == ["a.png", "b.png", "large.png"]


def test_links(two: Path, tmp_path: Path) -> None:
    picture(tmp_path / "outside" / "x.png")
    (two / "out.png").symlink_to(tmp_path / "outside" / "x.png")
    (two / "out").symlink_to(tmp_path / "outside")
    (two / "nowhere.png").symlink_to(two / "gone.png")
    (two / "loop.png").symlink_to(two / "loop.png")
    (two / "within.png").symlink_to("a.png")
    (two / "round").symlink_to(two)
    found = scan(two)
    assert names(found) == ["a.png", "b.png", "within.png"]
    said = why(found)
    assert said["out.png"] == said["out"] == "it is a link that leads outside the collection"
    assert said["nowhere.png"] == "a link that leads nowhere"
    assert said.keys() == {"out", "out.png", "nowhere.png", "loop.png"}
    (tmp_path / "link").symlink_to(two)
    assert names(scan(tmp_path / "link")) == names(found)


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system takes UTF-8 names only")
def test_a_name_that_is_not_utf8(two: Path) -> None:
    (two / os.fsdecode(b"caf\xe9.png")).write_bytes((two / "a.png").read_bytes())
    picture(two / "é ü\n.png")
    found = scan(two)
    assert names(found) == ["a.png", "b.png", "é ü\n.png"]
    assert found.failed == (FailedItem("caf\ufffd.png", "its name is not valid UTF-8: rename it"),)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_what_may_not_be_read(two: Path) -> None:
    picture(two / "closed.png").chmod(0)
    (two / "closed").mkdir(mode=0)
    assert why(scan(two)).keys() == {"closed.png", "closed"}


def test_nothing_to_cluster(tmp_path: Path) -> None:
    def said(path: Path) -> str:
        with pytest.raises(CollectionError) as caught:
            scan(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no collection at" in said(tmp_path / "nowhere")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "notes.txt").write_text("x")
    assert "nothing to cluster" in said(folder) and ".webp" in said(folder)
    (folder / "x.png").write_bytes(b"")
    assert "None of the 1 images" in said(folder) and "x.png: the file is empty" in said(folder)
    one = picture(folder / "one.png")
    assert "at least two" in said(folder) and "x.png" in said(folder)
    assert "the folder that holds it" in said(one)
    assert "is no collection" in said(folder / "notes.txt")


def test_thousands_of_files(tmp_path: Path) -> None:
    content = picture(tmp_path / "0.png").read_bytes()
    for number in range(1, 2000):
        (tmp_path / f"{number}.png").write_bytes(content)
    assert len(scan(tmp_path).items) == 2000


# -- tables -----------------------------------------------------------------------------------------------------------


def test_a_csv_of_files(two: Path) -> None:
    picture(two / "sub" / "c.png")
    table = two / "list.csv"
    table.write_text("suit,file\nhearts,sub/c.png\nspades,./a.png\nclubs,gone.png\n", encoding="utf-8-sig")
    found = scan(table)
    assert names(found) == ["sub/c.png", "a.png"]
    assert why(found) == {"gone.png": "there is no such file"}
    assert found.root == two.resolve() and found.items[0].path == two.resolve() / "sub/c.png"


def test_what_a_table_may_not_name(two: Path, tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    (two / "link.png").symlink_to(tmp_path / "secret.png")
    refused = [
        str(tmp_path / "secret.png"),
        "../secret.png",
        "sub/../../secret.png",
        "..",
        "file:///etc/passwd",
        "file:a.png",
        "https://example.org/a.png",
        "data:image/png;base64,AAAA",
        "C:\\a.png",
        "~/a.png",
        "link.png",
        "x" * 5000,
        ".",
        "list.jsonl",
        None,
        7,
        ["a.png"],
        "a\0.png",
        "\ud800.png",
        "   ",
    ]
    rows = [{"file": name} for name in ["a.png", *refused, "b.png"]]
    (two / "list.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = scan(two / "list.jsonl")
    assert names(found) == ["a.png", "b.png"]
    assert len(found.failed) == len(refused)
    said = why(found)
    assert said["row 16"] == "the row names no file" and "int" in said["row 17"]
    assert "outside" in said["../secret.png"] and "outside" in said["link.png"]
    assert "URL" in said["file:a.png"] and "absolute" in said["~/a.png"]
    for item in found.failed:
        item.name.encode()
        assert "\0" not in item.name


@pytest.mark.parametrize(
    "name",
    [
        "http://169.254.169.254/latest/meta-data/",
        "HTTP:\\\\169.254.169.254\\a.png",
        "http:/169.254.169.254/",
        "http:169.254.169.254",
        "https:a.png",
        " http://10.0.0.1/a.png",
        "\t\nfile:///etc/passwd",
        "\x01file:a.png",
        "http%3A%2F%2F127.0.0.1%2Fa.png",
        "FILE://localhost/etc/passwd",
        "data:image/png;base64,AAAA",
        "blob:https://x/1",
        "gopher://x/_GET",
        "s3://bucket/a.png",
        "x-new+1.0://y",
        "jar:file:a.zip!/a.png",
    ],
)
def test_urls_are_refused_whatever_they_look_like(two: Path, name: str) -> None:
    (two / "list.jsonl").write_text("\n".join(json.dumps({"file": n}) for n in ["a.png", name, "b.png"]))
    found = scan(two / "list.jsonl")
    assert names(found) == ["a.png", "b.png"]
    assert list(why(found).values()) == ["it is a URL: only files beside the table are read"]


@pytest.mark.parametrize(
    "name",
    [
        "//host/share/a.png", "\\\\host\\share\\a.png", "\\\\?\\C:\\a.png", "C:/a.png", "c:\\a.png", "/etc/passwd",
        "~root/a.png",
        "%2e%2e/secret.png", "..%2fsecret.png", "a.png%00.jpg", "./../secret.png", "sub/./../../secret.png", "a.png/",
        "a.png/../../secret.png", "-", "|id", "$(id)", "NUL", "/dev/zero", "/proc/self/environ", "...", ". .",
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_collection(two: Path, name: str) -> None:
    (two.parent / "secret.png").write_bytes((two / "a.png").read_bytes())
    (two / "list.jsonl").write_text("\n".join(json.dumps({"file": n}) for n in ["a.png", name, "b.png"]))
    found = scan(two / "list.jsonl")
    assert names(found) == ["a.png", "b.png"]
    assert len(found.failed) == 1 or name == "a.png/"


def test_a_file_whose_name_only_looks_odd_is_read(two: Path) -> None:
    odd = ["scan:1.png", " a.png", "data.png", "http.png", "file", "s3.png"]
    for name in odd:
        (two / name).write_bytes((two / "a.png").read_bytes())
    (two / "list.jsonl").write_text("\n".join(json.dumps({"file": n}) for n in odd))
    assert names(scan(two / "list.jsonl")) == odd


def test_a_file_that_is_named_twice_is_kept_once(two: Path) -> None:
    (two / "list.csv").write_text("file\na.png\nb.png\n./a.png\n")
    found = scan(two / "list.csv")
    assert names(found) == ["a.png", "b.png"]
    assert why(found) == {"a.png": "row 3 names it again: it is kept once"}


def test_texts(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text,topic\n"two\nlines",x\nsame,y\n\n"",z\nsame,y\n', encoding="utf-8-sig")
    found = scan(tmp_path / "t.csv")
    assert [(item.name, item.text) for item in found.items] == [
        ("row 1", "two\nlines"),
        ("row 2", "same"),
        ("row 4", "same"),
    ]
    assert why(found) == {"row 3": "the text is empty"}
    assert found.items[1].content_hash == found.items[2].content_hash == hashlib.sha256(b"same").hexdigest()
    assert read_bytes(found.items[0]) == b"two\nlines"


def test_texts_that_no_database_takes(tmp_path: Path) -> None:
    rows = ["fine", "a\0b", "\ud800", 3, None, "also fine \u2028 here"]
    (tmp_path / "t.jsonl").write_text("\n\n".join(json.dumps({"text": row}) for row in rows) + "\n")
    found = scan(tmp_path / "t.jsonl")
    assert names(found) == ["row 1", "row 6"]
    assert why(found).keys() == {"row 2", "row 3", "row 4", "row 5"}


def test_a_long_field(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\n" + "x" * 300_000 + "\nshort\n")
    assert len(scan(tmp_path / "t.csv").items[0].text or "") == 300_000


def test_parquet(two: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"n": [1, 2, 3], "file": pyarrow.array(["b.png", None, "a.png"]).dictionary_encode()})
    pyarrow.parquet.write_table(table, two / "x.parquet")
    found = scan(two / "x.parquet")
    assert names(found) == ["b.png", "a.png"] and list(why(found)) == ["row 2"]
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"]}), two / "t.parquet")
    assert [item.text for item in scan(two / "t.parquet").items] == ["one", "two"]


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CollectionError, match="pip install"):
        scan(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", b"name,suit\na,b\n", "its columns are name, suit"),
        ("x.csv", b"", "it has no columns"),
        ("x.csv", b"text\n", "nothing to cluster"),
        ("x.csv", b"text\ncaf\xe9\n", "not UTF-8"),
        ("x.csv", "text\nx\n".encode("utf-16"), "not UTF-8"),
        ("x.csv", b"text\nonly one\n", "at least two"),
        ("x.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: not valid JSON"),
        ("x.jsonl", b'{"text": "a"}\n[1]\n', "line 2: not a JSON object"),
        ("x.jsonl", b'{"a": 1}\n{"b": 2}\n', "its columns are a, b"),
        ("x.jsonl", b"[" * 100_000, "line 1: not valid JSON"),
        ("x.jsonl", b"", "nothing to cluster"),
        ("x.parquet", b"PAR1 but no more", "not a readable Parquet file"),
        ("x.parquet", b"", "not a readable Parquet file"),
    ],
)
def test_damaged_tables(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CollectionError, match=said) as caught:
        scan(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_parquet_without_the_column(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(CollectionError, match="its columns are image"):
        scan(tmp_path / "x.parquet")


# -- reading again ----------------------------------------------------------------------------------------------------


def test_read_bytes_notices_what_changed(two: Path) -> None:
    first, second = scan(two).items
    assert read_bytes(first) == (two / "a.png").read_bytes()
    picture(two / "a.png", "green")
    with pytest.raises(CollectionError, match=r"a\.png has changed.*new session"):
        read_bytes(first)
    (two / "b.png").unlink()
    with pytest.raises(CollectionError, match=r"b\.png can't be read any more.*put it back"):
        read_bytes(second)


def test_a_collection_from_rows_of_a_table_that_is_gone(tmp_path: Path) -> None:
    found = collection_from_rows(tmp_path / "gone.csv", [])
    assert found == Collection(tmp_path, (), ())


def test_a_link_to_a_table_of_another_name_can_be_resumed(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name, "red" if name == "a.png" else "blue")
    (tmp_path / "y.dat").write_text("file\na.png\nb.png\n")
    (tmp_path / "x.csv").symlink_to("y.dat")
    found = scan(tmp_path / "x.csv")
    rows = [ItemRow(i, item.name, item.content_hash, item.kind, None, i, None) for i, item in enumerate(found.items)]
    for recorded in ("x.csv", "y.dat"):
        again = collection_from_rows(tmp_path / recorded, rows)
        assert again == found and [read_bytes(item) for item in again.items]
