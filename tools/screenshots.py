#!/usr/bin/env python3
"""Make the pictures of the pages in the docs from a data set, with Chromium without a window.

    python tools/screenshots.py shards/demo
    python tools/screenshots.py shards/demo --only report --out /tmp/pictures

Every picture of PAGES is written to docs/ and is smaller than 250 kB: what has photographs in it is a JPEG, of a lower
quality where it must be, the rest a PNG. A page is added by a function that yields its address, and a line in PAGES.
Needs chromium, chromedriver and `pip install selenium`; nothing is downloaded. Figures and samples are drawn by a seed,
so the same data set gives the same pictures.
"""

import argparse
import base64
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mimic_wds.cli.explain import explain
from mimic_wds.looking.report_page import report_page
from mimic_wds.looking.viewer import ViewerServer
from mimic_wds.looking.viewer_data import Viewed
from mimic_wds.storage.browse import Browser, open_browser
from mimic_wds.storage.files import atomic_write

#: Where Debian's packages chromium and chromium-driver install them.
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"

SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
)

#: Bytes of a picture at most, JPEG qualities that are tried, pixels around what is taken.
MOST_BYTES, QUALITIES, MARGIN = 250_000, (85, 78, 71, 64, 57, 50), 10

#: Shows that a page has all it shows.
READY = """
return Promise.all([...document.images].map((image) => image.decode().catch(() => 0)))
  .then(() => new Promise((done) => setTimeout(done, 300)));
"""

#: (x, y, width, height) in pixels of the page around all elements of some selectors.
AROUND = """
const boxes = arguments[0].map((selector) => document.querySelector(selector).getBoundingClientRect());
const left = Math.min(...boxes.map((b) => b.left)), top = Math.min(...boxes.map((b) => b.top));
const right = Math.max(...boxes.map((b) => b.right)), bottom = Math.max(...boxes.map((b) => b.bottom));
return [left + scrollX, top + scrollY, right - left, bottom - top];
"""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture of a part of a page: all between some elements."""

    name: str  #: of the file in docs/
    around: tuple[str, ...]  #: CSS selectors
    path: str = ""  #: after the page's address
    dark: bool = False
    width: int = 1000  #: of the window, pixels
    most_height: int = 1400  #: pixels; what is below is cut off
    before: str = ""  #: JavaScript that is run first


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page and its pictures. `serve` gives its address while its context lasts."""

    serve: Callable[[Browser], AbstractContextManager[str]]
    shots: list[Shot] = field(default_factory=list)


@contextmanager
def serve_report(browser: Browser) -> Iterator[str]:
    """The report as a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(report_page(browser, samples=1000, num=2, seed=2, note=lambda: None), encoding="utf-8")
        yield file.as_uri()


@contextmanager
def serve_viewer(browser: Browser) -> Iterator[str]:
    """The viewer's server."""
    viewed = Viewed(browser)
    with ViewerServer(viewed) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.url.rstrip("/")
        finally:
            viewed.scans.stop_all()
            server.shutdown()
            thread.join()


@contextmanager
def serve_explained(browser: Browser) -> Iterator[str]:
    """Why the first pair of the data set was kept, from its two views as they are stored."""
    members = [browser.read(0)[1][name] for name in ("0.jpg", "1.jpg")]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("view0.jpg", "view1.jpg")]
        for path, data in zip(paths, members, strict=True):
            path.write_bytes(data)
        page = Path(folder) / "explain.html"
        explain(tuple(map(str, paths)), out=page)
        yield page.as_uri()


PAGES = {
    "explain": Page(
        serve=serve_explained,
        shots=[
            Shot(name="explain-matches.jpg", around=("h1", ".step:nth-of-type(3)"), most_height=2000, width=760),
            Shot(name="explain-votes.jpg", around=(".step:nth-of-type(5)",), width=760),
        ],
    ),
    "report": Page(
        serve=serve_report,
        shots=[
            Shot(name="report-numbers.png", around=("h1", "section[aria-labelledby=overlap] figure"), most_height=1600),
            Shot(name="report-outliers.jpg", around=("#light", "#light ~ article"), dark=True),
            Shot(
                name="report-gallery.jpg",
                around=("#gallery", "#gallery ~ article:nth-of-type(2)"),
                before="""
                const slider = document.querySelector("#gallery ~ article input");
                slider.value = 70; slider.dispatchEvent(new Event("input"));""",
            ),
        ],
    ),
    "viewer": Page(
        serve=serve_viewer,
        shots=[
            Shot(name="view-list.jpg", around=("body",), most_height=900),
            Shot(name="view-sample.jpg", around=("header", "#stack"), path="/sample/12"),
        ],
    ),
}


@contextmanager
def open_chromium() -> Iterator[Any]:
    """Chromium without a window, with a profile of its own."""
    from selenium import webdriver

    os.environ["SE_OFFLINE"], os.environ["SE_AVOID_STATS"] = "true", "true"
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for switch in (*SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


def take(driver: Any, address: str, shot: Shot) -> bytes:
    """A shot as PNG."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if shot.dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.set_window_size(shot.width, 900)
    driver.get(address + shot.path)
    driver.execute_script(READY)
    driver.execute_script(shot.before)
    x, y, width, height = driver.execute_script(AROUND, list(shot.around))
    left, top = max(x - MARGIN, 0), max(y - MARGIN, 0)
    right = min(x + width + MARGIN, driver.execute_script("return document.documentElement.clientWidth"))
    high = min(y + height + MARGIN - top, shot.most_height)
    clip = {"x": left, "y": top, "width": right - left, "height": high, "scale": 1}
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    return base64.b64decode(taken["data"])


def small(png: bytes, name: str) -> bytes:
    """A picture as its name wants it. Raises ValueError when it cannot be small."""
    if name.endswith(".png"):
        candidates = [png]
    else:
        pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError(f"{name}: the browser's picture does not decode")
        candidates = [
            cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes() for quality in QUALITIES
        ]
    for data in candidates:
        if len(data) <= MOST_BYTES:
            return data
    raise ValueError(f"{name}: {len(candidates[-1]):,} bytes, more than {MOST_BYTES:,}; take less of the page")


def main() -> int:
    """Take all pictures, or those of one page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_set", help="folder or URL of a data set of pairs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs", help="folder of the pictures")
    parser.add_argument("--only", choices=[*PAGES], help="take those of this page only")
    args = parser.parse_args()
    browser = open_browser(args.data_set)
    args.out.mkdir(parents=True, exist_ok=True)
    with open_chromium() as driver:
        for name in [args.only] if args.only else PAGES:
            with PAGES[name].serve(browser) as address:
                for shot in PAGES[name].shots:
                    data = small(take(driver, address, shot), shot.name)
                    with atomic_write(args.out / shot.name) as file:
                        file.write(data)
                    print(f"{args.out / shot.name}: {len(data):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
