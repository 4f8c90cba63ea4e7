"""Images on their way into a question."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.images import encode_image, image_part, text_part
from storage.errors import CollectionError
from storage.items import read_bytes, scan


def payload(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def halves(size: tuple[int, int] = (60, 40), mode: str = "RGB") -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2, 0, *size))
    return image.convert(mode)


def decoded(jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    return image


def near(image: Image.Image, at: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.subtract(image.getpixel(at), colour)).max() < 12)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_any_format_becomes_a_small_jpeg(kind: str) -> None:
    jpeg = encode_image(payload(halves((1600, 800)), kind))
    image = decoded(jpeg)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (768, 384))
    assert near(image, (10, 10), (254, 0, 0)) and near(image, (750, 10), (0, 0, 254))
    assert jpeg == encode_image(payload(halves((1600, 800)), kind))


def test_small_images_are_not_enlarged() -> None:
    assert decoded(encode_image(payload(halves()))).size == (60, 40)
    assert decoded(encode_image(payload(halves()), 30)).size == (30, 20)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_nothing_else_kept(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "secret place"
    jpeg = encode_image(payload(halves(), "JPEG", exif=exif, quality=95, comment=b"secret place"))
    image = decoded(jpeg)
    assert image.size == ((60, 40) if orientation < 5 else (40, 60))
    red = {1: (5, 20), 2: (55, 20), 3: (55, 20), 4: (5, 20), 5: (20, 5), 6: (20, 5), 7: (20, 55), 8: (20, 55)}
    assert near(image, red[orientation], (254, 0, 0))
    assert b"secret" not in jpeg and not image.getexif()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    data = payload(Image.new("P", (20, 20), 0), transparency=0) if mode == "P" else payload(clear.convert(mode))
    assert near(decoded(encode_image(data)), (10, 10), (255, 255, 255))


def test_sixteen_bits_are_scaled() -> None:
    grey = Image.fromarray(np.full((20, 20), 128 * 257, dtype=np.uint16))
    assert near(decoded(encode_image(payload(grey))), (5, 5), (128, 128, 128))


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "F"])
def test_other_modes(mode: str) -> None:
    data = payload(halves(mode="L" if mode == "F" else "RGB").convert(mode), "TIFF")
    assert decoded(encode_image(data)).mode == "RGB"


GOOD = payload(halves((200, 200)))


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"hello",
        b"\x89PNG\r\n\x1a\n",
        GOOD[:100],
        GOOD[: len(GOOD) // 2],
        payload(halves(), "JPEG")[:300],
        b"\0" * 99,
    ],
)
def test_broken_images(broken: bytes) -> None:
    with pytest.raises(CollectionError) as caught:
        encode_image(broken)
    assert "\n" not in str(caught.value)


def test_the_size_is_checked_before_anything_is_decoded() -> None:
    for side, says in ((10_001, "10,001 x 10,001 pixels; at most 100 megapixels"), (20_000, "make it smaller")):
        with pytest.raises(CollectionError, match=says):
            encode_image(claiming(side))


def claiming(side: int) -> bytes:
    """A PNG that says that it has side × side pixels, and has none."""
    good = payload(Image.new("1", (1, 1)))
    header = b"IHDR" + struct.pack(">II", side, side) + good[24:29]
    return good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:]


def test_parts() -> None:
    jpeg = encode_image(GOOD)
    url = image_part(jpeg)["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) == jpeg
    assert text_part("Item:") == {"type": "text", "text": "Item:"}


def odd_images() -> dict[str, bytes]:
    """Files that are strange and yet images."""
    rgb = halves((30, 20))
    palette = rgb.convert("P")
    levels = np.arange(600).reshape(20, 30)
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    floats = levels.astype(np.float32)
    floats[0, :3] = np.nan, np.inf, -np.inf
    odd = {
        "palette, one colour clear.png": payload(palette, transparency=3),
        "palette, alpha by colour.png": payload(palette, transparency=bytes(range(256))),
        "palette, one clear.gif": payload(palette, "GIF", transparency=3),
        "RGB, one colour clear.png": payload(rgb, transparency=(255, 0, 0)),
        "grey, one clear.png": payload(rgb.convert("L"), transparency=76),
        "bits, one clear.png": payload(rgb.convert("1"), transparency=0),
        "LA.png": payload(rgb.convert("LA")),
        "CMYK.jpg": payload(rgb.convert("CMYK"), "JPEG"),
        "16 bit.png": payload(Image.fromarray((levels * 100).astype(np.uint16))),
        "16 bit.tif": payload(Image.fromarray((levels * 100).astype(np.uint16)), "TIFF"),
        "16 bit.pgm": b"P5 3 2 65535\n" + bytes(range(12)),
        "32 bit.tif": payload(Image.fromarray((levels - 300).astype(np.int32)), "TIFF"),
        "floats.tif": payload(Image.fromarray(floats), "TIFF"),
        "animated.gif": payload(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.png": payload(frames[0], save_all=True, append_images=frames[1:]),
        "animated.webp": payload(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "pages.tif": payload(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "pixel.png": payload(Image.new("RGB", (1, 1))),
        "line.png": payload(Image.new("RGB", (1, 5000))),
        "9,500 squared.png": payload(Image.new("1", (9500, 9500), 1)),
    }
    for mode in ("1", "L", "LA", "P", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"):
        image = Image.new("LAB", (30, 20), (120, 60, 60)) if mode == "LAB" else rgb.convert(mode)
        odd[f"{mode}.tif"] = payload(image, "TIFF")
    for exif in (b"Exif\0\0" + b"\xff" * 40, b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0MM", b"\0", b"Exif\0\0"):
        for kind in ("PNG", "WEBP", "JPEG"):
            odd[f"broken EXIF {len(exif)}.{kind.lower()}"] = payload(rgb, kind, exif=exif)
    return odd


def test_what_a_scan_accepts_can_be_sent(tmp_path: Path) -> None:
    odd = odd_images()
    for name, content in odd.items():
        (tmp_path / name).write_bytes(content)
    found = scan(tmp_path)
    assert found.failed == () and len(found.items) == len(odd)
    for item in found.items:
        assert decoded(encode_image(read_bytes(item))).mode == "RGB", item.name


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_damaged_image_that_a_scan_accepts_can_be_sent(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    kind = data.draw(st.sampled_from(["PNG", "WEBP", "JPEG", "GIF", "BMP", "TIFF"]))
    content = bytearray(payload(halves((8, 6)), kind, exif=exif) if kind in EXIF else payload(halves((8, 6)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "good.png").write_bytes(GOOD)
    (folder / "good too.png").write_bytes(GOOD)
    (folder / "x.png").write_bytes(content)
    for item in scan(folder).items:
        encode_image(read_bytes(item))


EXIF = ("PNG", "WEBP", "JPEG", "TIFF")


def test_a_large_image_makes_no_warning_an_error() -> None:
    with pytest.raises(CollectionError, match="can't be decoded"):  # and not: too many pixels
        encode_image(claiming(9_900))
