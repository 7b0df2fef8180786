"""``%%gdsl`` in a cell."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from string import ascii_lowercase
from typing import Any

import pytest
import torch

pytest.importorskip("IPython", reason="IPython is not installed")

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import gdsl
from gdsl.errors import InputError
from gdsl.notebook import Defined, load_ipython_extension, run
from tests.screen import fits, visible

TEXT = """
layer A(d, k = 2) {
    node x[d]
    param w[d, k] ~ glorot
    message m = x[j] @ w
    aggregate y = sum(m)
    return y
}

layer B(d, word = "add") {
    module nn
    node x[d]
    update y = nn(x)
}
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A shell without the user's settings and history."""
    config = Config({"HistoryManager": {"enabled": False}})
    return InteractiveShell(config=config, ipython_dir=str(tmp_path_factory.mktemp("ipython")))


@pytest.fixture
def shell(started: Any) -> Iterator[Any]:
    """A shell with the extension, and no names of another test."""
    known = set(started.user_ns)
    load_ipython_extension(started)
    yield started
    for name in set(started.user_ns) - known:
        del started.user_ns[name]


def test_classes(shell: Any) -> None:
    ran = shell.run_cell("%%gdsl" + TEXT)
    assert ran.success
    assert repr(ran.result) == 'defined layer A(d, k = 2)\ndefined layer B(d, word = "add")'
    assert visible(ran.result._repr_html_().replace("code>", "b>")) == 4
    A = shell.user_ns["A"]
    assert issubclass(A, gdsl.Layer)
    assert A(d=3)(torch.ones(2, 3), torch.tensor([[0], [1]])).shape == (2, 2)
    # A cell later, as Python.
    assert shell.run_cell("made = B(d=3, nn=__import__('torch').nn.Linear(3, 3))").success


def test_a_layer(shell: Any) -> None:
    shell.user_ns["linear"] = torch.nn.Linear(3, 5)
    ran = shell.run_cell("%%gdsl conv --layer A d=3 k=4 backend=torch" + TEXT)
    conv = shell.user_ns["conv"]
    assert ran.result is conv
    assert conv.arguments == {"d": 3, "k": 4}
    assert conv.backend == "torch"
    assert "A" not in shell.user_ns
    assert shell.run_cell("%%gdsl other --layer B d=3 nn=linear" + TEXT).success
    assert shell.user_ns["other"](torch.ones(2, 3), torch.tensor([[0], [1]])).shape == (2, 5)
    assert shell.user_ns["other"].nn is shell.user_ns["linear"]


def test_a_mistake_is_shown_with_a_caret(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ran = shell.run_cell("%%gdsl\nlayer A(d) {\n    node x[d]\n    message m = x\n    update y = x\n}")
    assert isinstance(ran.error_in_exec, gdsl.LanguageError)  # so that the cells below do not run
    out = capsys.readouterr().out
    assert "--> A, line 4, column 17\n  |\n4 |     message m = x\n  |                 ^" in out
    assert "did you mean x[j]?" in out
    assert "Traceback" not in out
    assert ".py" not in out
    assert "A" not in shell.user_ns
    shell.run_cell("%%gdsl\nlayer A(d) {\n    node x[d]\n    mesage m = x\n    update y = x\n}")
    assert "4 |     mesage m = x\n  |     ^^^^^^" in capsys.readouterr().out


def test_a_warning(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run_cell("%%gdsl\nlayer A(d) {\n    node x[d]\n    h = x\n    update y = x\n}").success
    err = capsys.readouterr().err
    assert "warning: the value of `h` is never read\n  --> A, line 4" in err
    assert "LanguageWarning" not in err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("conv --layer C d=3", "has no layer `C`"),
        ("d=3", "needs a name"),
        ("--layer A", "needs a name"),
        ("conv d", "`d` is not understood"),
        ("conv d=3 d=4 --layer A", "`d=4` is not understood"),
        ("conv 'd=3", "no closing quotation"),
        ("lambda --layer A d=3", "a word of Python"),
        ("conv d=3", "has 2 layers"),
        ("conv --layer A q=3 d=3", "q"),
        ("conv --layer A", "d"),
        ("conv --layer B d=3 nn=missing", "nn"),
        ("conv --layer A d=3 backend=fast", "no backend"),
    ],
)
def test_mistakes_of_the_line(line: str, why: str, shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ran = shell.run_cell(f"%%gdsl {line}" + TEXT)
    assert isinstance(ran.error_in_exec, Exception)
    out = capsys.readouterr().out
    assert why in out
    assert "Traceback" not in out
    assert "conv" not in shell.user_ns


def test_neither_the_text_nor_a_value_is_run(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    shell.user_ns["hit"] = ran.append
    for cell in (
        "%%gdsl\nhit('text')",
        "%%gdsl\n!touch file\n%time hit('line')",
        "%%gdsl conv d=hit('value')" + TEXT,
        "%%gdsl conv --layer B d=3 nn=hit('module')" + TEXT,
        "%%gdsl conv d=__import__('os')" + TEXT,
        '%%gdsl\nlayer A(word = "{hit(1)} $hit") { node x[2] update y = x }',
    ):
        shell.run_cell(cell)
    assert ran == []


@pytest.mark.parametrize(
    ("cell", "some", "none"),
    [
        ("%%gdsl\nlayer A(d) {\n    node x[d]\n    mes|\n}", ["message"], ["x", "memoryview"]),
        ("%%gdsl\nlayer A(d) {\n    node features[d]\n    y = 2 * fea|", ["features"], ["relu"]),
        ("%%gdsl conv d=3\nlayer A(d) {\n    node x[d]\n    graph |", ["add_self_loops"], ["print"]),
        ("mes = 1\nme|", ["memoryview"], ["message"]),
        ("%%time\nme|", ["memoryview"], ["message"]),
    ],
)
def test_completion(cell: str, some: list[str], none: list[str], shell: Any) -> None:
    from IPython.core.completer import provisionalcompleter

    at = cell.index("|")
    text = cell.replace("|", "")
    with provisionalcompleter():
        offered = list(shell.Completer.completions(text, at))
    assert set(some) <= {c.text for c in offered}
    assert not set(none) & {c.text for c in offered}
    for c in offered:
        assert text[: c.start] + text[c.end :] == text[:at].rstrip(ascii_lowercase) + text[at:]


def test_what_many_layers_show() -> None:
    text = "".join(f"layer L{k}(d, a = {k}) {{ node x[d] update y = a * x }}\n" for k in range(30))
    names: dict[str, Any] = {}
    shown = run("", text, names)
    assert len(names) == 30
    assert isinstance(shown, Defined)
    assert fits(repr(shown))
    with pytest.raises(InputError, match="a word of Python"):
        run("", "layer class { node x[2] update y = x }", names)


def test_loading_twice_and_unloading(shell: Any) -> None:
    shell.run_line_magic("load_ext", "gdsl.notebook")
    shell.run_line_magic("load_ext", "gdsl.notebook")
    assert shell.run_cell("%%gdsl" + TEXT).success
    shell.run_line_magic("unload_ext", "gdsl.notebook")
    assert shell.find_cell_magic("gdsl") is None
    assert not [m for m in shell.Completer.custom_matchers if "gdsl" in str(getattr(m, "matcher_identifier", ""))]
    assert "IPython" in sys.modules
