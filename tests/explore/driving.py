"""A real Chromium for the tests of ``gdsl explore``, and the screenshots of its documentation."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

PATIENCE = 20.0
LOOKING = Path(__file__).with_name("looking.js").read_text(encoding="utf-8")


def missing() -> str | None:
    """Why there is no browser here."""
    programs = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(programs)}: Debian has chromium and chromium-driver" if programs else None


class Page:
    """The page in a browser, by what a user sees and does."""

    def __init__(self, driver: Chrome):
        self.driver = driver

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def look(self, expression: str) -> Any:
        """What an expression gives, with the functions of ``looking.js``."""
        return self.run(f"{LOOKING}\nreturn {expression}")

    def find(self, css: str) -> WebElement:
        """The first element of a selector, when it is there."""
        return self.wait(lambda: next(iter(self.all(css)), None), css)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self, css: str = "#pane") -> str:
        return self.find(css).text

    def wait(self, condition: Callable[[], Any], what: str = "") -> Any:
        """What a condition gives as soon as it holds; elements that are drawn anew meanwhile are looked up again."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(Exception):
                found = condition()
                if found:
                    return found
            time.sleep(0.02)
        raise AssertionError(f"waited in vain for {what or condition}; the pane says: {self.text()[:400]}")

    def open(self, url: str) -> None:
        """Load a page and wait until all of it is there."""
        self.driver.get("about:blank")
        self.driver.get(url)
        self.wait(lambda: self.run("return app.view && !app.view.loading && app.machines.length > 0"), "the compiler")

    def write(self, text: str) -> None:
        """Put a text in the place of the one that is there, as pasting does."""
        before = self.run("return document.body.dataset.shown")
        self.find("#text").click()
        self.keys(Keys.CONTROL, "a")
        self.driver.execute_cdp_cmd("Input.insertText", {"text": text})
        self.wait(lambda: self.run("return document.body.dataset.shown") != before, "an answer")
        self.settled(text)

    def settled(self, text: str | None = None) -> None:
        """Wait until what is shown belongs to the text."""
        script = "return app.view.text === app.editor.text && byId('status').textContent === ''"
        self.wait(lambda: self.run(script), f"a view of {text!r}" if text else "a view")

    def keys(self, *keys: str) -> None:
        """Press keys on what has the focus: those before the last are held."""
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.driver)
        for key in keys[:-1]:
            chain.key_down(key)
        chain.send_keys(keys[-1])
        for key in keys[:-1]:
            chain.key_up(key)
        chain.perform()

    def hover(self, element: WebElement, x: int = 0, y: int = 0) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).move_to_element_with_offset(element, x, y).perform()

    def tab(self, name: str) -> None:
        """Open a view by a click."""
        self.find(f"#tab-{name}").click()
        self.wait(lambda: self.run("return app.tab") == name)

    def focused(self) -> str:
        """What has the focus: its id, or its text."""
        return self.run("const e = document.activeElement; return e.id || e.textContent")

    def complaints(self) -> list[str]:
        """What the browser's console says: scripts that failed, and what the policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser") if "favicon" not in entry["message"]]  # type: ignore[attr-defined]


@contextlib.contextmanager
def browsing(width: int = 1440, height: int = 900) -> Iterator[Page]:
    """A browser without a window, that reaches nothing but this machine."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    wanted = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--lang=en"]
    # Chromium refuses its sandbox to root, which tests in containers often are.
    wanted += ["--no-sandbox"] if os.geteuid() == 0 else []
    for argument in (*wanted, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        page = Page(driver)
        resize(page, width, height)
        yield page
    finally:
        driver.quit()


def resize(page: Page, width: int, height: int = 900, scale: float = 1.0) -> None:
    """The size of what is shown, whatever the window's frame takes."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def colours(page: Page, scheme: str) -> None:
    """Light or dark, as a system asks for it."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
