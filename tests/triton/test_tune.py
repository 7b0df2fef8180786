"""Block sizes: chosen without a GPU, and by measurement with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.programs import LAYERS
from gdsl.codegen import triton as codegen
from gdsl.codegen.launch import Config, candidates, configure
from gdsl.codegen.triton import TritonFunction
from gdsl.runtime import tune
from tests.triton.test_offline import layer


def functions(name: str) -> list[TritonFunction]:
    found = []
    for _, plan in layer(name)._ran()[0].inspection.plans:
        for kernel in plan.kernels:
            found += codegen.functions(kernel, plan.program, frozenset(), "float", "int32_t")
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_every_candidate_can_run(name: str) -> None:
    for function in functions(name):
        for degree in (1, 4, 16, 512):
            found = candidates(function, degree)
            assert found[0] == configure(function, degree)
            assert len(found) == len(set(found)) <= 5
            for c in found:
                assert all(n & (n - 1) == 0 and n > 0 for n in (c.rows, c.edges, c.warps))
                assert not function.dots or c.rows * c.edges >= 16
                assert not function.row_dots or c.edges >= 16
                assert function.part != "hubs" or c.rows == 1


def test_few_edges_a_row_take_more_rows() -> None:
    walk = functions("GCN")[0]
    thin, thick = configure(walk, 2), configure(walk, 256)
    assert thin.rows > thick.rows
    assert thin.edges < thick.edges
    assert thin.rows * thin.edges == thick.rows * thick.edges


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GDSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tune, "_known", {})
    return tmp_path / "cache"


FOUND = [Config(4, 16, 4), Config(2, 16, 4), Config(8, 8, 8)]


def test_the_fastest_is_kept_on_disk(folder: Path) -> None:
    ran: list[Config] = []

    def measure(run: tune.Run, config: Config) -> float:
        run(config)
        return {4: 3.0, 2: 1.0, 8: 2.0}[config.rows]

    assert tune.best("a", FOUND, ran.append, measure) == Config(2, 16, 4)
    assert ran == FOUND
    assert json.loads((folder / tune.FILE).read_text()) == {"a": [2, 16, 4]}
    tune._known.clear()
    assert tune.best("a", FOUND, ran.append, measure) == Config(2, 16, 4)
    assert ran == FOUND


def test_a_candidate_that_does_not_fit_is_left_out(folder: Path) -> None:
    from triton.runtime.errors import OutOfResources

    def measure(run: tune.Run, config: Config) -> float:
        if config.rows != 8:
            raise OutOfResources(1 << 20, 1 << 16, "shared memory")
        return 1.0

    assert tune.best("b", FOUND, lambda c: None, measure) == Config(8, 8, 8)
    assert tune.best("c", FOUND[:2], lambda c: None, measure) == FOUND[0]


DAMAGED = [
    "", "[]", "{", "3", '{"d": [1, 2, 3]}', '{"d": "x"}', '{"d": [2, 16, "4"]}', '{"d": {"rows": 2}}', "[" * 10**5,
    '{"d": [2, 16, 4, 4]}', '{"d": [NaN, 16, 4]}', '{"d": [[2], 16, 4]}', "\x00", "\xff",
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_is_measured_again(folder: Path, text: str) -> None:
    folder.mkdir(mode=0o700)
    (folder / tune.FILE).write_text(text, encoding="latin-1")
    assert tune.best("d", FOUND, lambda c: None, lambda run, c: c.rows) == Config(2, 16, 4)
    assert json.loads((folder / tune.FILE).read_text())["d"] == [2, 16, 4]


def test_numbers_of_other_types_are_the_candidates_own(folder: Path) -> None:
    """Constants of a kernel are ints, whatever an edited file writes for them."""
    folder.mkdir(mode=0o700)
    (folder / tune.FILE).write_text('{"d": [true, 16.0, 4]}')
    chosen = tune.best("d", [Config(8, 8, 8), Config(1, 16, 4)], lambda c: None, lambda run, c: c.warps)
    assert chosen == Config(1, 16, 4) and all(type(n) is int for n in (chosen.rows, chosen.edges, chosen.warps))


def test_a_choice_depends_on_the_text_and_the_degree() -> None:
    keys = {tune.key("a", 1, None), tune.key("b", 1, None), tune.key("a", 2, None)}
    assert len(keys) == 3
