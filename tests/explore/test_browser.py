"""``gdsl explore`` in a real Chromium: what a person types, points at and reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium drives the browser")
pytest.importorskip("starlette", reason="the server is in the extra `explore`")
pytest.importorskip("uvicorn", reason="the server is in the extra `explore`")

from selenium.webdriver.common.keys import Keys

from gdsl.cli import main
from gdsl.explore.command import EXAMPLE
from tests.explore.driving import Page, browsing, colours, missing, resize
from tests.explore.serving import Served, serving

if missing():
    pytest.skip(missing() or "", allow_module_level=True)

PROGRAMS = sorted((Path(__file__).parents[2] / "gdsl/nn/programs").glob("*.gdsl"))
SOME = [p for p in PROGRAMS if p.stem in ("gat", "transformer")]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with browsing() as found:
        yield found


@pytest.fixture
def page(browser: Page, served: Served) -> Iterator[Page]:
    """The page with its example, new for each test. A script that fails fails the test."""
    resize(browser, 1440)
    colours(browser, "light")
    browser.open(served.url)
    yield browser
    assert browser.complaints() == []


def line(page: Page, number: int):
    return page.find(f"#under .row[data-line='{number}']")


# ------------------------------------------------------------------------------------- the text


def test_a_mistake_shows_as_it_is_typed_with_its_hint_and_goes_when_it_is_mended(page: Page) -> None:
    page.write(EXAMPLE.replace("relu(a)", "rel(a)"))
    shown = page.text("#mistakes")
    assert "unknown function `rel`" in shown and "line 11, column 19" in shown
    assert "hint did you mean `relu`?" in shown
    caret = page.run("return document.querySelector('#mistakes pre').textContent").split("\n")
    assert caret[0] == "11 |     update    y = rel(a)"
    assert caret[1] == "   | " + " " * 18 + "^^^"
    assert page.run("return document.querySelector('#under .error').textContent") == "rel"
    page.find("#mistakes button").click()  # goes to its place
    assert page.run("const t = byId('text'); return t.value.slice(t.selectionStart)").startswith("rel(a)")
    for _ in "rel":
        page.keys(Keys.ARROW_RIGHT)
    page.keys("u")
    page.wait(lambda: not page.all("#mistakes article"), "no mistakes")
    page.settled()
    assert "update    y = relu(a)" in page.run("return app.view.text")


def test_every_letter_is_where_the_colours_are(page: Page) -> None:
    page.write("# ünï 𝒢 \t x\nlayer A(d) {\n\tnode x[d]\n    update y = x\n}")
    assert page.look("colouredText() === byId('text').value")
    assert page.look("set('text')") == page.look("set('under')")
    assert page.run("return byId('text').scrollHeight - byId('text').clientHeight") <= 0
    assert page.look("indentOf(2)") == page.run("return parseFloat(getComputedStyle(byId('text')).paddingLeft)")


def test_a_new_line_keeps_its_indent_and_can_be_undone(page: Page) -> None:
    page.write("layer A(d) {")
    page.keys(Keys.ENTER)
    page.keys("node x[d]")
    page.keys(Keys.ENTER)
    page.keys("update y = x")
    page.settled("layer A(d) {\n    node x[d]\n    update y = x")
    for _ in range(40):  # keys that a driver presses are undone one by one
        page.keys(Keys.CONTROL, "z")
        if page.run("return app.editor.text") == "layer A(d) {":
            break
    assert page.run("return app.editor.text") == "layer A(d) {"
    assert page.look("colouredText()") == "layer A(d) {"
    page.settled()


def test_a_text_is_only_ever_text(page: Page) -> None:
    evil = "<img src=x onerror=alert(1)>"
    page.write(f'layer A(d) {{ # {evil}\n node x[d]\n update y = "{evil}"\n}}')
    assert page.all("img") == []
    assert evil in page.run("return byId('under').textContent")
    page.write(f'layer A(d, s = "{evil}") {{ node x[d] update y = x }} # {evil}')
    for name in ("line", "kernels", "code", "cost", "versions"):
        page.tab(name)
    assert page.all("img") == []


# ----------------------------------------------------------------------------------- what it becomes


def test_the_line_under_the_cursor(page: Page) -> None:
    page.find("#text").click()
    page.keys(Keys.CONTROL, Keys.HOME)
    for _ in range(8):
        page.keys(Keys.ARROW_DOWN)
    page.wait(lambda: page.text("#pane h2") == "Line 9")
    shown = page.text()
    assert "edge[out_channels]" in shown and "1,600,000" in shown
    assert "stop_gradient(max@i(score))" in shown
    page.wait(lambda: "d_score" in page.text(), "its gradient")
    page.find(".chip.forward").click()
    page.wait(lambda: page.run("return app.tab") == "code")
    assert page.run("return app.code.kernel") == "Attention_1"


def test_a_line_that_is_pointed_at_lights_its_assembly_and_the_other_way_round(page: Page) -> None:
    page.tab("code")
    page.run("app.change({code: {...app.code, kernel: 'Attention_1'}})")
    page.find("#compile").click()
    page.wait(lambda: len(page.all("#machine .row")) > 50, "assembly")
    page.hover(line(page, 8))
    page.wait(lambda: page.run("return app.hovered") == 8)
    lit = page.wait(lambda: page.look("texts('#machine .lit')"))
    assert len(lit) > 3 and len(lit) < len(page.all("#machine .row"))
    assert "score" in "".join(page.look("texts('#source .lit')"))
    page.wait(lambda: page.look("litInSight('machine')"), "what is lit in sight")
    row = page.wait(
        lambda: next(
            r for r in page.all("#machine .row.placed") if r.is_displayed() and r.get_attribute("data-line") == "8"
        )
    )
    page.run("arguments[0].scrollIntoView({block: 'center'})", row)
    page.hover(row)
    of = row.get_attribute("data-of")
    page.wait(lambda: page.all(f"#source .row.on[data-of='{of}']"), "the line of the source")
    page.wait(lambda: "lit" in line(page, 8).get_attribute("class"), "the line of the text")


def test_a_kernels_ptx(page: Page) -> None:
    page.tab("kernels")
    page.find(".box.kernel .boxhead").click()
    page.wait(lambda: "bytes" in page.text(".box.open .more"))
    page.find(".box.open .more .chip").click()
    page.find("#language option[value=triton]").click()
    page.find("#compile").click()
    page.wait(lambda: "ld.global" in page.text("#machine"), "PTX")
    assert "registers" in page.text()
    assert page.run("return document.querySelectorAll('#machine .placed').length") > 20


def test_stepping_through_the_rewrites(page: Page) -> None:
    page.tab("rewrites")
    page.wait(lambda: "0 of 3" in page.text("#stepper"))
    page.find("#next").click()
    page.wait(lambda: "1 of 3" in page.text("#stepper"))
    first = page.text()
    assert "-->" in first and page.all(".state .new") and page.all(".state .gone")
    page.keys(Keys.ARROW_RIGHT)
    page.keys(Keys.ARROW_RIGHT)
    page.wait(lambda: "3 of 3" in page.text("#stepper"))
    assert "aggregate first" in page.text()
    assert "sum@i(t2 * x[j])" in page.text(".state:last-child")
    page.find("#section option[value='1']").click()
    page.wait(lambda: "0 of 1" in page.text("#stepper"))
    page.wait(lambda: "d_a = where(y <= 0, 0, d_y)" in page.text())


def test_boxes_and_arrows_of_both_directions(page: Page) -> None:
    page.tab("kernels")
    page.wait(lambda: len(page.all(".arrow")) > 5, "arrows")
    assert (
        page.all(".column.forward .box.kernel") and page.all(".column.backward .box.kernel") and page.all(".arrow.kept")
    )
    paths = page.run("return [...document.querySelectorAll('.arrow')].map(p => p.getTotalLength())")
    assert min(paths) > 5
    page.hover(line(page, 10))
    page.wait(lambda: page.all(".box.lit"), "the kernel of the line")


def points(page: Page) -> list[list[str]]:
    return page.look("points()")


def test_sizes_degrees_and_machines_move_the_roofline(page: Page) -> None:
    page.tab("cost")
    before = page.wait(lambda: points(page))
    totals = page.text("#totals")
    slider = page.find("#size-out_channels")
    slider.send_keys(Keys.ARROW_RIGHT * 20)
    page.settled()
    page.wait(lambda: points(page) != before, "other points")
    assert page.run("return app.view.arguments.find(a => a.name === 'out_channels').value") != "32"
    assert page.text("#totals") != totals
    roof = page.run("return document.querySelector('.roof').getAttribute('d')")
    page.find("#device option[value='2']").click()
    page.wait(lambda: "H100" in page.text("#pane h2"))
    assert page.run("return document.querySelector('.roof').getAttribute('d')") != roof
    assert "all nodes alike: median 16" in page.text()
    page.find("#profile option[value=skewed]").click()
    page.wait(lambda: "few nodes with most edges" in page.text("#pane section:last-child"))
    before_, totals = points(page), page.text("#totals")
    page.find("#size-degree").send_keys(Keys.ARROW_RIGHT * 20)
    page.wait(lambda: page.text("#totals") != totals)
    page.settled()
    assert points(page) != before_


def test_a_number_that_is_typed(page: Page) -> None:
    page.tab("line")
    page.find("#size-in_channels-number").click()
    page.keys(Keys.CONTROL, "a")
    page.keys("48" + Keys.ENTER)
    page.wait(lambda: page.run("return app.view.arguments.find(a => a.name === 'in_channels').value") == "48")


def test_one_node_step_by_step(page: Page) -> None:
    page.tab("node")
    page.wait(lambda: "1 of 5" in page.text())
    page.find("#nodenext").click()
    page.wait(lambda: "2 of 5" in page.text())
    assert page.text().count("from ") >= 4
    page.find("#nodeprofile option[value=skewed]").click()
    page.wait(lambda: page.run("return app.nodeView && app.nodeView.key") == "skewed/0")
    page.find("#nodenext").click()
    page.wait(lambda: page.run("return document.querySelectorAll('.numbers tr').length") == 11)


def test_two_versions(page: Page) -> None:
    page.tab("versions")
    page.find("#pin").click()
    page.wait(lambda: "the same" in page.text())
    page.write(EXAMPLE.replace("relu(a)", "tanh(a)").replace("leaky_relu", "leaky_relu"))
    page.wait(lambda: page.all(".diff .new"))
    assert "tanh(a)" in page.text() and "forward: kernels" in page.text()


# ------------------------------------------------------------------------------- links, files, windows


def test_a_link_is_the_text_itself(page: Page, served: Served) -> None:
    text = EXAMPLE.replace("relu(a)", "tanh(a)  # 𝒢 & = + %")
    page.write(text)
    page.find("#share").click()
    link = page.wait(lambda: "#" in page.driver.current_url and page.driver.current_url)
    page.write(EXAMPLE)
    page.open(link)
    assert page.run("return app.editor.text") == text
    assert served.url in link


def test_a_file_that_is_saved_elsewhere_is_followed_until_one_types_here(browser: Page, tmp_path: Path) -> None:
    path = tmp_path / "a.gdsl"
    path.write_text(EXAMPLE)
    resize(browser, 1440)
    with serving(str(path)) as own:
        browser.open(own.url)
        path.write_text(EXAMPLE.replace("relu(a)", "tanh(a)"))
        browser.wait(lambda: "tanh(a)" in browser.run("return app.view.text"))
        mine = EXAMPLE.replace("relu(a)", "sigmoid(a)")
        browser.write(mine)
        path.write_text(EXAMPLE.replace("relu(a)", "exp(a)"))
        browser.wait(lambda: "the file has changed" in browser.text("#status"))
        assert browser.run("return app.editor.text") == mine
        browser.driver.get("about:blank")
        assert browser.complaints() == []


def test_a_file_that_opens_without_a_server(
    browser: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gdsl.explore.view._SHOWN", (("cpp", "asm"),))  # compiling for a GPU takes seconds
    monkeypatch.setattr("gdsl.explore.view.compile_together", lambda kernels: [])
    program = tmp_path / "a.gdsl"
    program.write_text(EXAMPLE)
    assert main(["explore", str(program), "--html", str(tmp_path / "out.html"), "--set", "out_channels=8"]) == 0
    resize(browser, 1440)
    browser.open((tmp_path / "out.html").as_uri())
    assert browser.run("return app.view.arguments.find(a => a.name === 'out_channels').value") == "8"
    browser.tab("rewrites")
    browser.find("#next").click()
    browser.wait(lambda: "1 of" in browser.text("#stepper"))
    browser.tab("code")
    browser.find("#compile").click()
    browser.wait(lambda: len(browser.all("#machine .row")) > 20)
    browser.tab("cost")
    before = browser.text("#totals")
    browser.find("#size-nodes").send_keys(Keys.ARROW_RIGHT * 20)
    browser.wait(lambda: browser.text("#totals") != before)
    browser.tab("node")
    browser.wait(lambda: "1 of" in browser.text())
    assert browser.run("return byId('text').readOnly")
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [360, 900])
def test_a_narrow_window(page: Page, width: int) -> None:
    resize(page, width, 800)
    for name in ("line", "rewrites", "kernels", "code", "cost", "node", "versions"):
        page.tab(name)
        page.wait(lambda: page.run("return !byId('pane').textContent.includes('Computing')"))
        wide = page.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} is {wide} pixels too wide"
        assert page.run("const p = byId('pane'); return p.scrollWidth - p.clientWidth") <= 1, name


def test_the_keyboard_alone(page: Page) -> None:
    page.run("byId('text').focus()")
    page.keys(Keys.TAB)  # leaves the text
    assert page.focused() != "text"
    seen = []
    for _ in range(30):
        seen.append(page.focused())
        if seen[-1] == "tab-line":
            break
        page.keys(Keys.TAB)
    assert {"size-in_channels", "size-degree", "profile", "device", "tab-line"} <= set(seen)
    page.keys(Keys.ARROW_RIGHT)
    page.wait(lambda: page.focused() == "tab-rewrites")
    page.wait(lambda: page.all("#next"))
    for _ in range(6):
        page.keys(Keys.TAB)
        if page.focused() in ("back", "next"):
            break
    page.keys(Keys.ENTER)
    page.wait(lambda: "1 of 3" in page.text("#stepper"))
    page.keys(Keys.ARROW_RIGHT)
    page.wait(lambda: "2 of 3" in page.text("#stepper"))
    page.run("byId('tab-rewrites').focus()")
    page.keys(Keys.END)
    page.wait(lambda: page.focused() == "tab-versions")
    # What has the focus can be seen.
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_can_be_read(page: Page, scheme: str) -> None:
    colours(page, scheme)
    page.write(EXAMPLE.replace("relu(a)", "rel(a)").replace("0.2)", '0.2) # "x"'))
    assert page.look("pale()") == []
    page.write(EXAMPLE)
    for name in ("line", "rewrites", "kernels", "code", "cost", "node"):
        page.tab(name)
        page.wait(lambda: page.run("return !byId('pane').textContent.includes('Computing')"))
        if name == "rewrites":
            page.find("#next").click()
        assert page.look("pale()") == [], name


# ---------------------------------------------------------------------------------------------- time


def test_how_long_it_takes(browser: Page, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the time to the first paint of a server that just started, and of edits. Numbers are for people."""
    with serving() as new:
        browser.driver.get(new.url)
        painted = browser.wait(
            lambda: browser.run("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        )
        browser.wait(lambda: browser.run("return app.view && !app.view.loading && app.machines.length > 0"))
        edits = {path.stem: edit(browser, path) for path in SOME}
    with capsys.disabled():
        shown = ", ".join(f"{name} {ms:.0f}" for name, ms in edits.items())
        print(f"\n  the server listens after {new.seconds:.2f} s, and the page is painted {painted / 1000:.2f} s later")
        print(f"  an edit is shown after (ms): {shown}")
    assert all(ms > 0 for ms in edits.values())


@pytest.mark.slow
def test_how_long_an_edit_of_each_layer_takes(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    found = {path.stem: edit(page, path) for path in PROGRAMS}
    with capsys.disabled():
        print(f"\n  {sorted(((round(ms), name) for name, ms in found.items()), reverse=True)}")
    assert len(found) == len(PROGRAMS)


def edit(page: Page, path: Path) -> float:
    """Milliseconds from a keystroke in a program to its view, beside the wait for another keystroke."""
    text = path.read_text()
    page.write(text)
    page.tab("kernels")
    page.settled()
    page.look("toTheEnd()")
    page.keys(" ")
    return float(page.wait(lambda: page.run("return document.body.dataset.shownMs"), "a measurement"))


def test_the_example_is_the_one_of_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    rules = re.findall(r"^ {4}(?:h|score|message|aggregate|update) .*$", EXAMPLE, re.M)
    assert all(rule in readme for rule in rules)
