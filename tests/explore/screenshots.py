"""The pictures of docs/explore.md: ``python -m tests.explore.screenshots``. Look at them before they are committed."""

from __future__ import annotations

import io
import time

from PIL import Image  # which matplotlib brings

from gdsl.explore.command import EXAMPLE
from tests.explore.driving import Page, browsing, colours, missing, resize
from tests.explore.serving import REPOSITORY, serving

FOLDER = REPOSITORY / "docs" / "images"
# What a picture in the repository may weigh.
MOST_BYTES = 150_000


def shoot(page: Page, name: str) -> None:
    """Save what is shown, once nothing moves any more."""
    time.sleep(0.6)
    picture = Image.open(io.BytesIO(page.driver.get_screenshot_as_png()))
    path = FOLDER / f"{name}.png"
    # A page has few colours: a palette takes a third of the bytes.
    picture.convert("RGB").quantize(160).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(REPOSITORY)}: {size / 1000:.0f} kB")
    assert size < MOST_BYTES, f"{name} has {size} bytes"


def main() -> None:
    why = missing()
    if why:
        raise SystemExit(why)
    FOLDER.mkdir(exist_ok=True)
    with serving() as served, browsing() as page:
        resize(page, 1280, 800)
        page.open(served.url)
        page.write(EXAMPLE)
        page.tab("code")
        page.run("app.change({code: {...app.code, kernel: 'Attention_1', open: true}})")
        page.wait(lambda: len(page.all("#machine .row")) > 50)
        page.hover(page.find("#under .row[data-line='8']"), -100)
        page.wait(lambda: page.look("litInSight('machine')"))
        page.run("byId('source').scrollTop = 470")
        shoot(page, "explore-code")

        colours(page, "dark")
        page.tab("rewrites")
        for _ in range(3):
            page.find("#next").click()
        shoot(page, "explore-rewrites")

        colours(page, "light")
        page.tab("cost")
        page.find("#device option[value='2']").click()
        page.settled()
        shoot(page, "explore-cost")


if __name__ == "__main__":
    main()
