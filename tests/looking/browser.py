"""A real browser for tests of pages: Chromium without a window, driven by Selenium. Nothing is downloaded.

`from browser import driver, page` makes the fixtures known in a test module (with `# noqa: F401, F811`). Where
Chromium, its driver or Selenium is missing, tests that ask for them skip and say so.
"""

import io
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"

SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--force-device-scale-factor=1",
    "--window-size=1200,900",
)

#: Colours as the page computes them -> WCAG 2.2 contrast of every element that has text of its own.
CONTRASTS = """
const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgba = (text) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
};
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
const behind = (node) => {
  const layers = [];
  for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
};
const found = [];
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
  if (!own || !node.checkVisibility({opacityProperty: true, visibilityProperty: true}) || node.disabled) continue;
  if (node.closest("svg") || ["SCRIPT", "STYLE", "OPTION"].includes(node.tagName)) continue;
  const style = getComputedStyle(node), ground = behind(node), ink = over(rgba(style.color), ground);
  const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const text = node.textContent.trim().slice(0, 40);
  found.push([(a + 0.05) / (b + 0.05), large ? 3 : 4.5, node.tagName + "." + node.className, text]);
}
return found;
"""

#: Controls that a screen reader cannot name, and pictures without a text.
UNNAMED = """
const nameless = [...document.querySelectorAll("input, select, textarea, button, a[href]")].filter((node) => {
  if (!node.checkVisibility() || node.type === "hidden") return false;
  const by = (node.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id));
  const text = [node.getAttribute("aria-label"), ...by.map((n) => n && n.textContent),
                ...[...(node.labels || [])].map((n) => n.textContent)];
  if (["BUTTON", "A"].includes(node.tagName)) text.push(node.textContent, node.title);
  if (["BUTTON", "A"].includes(node.tagName)) text.push(...[...node.querySelectorAll("img")].map((n) => n.alt));
  return !text.some((part) => part && part.trim());
});
const pictures = [...document.querySelectorAll("img:not([alt])")];
return [...nameless, ...pictures].map((node) => node.outerHTML.slice(0, 120));
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """One browser for all tests of a worker, with a profile of its own; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    for program in (CHROMIUM, DRIVER):
        if not shutil.which(program):
            pytest.skip(f"no {program}: install chromium and chromium-driver")
    os.environ["SE_OFFLINE"], os.environ["SE_AVOID_STATS"] = "true", "true"
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    browser.set_page_load_timeout(30)
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def page(driver):
    """The browser with an empty page, the usual size of its window, light colours and no old messages."""
    driver.get("about:blank")
    driver.set_window_size(1200, 900)
    set_media(driver)
    driver.get_log("browser")
    return driver


def open_file(driver, path: Path) -> None:
    """Show a local file, as a click on it would."""
    driver.get(path.resolve().as_uri())


def set_media(driver, scheme: str = "light", motion: str = "no-preference") -> None:
    """What the reader of the page prefers: "light" or "dark" colours, motion or "reduce"."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": motion},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def console_errors(driver) -> list[str]:
    """What the browser complained of since the last call: errors of scripts, blocked or missing resources."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def screenshot_pixels(driver, element=None) -> np.ndarray:
    """(H, W, 3) uint8 RGB: what the window shows, or one element."""
    png = driver.get_screenshot_as_png() if element is None else element.screenshot_as_png
    bgr = cv2.imdecode(np.frombuffer(io.BytesIO(png).getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def low_contrast(driver) -> list[tuple[float, float, str, str]]:
    """Texts whose contrast is below WCAG 2.2 AA: (contrast, needed, element, text). None is what a page should have.

    Background pictures and gradients are not looked at.
    """
    found = driver.execute_script(CONTRASTS)
    assert found, "the page shows no text"
    return [tuple(item) for item in found if item[0] < item[1] - 0.005]


def unnamed(driver) -> list[str]:
    """Controls without a name for screen readers, and pictures without an alternative text."""
    return driver.execute_script(UNNAMED)


def focus_order(driver, presses: int) -> list[str]:
    """What has the focus after each press of Tab: id, else the tag's name."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    order = []
    for _ in range(presses):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        order.append(driver.execute_script("const a = document.activeElement; return a.id || a.tagName.toLowerCase()"))
    return order


def press(driver, *keys: str) -> None:
    """Press keys one after the other, on whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(driver).send_keys(key).perform()


def wait_for(driver, script: str, timeout_s: float = 20.0):
    """The value of a JavaScript expression as soon as it is truthy. Raises selenium's TimeoutException."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, timeout_s, poll_frequency=0.05).until(lambda d: d.execute_script(f"return {script}"))
