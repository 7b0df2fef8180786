"""``gdsl bench``: what it measures, what it prints, and what it says where something is missing. No time is checked."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gdsl.cli import main
from gdsl.errors import CommandError
from gdsl.language.parse import parse
from gdsl.look import measure
from gdsl.module import bench as module
from gdsl.module.bench import MODES, Setting, bench
from gdsl.runtime import cache

Capture = pytest.CaptureFixture[str]

SUM = "layer Sum(d, scale = 2.0) { node x[d]\n edge w = 1\n update y = sum(scale * w * x[j]) }"
PAIR = "layer Pair(d) { source x[d]\n target z[d]\n update y = sum(x[j]) + z }"
STACK = "layer Stack(d, K) { param w[K, d] ~ glorot\n node x[d]\n update y = sum[K](w * stack(x[j], K)) }"
BACK = "layer Back(d) { edge e[d]\n node x[d]\n update y = x + sum(e + e[reverse]) }"
KINDS = "layer Kinds(d, R) { param t[R, d] ~ glorot\n node x[d]\n edge r: int(R)\n update y = max(t[r] * x[j]) }"
NEAR = "layer Near(d, K) { node x[d]\n node p[3]\n graph knn(p, K)\n update y = max(x[j] - x[i]) }"
SETS = (
    "layer Sets(d) { nodes p, q\n graph g: p -> q, h: q -> q\n graph add_self_loops over h\n node x[d] in p\n"
    "node z[d] in q\n edge w in g\n update y = sum(w * x[j]) + sum(z[j]) over h }"
)
OWN = "layer Own { module nn\n node x[d]\n update y = sum(nn(x[j])) }"
TABLE = "layer Table(d) { const t[d]\n node x[d]\n update y = sum(t * x[j]) }"

DRAWS = """
layer Draws(d) {
    linear a(d -> d)
    param b[d] ~ normal
    node x[d]
    update y = b * sum(dropout(a(x)[j], 0.5))
}
"""


@pytest.fixture(autouse=True)
def _the_process_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command may do to its process would slow the tests that come after."""
    monkeypatch.setattr(measure, "give_back", lambda: None)
    monkeypatch.setattr(measure.gc, "collect", lambda: 0)


@pytest.fixture
def only_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler: what is printed does not need one."""
    monkeypatch.setattr(cache, "find_compiler", lambda: None)


def on(**more: Any) -> Setting:
    return Setting(**{"nodes": 30, "degree": 4, "seconds": 0.001, **more})


def run(text: str, given: dict[str, Any], **more: Any) -> module.Measured:
    return bench(parse(text).layers[0], given, on(**more))


def command(tmp_path: Path, text: str, *options: str) -> int:
    file = tmp_path / "layer.gdsl"
    file.write_text(text)
    return main(["bench", str(file), "--nodes", "20", "--seconds", "0.001", *options])


def test_a_table_with_ratio_and_memory(tmp_path: Path, capsys: Capture) -> None:
    assert command(tmp_path, SUM, "--set", "d=3", "--edges", "50", "--profile", "power-law") == 0
    out = capsys.readouterr().out
    assert out.startswith("Sum(d=3) on 20 nodes, 50 edges, float32")
    own = "cpp" if cache.find_compiler() else "torch"
    assert re.search(rf"{own} ms +torch ms +times +{own} MB +torch MB +times\n", out)
    assert re.search(r"\nforward( +[\d.,?e+-]+){6}\nforward \+ backward( +[\d.,?e+-]+){6}\n", out)
    assert float(re.search(r"largest difference (\S+)", out)[1]) < 1e-5  # type: ignore[index]


@pytest.mark.usefixtures("only_torch")
def test_what_is_asked_for_is_measured(tmp_path: Path, capsys: Capture) -> None:
    options = ("--set", "d=3", "scale=1", "--with", "w", "--dtype", "float64", "--mode", "forward", "--degree", "2")
    assert command(tmp_path, SUM, *options) == 0
    out = capsys.readouterr().out
    assert "20 nodes, 40 edges, float64" in out
    assert "backward" not in out
    assert "both are the same" in out


@pytest.mark.usefixtures("only_torch")
@pytest.mark.parametrize(
    ("text", "given", "more", "says"),
    [
        (PAIR, {"d": 2}, {"sources": 50}, "50 sources, 30 targets, 120 edges"),
        (SUM, {"d": 2}, {"profile": "regular"}, "degrees: 4 at each target"),
        (STACK, {"d": 2, "K": 3}, {}, "degrees: 3 each, as the program asks"),
        (BACK, {"d": 2}, {}, "edges: both ways, as the program asks"),
        (KINDS, {"d": 2, "R": 3}, {}, "degrees: random, "),
        (SUM, {"d": 2}, {"edges": 0}, "30 nodes, 0 edges"),
        (SUM, {"d": 2}, {"edges": 0, "profile": "power-law"}, "30 nodes, 0 edges"),
        (NEAR, {"d": 2, "K": 3}, {}, "30 nodes, float32"),
        (SETS, {"d": 2}, {}, "30 nodes in each of p, q, 120 edges in each of g, h, float32"),
    ],
)
def test_graphs_fit_the_program(text: str, given: dict[str, Any], more: dict[str, Any], says: str) -> None:
    found = run(text, given, **more)
    assert says in found.table()
    assert tuple(found.modes) == MODES


@pytest.mark.usefixtures("only_torch")
@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (KINDS, (), "Kinds can only be timed with a value of d, R: --set d=16 R=16"),
        (OWN, ("--set", "d=3"), "Own needs the torch module `nn`, which a command cannot give"),
        (TABLE, ("--set", "d=3"), "needs the numbers of `t`: --set t=t.npy, or .json"),
        (SUM, ("--set", "d=3", "--with", "v"), "no optional input `v`: it has w"),
        (SUM, ("--set", "d=3", "--sources", "4"), "--sources is of layers with source and target nodes"),
        (SUM, ("--set", "d=3", "--nodes", "0"), "at least one node"),
        (SUM, ("--set", "d=3", "--degree", "-1"), "no negative number of edges"),
        (SUM, ("--set", "d=3", "--seconds", "inf"), "--seconds inf: it is a number from 0"),
        (SUM, ("--set", "d=3", "--seconds", "nan"), "--seconds nan: it is a number from 0"),
        (NEAR, ("--set", "d=3", "K=2", "--edges", "9"), "Near makes its own edges"),
        (SUM, ("--set", "d=3", "--plot", "picture.unknown"), "Format 'unknown' is not supported"),
        (SUM, ("--set", "d=3", "--plot", "nowhere/picture.png"), "no such file or directory"),
        (SUM, ("--set", "d=3", "--backend", "triton", "--dtype", "float64", "--device", "cuda"), "finds no GPU"),
    ],
)
def test_what_is_missing_is_said_in_a_line(
    text: str, options: tuple[str, ...], says: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert command(tmp_path, text, *options) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1 + ("no C++ compiler" in err)


@pytest.mark.usefixtures("only_torch")
def test_a_picture(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "out.png"
    assert command(tmp_path, SUM, "--set", "d=3", "--plot", str(path)) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(CommandError, match=r"pip install 'gdsl\[plot\]'"):
        module.plot(run(SUM, {"d": 3}), path)


@pytest.mark.usefixtures("only_torch")
def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    both = module._Runs.both
    monkeypatch.setattr(module, "backend_for", lambda *_: "other")
    assert run(SUM, {"d": 3}, backend="auto").error == 0

    def wrong(self: Any) -> Any:
        return both(self) * (1 if self.layer.backend == "torch" else 2)

    monkeypatch.setattr(module._Runs, "both", wrong)
    assert run(SUM, {"d": 3}, backend="auto").error > 0.1


def test_backends_run_on_the_same_numbers_and_parameters() -> None:
    """Also where the program draws, and has parameters and linear maps."""
    if cache.find_compiler() is None:
        pytest.skip("no C++ compiler")
    text = (
        "layer L(d) { linear a(d -> d)\n param b[d] ~ normal\n node x[d]\n update y = b * sum(dropout(a(x)[j], 0.5)) }"
    )
    found = run(text, {"d": 3})
    assert found.backend == "cpp"
    assert found.error < 1e-5
