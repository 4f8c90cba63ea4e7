"""The pictures of the page in docs/images, from sessions that are there: python docs/screenshots.py URL DEMO OTHER

    partita examples demo/cards --kind cards --count 60 --seed 2026
    partita run demo/cards --by suit --session demo; partita run demo/cards --by rank --session by-rank
    partita web        # in another terminal: URL is the line that it prints

Needs Playwright and an installed chromium (the `dev` extra).
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).with_name("images")


def main(url: str, demo: str, other: str) -> None:
    """Take all of them."""
    base = url.partition("/?")[0]
    shots = {
        "page-sessions": ("/", "light", 1100, 520),
        "page-clusters": (f"/s/{demo}", "light", 1100, 760),
        "page-item": (f"/s/{demo}/i/7", "dark", 1100, 900),
        "page-map": (f"/s/{other}/map", "light", 1100, 900),
        "page-tree": (f"/s/{other}/tree", "dark", 1100, 700),
        "page-compare": (f"/compare?a={demo}&b={other}", "light", 1100, 760),
        "page-prompts": (f"/prompts/edit?session={demo}", "light", 1100, 800),
        "page-narrow": (f"/s/{other}/doubts", "dark", 390, 760),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (path, scheme, width, height) in shots.items():
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
            tab = context.new_page()
            tab.goto(url)
            tab.goto(base + path, wait_until="networkidle")
            if name == "page-map":
                tab.locator(".map-frame.drawn").wait_for(timeout=120_000)
            tab.wait_for_timeout(500)
            with Image.open(io.BytesIO(tab.screenshot())) as picture:
                small = picture.convert("RGB")
                if name != "page-map":  # whose colours mean something
                    small = small.quantize(256, kmeans=1, dither=Image.Dither.NONE)
                small.save(IMAGES / f"{name}.png", optimize=True)
            context.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
