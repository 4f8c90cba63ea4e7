"""The rendered world: deterministic, labelled, and with streams that never meet."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.world import (
    CRITERIA,
    CRITERIA_OF,
    RANKS,
    SUITS,
    Kind,
    Purpose,
    image_seed,
    letters,
    render,
    write_examples,
)  # fmt: skip
from training.world.cards import DECKS, deck
from training.world.designs import dark, draw_design
from training.world.papers import piece
from training.world.pips import PIP_STYLES, pip_outline, pip_sprite

KINDS: tuple[Kind, ...] = ("cards", "fruit")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [96, 208])
def test_the_same_seed_gives_the_same_image(kind: Kind, size: int) -> None:
    first, labels = render(kind, 12345, size)
    second, again = render(kind, 12345, size)
    assert first.mode == "RGB"
    assert first.size == (size, size)
    assert first.tobytes() == second.tobytes()
    assert labels == again
    assert render(kind, 12346, size)[0].tobytes() != first.tobytes()


def test_another_process_draws_the_same(tmp_path: Path) -> None:
    code = (
        "import hashlib; from training.world import render\n"
        "print(hashlib.sha256(render('fruit', 77, 96)[0].tobytes()).hexdigest())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "5"}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert told.strip() == hashlib.sha256(render("fruit", 77, 96)[0].tobytes()).hexdigest()


def test_labels_are_of_the_size_independent_world() -> None:
    for kind in KINDS:
        for seed in range(20):
            small, large = render(kind, seed, 64)[1], render(kind, seed, 128)[1]
            assert small == large
            assert tuple(small) == CRITERIA_OF[kind]


def test_every_value_is_drawn_about_as_often_and_independently() -> None:
    for kind in KINDS:
        told = [render(kind, image_seed(Purpose.EVALUATION, 3, i), 32)[1] for i in range(700)]
        for criterion in CRITERIA_OF[kind]:
            counts = np.array([sum(t[criterion] == v for t in told) for v in CRITERIA[criterion]])
            assert counts.min() > 0.6 * 700 / len(counts)
            assert counts.max() < 1.5 * 700 / len(counts)
        assert len({tuple(t.values()) for t in told}) == np.prod([len(CRITERIA[c]) for c in CRITERIA_OF[kind]])


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="cards"):
        render("cars", 1)  # type: ignore[arg-type]


def test_decks_have_different_designs() -> None:
    assert {deck(n).layout for n in range(DECKS)} == {"classic", "jumbo", "modern", "poster"}
    assert {len(set(deck(n).inks.values())) for n in range(DECKS)} == {2, 4}


@pytest.mark.parametrize("size", [32, 128])
def test_a_wild_card_follows_from_its_seed_and_has_the_labels_of_the_clean_one(size: int) -> None:
    for seed in range(40):
        picture, labels = render("cards", seed, size, wild=True)
        assert picture.mode == "RGB"
        assert picture.size == (size, size)
        assert labels == render("cards", seed, size)[1]
    assert picture.tobytes() == render("cards", 39, size, wild=True)[0].tobytes()
    assert picture.tobytes() != render("cards", 39, size)[0].tobytes()


def test_another_process_draws_the_same_wild_cards() -> None:
    """What was drawn before, and so what is cached, changes nothing."""
    code = (
        "import hashlib; from training.world import render\n"
        "print(hashlib.sha256(render('cards', 77, 96, wild=True)[0].tobytes()).hexdigest())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "6"}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert told.strip() == hashlib.sha256(render("cards", 77, 96, wild=True)[0].tobytes()).hexdigest()


def test_wild_cards_have_no_colour_that_tells_the_suit() -> None:
    rng = np.random.default_rng(3)
    looks = {suit: [draw_design(suit, rng) for _ in range(300)] for suit in SUITS}
    for suit, own in looks.items():
        reddish = np.mean([d.ink[0] > 1.5 * max(d.ink[1:]) for d in own])
        assert 0.05 < reddish < 0.95, suit
        # Print stands out from its paper.
        assert np.mean([abs(sum(d.ink) - sum(d.paper)) > 120 for d in own]) > 0.9
        assert 0.05 < np.mean([dark(d.paper) for d in own]) < 0.4


@pytest.mark.parametrize("style", PIP_STYLES)
def test_pips_of_every_style_show_ink_and_never_twice_the_same_outline(style: str) -> None:
    rng = np.random.default_rng(5)
    for suit in SUITS:
        first, second = pip_outline(suit, rng), pip_outline(suit, rng)
        assert first.tobytes() != second.tobytes()
        sprite = pip_sprite(first, style, (200, 20, 30), (250, 250, 250), piece(3, (64, 64), rng), rng)
        assert sprite.mode == "RGBA"
        assert np.mean(np.asarray(sprite)[..., 3] > 128) > 0.05


def test_letters_are_drawn_without_any_font_but_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    letters.fonts.cache_clear()
    monkeypatch.setattr(letters, "find_spec", lambda name: None)
    try:
        assert letters.fonts() == (None,)
        rng = np.random.default_rng(7)
        for _ in range(60):
            lettering = letters.Letters(rng)
            for text in ("A", "10", "Q"):
                mask = lettering.mask(text, 20)
                assert mask.height == 20
                assert np.asarray(mask).max() > 60
    finally:
        letters.fonts.cache_clear()


def test_wild_cards_show_every_rank() -> None:
    told = {render("cards", image_seed(Purpose.VISION, 1, i), 32, wild=True)[1]["rank"] for i in range(150)}
    assert told == set(RANKS)


def test_streams_of_two_purposes_share_no_seed() -> None:
    seeds = {p: {image_seed(p, s, i) for s in range(3) for i in range(2000)} for p in Purpose}
    for purpose, own in seeds.items():
        assert len(own) == 6000
        # The purpose is in the top bits, so no seed of another purpose can be equal, whatever its hash.
        assert {seed >> 58 for seed in own} == {int(purpose)}


@pytest.mark.parametrize("kind", KINDS)
def test_examples(tmp_path: Path, kind: Kind) -> None:
    seen: list[tuple[int, int]] = []
    write_examples(tmp_path / "a" / "b", kind, 12, seed=4, progress=lambda done, count: seen.append((done, count)))
    write_examples(tmp_path / "again", kind, 12, seed=4)
    write_examples(tmp_path / "other", kind, 12, seed=5)
    rows = list(csv.DictReader((tmp_path / "a" / "b" / "labels.csv").read_text(encoding="utf-8").splitlines()))
    assert tuple(rows[0]) == ("file", *CRITERIA_OF[kind])
    assert [row["file"] for row in rows] == [f"images/{i:05d}.png" for i in range(12)]
    assert seen == [(i, 12) for i in range(1, 13)]
    for index, row in enumerate(rows):
        with Image.open(tmp_path / "a" / "b" / row["file"]) as image:
            assert image.size == (208, 208)
            assert image.info == {}
            drawn, labels = render(kind, image_seed(Purpose.EXAMPLES, 4, index))
            assert image.tobytes() == drawn.tobytes()
        assert labels == {k: v for k, v in row.items() if k != "file"}
    for name in ("labels.csv", "images/00003.png"):
        assert (tmp_path / "a" / "b" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert (tmp_path / "again" / "images" / "00003.png").read_bytes() != (
        tmp_path / "other" / "images" / "00003.png"
    ).read_bytes()


def test_examples_never_touch_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not an empty folder"):
        write_examples(tmp_path / "full", "cards", 2)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="not an empty folder"):
        write_examples(tmp_path / "file", "cards", 2)
    with pytest.raises(ValueError, match="at least 1"):
        write_examples(tmp_path / "none", "cards", 0)
    with pytest.raises(ValueError, match="'cards' or 'fruit'"):
        write_examples(tmp_path / "none", "cats", 2)  # type: ignore[arg-type]
    (tmp_path / "empty").mkdir()
    write_examples(tmp_path / "empty", "fruit", 1)
    assert (tmp_path / "empty" / "labels.csv").exists()


def test_interrupted_examples_leave_nothing(tmp_path: Path) -> None:
    def stop(done: int, count: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_examples(tmp_path / "out", "cards", 5, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_the_world_needs_no_torch() -> None:
    code = (
        "import sys, training.world; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
