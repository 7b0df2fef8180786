"""Each benchmark runs to its end on a tiny graph and writes what the report reads. No timing is checked."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

MACHINE = {"date", "command", "commit", "versions", "cpu", "cores", "threads", "ceilings"}
PLACES = (
    *(
        "layers",
        "startup",
        "small",
        "scaling",
        "networks",
        "gpu",
        "instructions",
        "streams",
        "epochs",
        "fresh",
        "products",
        "prepare",
    ),
    "library-power-law",
)
MARKERS = "".join(f"<!-- begin {n} -->\nold\n<!-- end {n} -->\n" for n in PLACES)


def _run(repository: Path, script: str, *arguments: str, **variables: str) -> str:
    paths = filter(None, [str(repository), os.environ.get("PYTHONPATH")])
    done = subprocess.run(
        [sys.executable, str(repository / "benchmarks" / script), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _found(repository: Path, folder: Path, script: str, *arguments: str) -> dict[str, Any]:
    """What a benchmark writes, after the report has put it into a page."""
    path, page = folder / "found.json", folder / "page.md"
    _run(repository, script, *arguments, "--tiny", "--threads", "1", "--json", str(path))
    found = json.loads(path.read_text())
    assert found["machine"].keys() - {"gpu"} == MACHINE
    assert str(folder) not in found["machine"]["command"]
    page.write_text(MARKERS)
    _run(repository, "report.py", str(path), "--page", str(page))
    text = page.read_text()
    assert text.count("\nold\n") == len(PLACES) - 1
    assert found["machine"]["date"] in text
    return found


def _layers(repository: Path, folder: Path, layers: str, peers: str) -> dict[str, Any]:
    size = ("--nodes", "500", "--edges", "5000", "--repeats", "2", "--calls", "1")
    return _found(repository, folder, "layers.py", *size, "--layers", layers, "--peers", peers)


def test_layers(repository: Path, tmp_path: Path) -> None:
    found = _layers(repository, tmp_path, "GCN", "torch.sparse")
    assert found["graph"] == {"name": "power-law", "nodes": 500, "edges": 5000}
    ours, theirs = found["results"]
    assert (ours["implementation"], theirs["implementation"]) == ("gdsl", "torch.sparse")
    for row in found["results"]:
        assert max(row["difference"].values()) < 1e-3
        assert row["difference"].keys() == {"y", "x", "weight", "bias"}
        assert row["first_call"].keys() == {"build_s", "forward_s", "both_s"}
        assert row["graph_mb"] > 0
        for mode in ("forward", "both"):
            assert len(row[mode]["rounds"]) == 2
            assert row[mode]["q1"] <= row[mode]["ms"] <= row[mode]["q3"]
            assert row["memory"][mode].keys() >= {"mb"}
            assert row[mode]["fresh"]["ms"] > 0 and len(row[mode]["fresh"]["rounds"]) == 2
    assert all("over_gdsl" in theirs[mode]["fresh"] for mode in ("forward", "both"))
    assert all("over_gdsl" in theirs[mode] and "over_gdsl" not in ours[mode] for mode in ("forward", "both"))


@pytest.mark.slow
def test_every_layer_agrees_with_its_peers(repository: Path, tmp_path: Path) -> None:
    layers = ["GCN", "SAGE", "SAGE-max", "GIN", "GAT", "GATv2", "AGNN", "Transformer", "EdgeConv"]
    layers += ["PointNet", "CGConv", "NNConv", "GMM", "RGCN", "PNA"]
    found = _layers(repository, tmp_path, ",".join(layers), "pyg-sorted,torch.sparse")
    assert [r["layer"] for r in found["results"] if r["implementation"] == "gdsl"] == layers
    assert not [r for r in found["results"] if "failed" in r]
    assert all(max(r["difference"].values()) < 1e-3 for r in found["results"] if "difference" in r)


def test_library(repository: Path, tmp_path: Path) -> None:
    """Two types of nodes, whose features are a dict; ``test_fresh`` has the same on one graph."""
    size = ("--graph", "power-law", "--nodes", "200", "--edges", "1500")
    found = _found(repository, tmp_path, "library.py", *size, "--layers", "HANConv")
    assert [r["layer"] for r in found["results"]] == ["HANConv"]
    for row in found["results"]:
        assert row["difference"] < 1e-3
        assert row["memory"].keys() == {"gdsl", "pyg"}
        for mode in ("forward", "both"):
            assert row[mode].keys() == {"gdsl", "pyg", "ratio"}


@pytest.mark.slow
def test_every_layer_of_the_library_agrees_with_its_peer(repository: Path, tmp_path: Path) -> None:
    found = _found(repository, tmp_path, "library.py", "--graph", "power-law", "--nodes", "200", "--edges", "1500")
    assert len(found["results"]) > 60
    assert not [r for r in found["results"] if "failed" in r]


def test_fresh(repository: Path, tmp_path: Path) -> None:
    arguments = ("--sizes", "30x60,40x50", "--rounds", "1", "--layers", "GCNConv; HANConv")
    found = _found(repository, tmp_path, "fresh.py", *arguments)
    assert [(r["layer"], r["nodes"]) for r in found["results"]] == [
        ("GCNConv", 30), ("HANConv", 30), ("GCNConv", 40), ("HANConv", 40)
    ]  # fmt: skip
    assert all(r["us"].keys() == {"gdsl", "pyg"} and r["difference"] < 1e-3 for r in found["results"])


def test_the_plot(repository: Path, tmp_path: Path) -> None:
    row = {"layer": "GCN", "implementation": "pyg", "both": {"over_gdsl": 3.0}}
    path, page, picture = tmp_path / "found.json", tmp_path / "page.md", tmp_path / "layers.svg"
    found = {"kind": "layers", "graph": {"name": "power-law", "nodes": 1, "edges": 1}, "features": 4, "repeats": 1,
             "calls": 1, "results": [row, {**row, "implementation": "gdsl", "both": {}}],
             "machine": {}}  # fmt: skip
    path.write_text(json.dumps(found))
    page.write_text(MARKERS)
    _run(repository, "report.py", str(path), "--page", str(page), "--plot", str(picture), "--only-plot")
    assert "<svg" in picture.read_text()
    assert page.read_text() == MARKERS


@pytest.mark.slow
def test_shares(repository: Path, tmp_path: Path) -> None:
    _layers(repository, tmp_path, "GCN", "torch.sparse")
    text = _run(repository, "shares.py", str(tmp_path / "found.json"), "--markdown")
    row = next(line for line in text.splitlines() if line.startswith("| GCN"))
    assert row.count("%") == 4


def test_prepare(repository: Path, tmp_path: Path) -> None:
    rows = _found(repository, tmp_path, "prepare.py")["results"]
    assert [(r["graph"], r["loops"]) for r in rows] == [("random", True), ("random", False), ("molecules", False)]
    assert all(r["us"].keys() >= {"gdsl", "torch"} and min(r["us"].values()) > 0 for r in rows)


def test_products(repository: Path, tmp_path: Path) -> None:
    found = _found(repository, tmp_path, "products.py")
    assert {(r["dtype"], r["nodes"]) for r in found["results"]} == {
        (dtype, nodes) for dtype in ("float32", "float64") for nodes in (30, 700)
    }
    assert all(
        r[name][by] > 0 for r in found["results"] for name in ("x @ w", "g @ wT", "xT @ g") for by in ("own", "torch")
    )


def test_scaling(repository: Path, tmp_path: Path) -> None:
    found = _found(repository, tmp_path, "scaling.py", "--least", "1000", "--most", "10000")
    assert [(r["layer"], r["edges"]) for r in found["results"]] == [
        ("GCN", 1000), ("GAT", 1000), ("GCN", 10000), ("GAT", 10000),
    ]  # fmt: skip
    assert found["slopes"].keys() == {"GCN", "GAT"}


def test_networks(repository: Path, tmp_path: Path) -> None:
    sizes = ("--nodes", "30", "--edges", "60", "--features", "6", "--rounds", "1")
    found = _found(repository, tmp_path, "networks.py", "--networks", "GraphSAGE", *sizes)
    assert [(r["network"], r["implementation"]) for r in found["results"]] == [
        ("GraphSAGE", way) for way in ("one text", "layers", "torch_geometric")
    ]
    assert all(r[mode] > 0 for r in found["results"] for mode in ("forward", "both"))


@pytest.mark.slow
def test_startup(repository: Path, tmp_path: Path) -> None:
    found = _found(repository, tmp_path, "startup.py", "--repeats", "1")
    whats = [r["what"] for r in found["results"]]
    assert sum("cold" in w for w in whats) == sum("cached" in w for w in whats) == 2
    assert sum("import" in w for w in whats) == 4
    assert all(r.keys() == {"what", "s", "q1", "q3", "rounds"} for r in found["results"])


def test_small(repository: Path, tmp_path: Path) -> None:
    found = _found(repository, tmp_path, "small.py", "--calls", "5")
    rows = {(r["layer"], r["implementation"]) for r in found["results"]}
    kinds = ("gdsl", "gdsl, edge_index", "torch_geometric")
    assert rows == {(layer, kind) for layer in ("GCN", "GAT") for kind in kinds}
    assert all(r[mode].keys() == {"us", "q1", "q3"} for r in found["results"] for mode in ("forward", "both"))


def test_streams(repository: Path, tmp_path: Path) -> None:
    found = _found(repository, tmp_path, "streams.py", "--layers", "GIN", "--sizes", "9x20", "--rounds", "2")
    rows = found["results"]
    assert {(r["layer"], r["nodes"], r["edges"], r["implementation"]) for r in rows} >= {
        ("GIN", 9, 20, way) for way in ("gdsl", "gdsl.nn", "pyg", "products")
    }
    for row in rows:
        for mode in ("forward", "both"):
            assert row[mode]["q1"] <= row[mode]["ms"] <= row[mode]["q3"]
            assert ("ratio" in row[mode]) == (not row["implementation"].startswith("pyg"))


def test_epochs(repository: Path, tmp_path: Path) -> None:
    command = ("--tasks", "molecules,rmat", "--models", "GIN,SAGE", "--epochs", "2", "--molecules", "20")
    sizes = ("--batch", "8", "--hidden", "8", "--depth", "1", "--edges", "300", "--features", "4", "--seeds", "4")
    found = _found(repository, tmp_path, "epochs.py", *command, *sizes)
    libraries = {"gdsl", "torch_geometric"}
    assert [(row["task"], row["model"]) for row in found["results"]] == [("molecules", "GIN"), ("rmat", "SAGE")]
    for row in found["results"]:
        assert {w["layers"] for w in row["ways"]} - {"gdsl, blocks", "none", "dgl"} == libraries
        assert {w["loader"] for w in row["ways"]} == row["loading"].keys()
        assert all(w["seconds"][1] <= w["seconds"][0] <= w["seconds"][2] for w in row["ways"])
    assert found["results"][0]["loading"].keys() == libraries


def test_gpu_without_one(repository: Path, tmp_path: Path) -> None:
    """On tensors of the CPU, with a layer whose sizes its inputs give."""
    command = ("--device", "cpu", "--graphs", "arxiv", "--layers", "GCN,AGNN", "--peers", "gdsl,torch.sparse,pyg")
    found = _found(repository, tmp_path, "gpu.py", *command, "--calls", "1")
    ours = [r for r in found["results"] if r["implementation"] == "gdsl"]
    assert [r["layer"] for r in ours] == ["GCN", "AGNN"]
    assert all(r[mode]["ms"] > 0 and r["share"][mode] > 0 for r in ours for mode in ("forward", "both"))
    assert [r["layer"] for r in found["results"] if "left_out" in r] == ["AGNN"]  # it is no sparse product


def test_a_card_s_command_without_one(repository: Path, tmp_path: Path) -> None:
    """What was found before the time ran out counts, and a part that is cut off is no failure."""
    tests = _card(repository, tmp_path, "--parts", "tests", "--budget", "4", "--processes", "1")["tests"]
    assert tests["status"] is None
    assert not tests["failures"]
    smoke = _card(repository, tmp_path, "--parts", "smoke", "--budget", "600")["smoke"]
    assert smoke["status"] == 0
    first, *timed = smoke["found"]["results"]
    both = "GCN forward and backward"
    expected = ["torch: x.add_(1)", "torch: forward and backward of 2 * x", "torch: the same in one thread"]
    expected += ["host time of a call", f"{both}, prepared graph", f"{both}, fresh graph"]
    assert (first["layer"], [row["layer"] for row in timed]) == ("GCN", expected)
    assert first["difference"] < 1e-9
    assert all(row["us"] > 0 for row in timed)


@pytest.mark.slow
def test_the_whole_command_for_a_card(repository: Path, tmp_path: Path) -> None:
    found = _card(repository, tmp_path, "--budget", "300")
    assert found["tests"]["passed"] > 5
    assert [r["implementation"] for r in found["benchmark"]["found"]["results"]] == ["gdsl", "pyg"] * 2
    assert all(r[mode]["fresh_ms"] > 0 for r in found["benchmark"]["found"]["results"] for mode in ("forward", "both"))


def _card(repository: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    _run(repository, "card.py", "--folder", str(folder), "--rehearse", *arguments)
    return json.loads((folder / "gpu.json").read_text())


def test_outcomes_of_tests(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines as pytest prints them with and without workers; a test that had begun counts as nothing."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    card = importlib.import_module("card")
    lines = [
        "[gw1] [ 10%] PASSED tests/triton/test_gpu.py::test_a[GCN] ",
        "tests/triton/test_gpu.py::test_b FAILED   [ 20%]",
        "[gw0] [ 30%] SKIPPED tests/triton/test_gpu.py::test_c ",
        "tests/triton/test_gpu.py::test_d ",
    ]
    (tmp_path / "tests.log").write_text("\n".join(lines))
    found = card._outcomes(tmp_path)
    assert [found[kind] for kind in card.OUTCOMES] == [1, 1, 0, 1]
    assert found["failures"] == ["tests/triton/test_gpu.py::test_b"]


def test_tiles(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks of 16 nodes, complete, and an edge between them."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    with mock.patch.dict(sys.modules):  # examples have a module `graphs`, too
        sys.modules.pop("graphs", None)
        tiles = importlib.import_module("tiles").tiles
    block = torch.cartesian_prod(torch.arange(16), torch.arange(16)).t()
    edges = torch.cat([block, block + 16, torch.tensor([[0], [20]])], dim=1)
    assert tiles(edges, torch.arange(32), 32).sort().values.tolist() == [1, 256, 256]
    assert len(tiles(edges, torch.arange(32).view(16, 2).t().flatten(), 32)) == 4
    pytest.importorskip("pymetis", reason="needs pymetis")
    out = _run(repository, "tiles.py", "--graphs", "molecules,R-MAT", "--edges", "3000")
    assert out.count("by clusters") == 2


def test_instructions(repository: Path, tmp_path: Path) -> None:
    (row,) = _found(repository, tmp_path, "instructions.py", "--layers", "GIN")["results"]
    for mode in ("forward", "backward"):
        assert 1 < row[mode]["edge"] < 64
        assert 0 < row[mode]["issue_ms"] < row[mode]["memory_ms"]


def test_the_page_has_a_place_for_every_table(repository: Path) -> None:
    page = (repository / "docs" / "performance.md").read_text()
    others = ("layers-github", "layers-molecules", "layers-knowledge", "shares", "library")
    for name in (*PLACES[:-1], *others):
        assert page.index(f"<!-- begin {name} -->") < page.index(f"<!-- end {name} -->")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", "GCM"), "there is no 'GCM'; there are GCN, SAGE"),
        (("--graph", "github"), "the GitHub graph needs --data FOLDER or $GDSL_DATA"),
    ],
)
def test_bad_arguments(repository: Path, arguments: tuple[str, ...], message: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "GDSL_DATA"}
    done = subprocess.run(
        [sys.executable, str(repository / "benchmarks" / "layers.py"), *arguments],
        env={**environment, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.slow
def test_all_pairs(repository: Path, tmp_path: Path) -> None:
    """The kernel and torch's attention give the same numbers, or it ends."""
    batch = "127 of 20, one of 200"
    out = _run(
        repository, "all_pairs.py", "--rounds", "1", "--batches", batch, "--tiny", GDSL_CACHE=str(tmp_path / "cache")
    )
    assert f"| {batch} | 56.4 | " in out


@pytest.mark.slow
def test_triplets(repository: Path, tmp_path: Path) -> None:
    """The texts and torch_geometric's blocks give the same numbers, or it ends."""
    out = _run(
        repository, "triplets.py", "--molecules", "2", "--rounds", "1", "--threads", "1", "--tiny",
        GDSL_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    rows = [line.split(" | ")[:2] for line in out.splitlines() if line.startswith("| D")]
    assert rows == [[f"| {name}", who] for name in ("DimeNet", "DimeNetPlusPlus") for who in ("gdsl", "pyg")]
    assert "nan" not in out
