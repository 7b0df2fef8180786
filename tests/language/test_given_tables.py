"""Constant tables whose numbers are given when compiling: to Python, to a layer that is called, to the commands."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.cli import main
from gdsl.explore.command import beginning
from gdsl.explore.reading import read, settings_of
from gdsl.language.program import ConstantTable, table_of

Capture = pytest.CaptureFixture[str]

COUPLED = """layer Coupled(channels) {
    const cg[a, b, c]
    node x[a, channels]
    edge y[b]
    message m = sum[a, b](cg * x[j] * y)
    aggregate s = sum(m)
    return s
}
"""
CALLING = (
    COUPLED
    + """layer Calling(channels) {
    const cg[a, b, c]
    const own[2, 2', c] = [1, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 1]
    node x[a, channels]
    node z[2, channels]
    edge y[b]
    edge w[2]
    s = Coupled(x, y; channels, cg)
    t = Coupled(z, w; channels, cg = own)
    return s + sum[c](s), t
}
"""
)
NODES, CHANNELS = 4, 2
EDGES = torch.tensor([[0, 1, 2, 2, 3], [1, 0, 1, 3, 1]])
CG = torch.tensor([[[0, 1, 0], [0, 0, 2.0]], [[0, 0, -1], [0, 0.5, 0]], [[1, 0, 0], [0, 0, 0]]], dtype=torch.float64)


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def plain(cg: Tensor, x: Tensor, y: Tensor) -> Tensor:
    m = torch.einsum("abc,ead,eb->ecd", cg, x[EDGES[0]], y)
    return m.new_zeros(NODES, *m.shape[1:]).index_add(0, EDGES[1], m)


def test_sizes_come_from_the_numbers() -> None:
    layer = gdsl.compile(COUPLED, channels=CHANNELS, cg=CG, backend="torch").double()
    assert layer.free_sizes == {"a": 3, "b": 2, "c": 3}
    x, y = drawn(NODES, 3, CHANNELS), drawn(5, 2)
    torch.testing.assert_close(layer(x, EDGES, y), plain(CG, x, y))
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(again(x, EDGES, y), plain(CG, x, y))
    # Other numbers are another program, also in the same process.
    twice = gdsl.compile(COUPLED, channels=CHANNELS, cg=2 * CG, backend="torch").double()
    torch.testing.assert_close(twice(x, EDGES, y), plain(2 * CG, x, y))
    with pytest.raises(gdsl.InputError, match="size 3"):
        layer(drawn(NODES, 4, CHANNELS), EDGES, y)


@pytest.mark.parametrize("value", [CG.tolist(), CG.numpy(), torch.nn.Parameter(CG), CG.float(), CG.long().numpy()])
def test_what_numbers_may_be(value: object) -> None:
    given = gdsl.compile(COUPLED, channels=CHANNELS, cg=value).arguments["cg"]
    expected = torch.as_tensor(value, dtype=torch.float64)
    assert given.nested() == expected.tolist()


def test_a_layer_that_is_called() -> None:
    layer = gdsl.compile(CALLING, layer="Calling", channels=CHANNELS, cg=CG, backend="torch").double()
    x, z, y, w = drawn(NODES, 3, CHANNELS), drawn(NODES, 2, CHANNELS), drawn(5, 2), drawn(5, 2)
    own = torch.tensor([1, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 1.0], dtype=torch.float64).view(2, 2, 3)
    s, t = layer(x, z, EDGES, y, w)
    found = plain(CG, x, y)
    torch.testing.assert_close(s, found + found.sum(1, keepdim=True))
    torch.testing.assert_close(t, plain(own, z, w))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "needs a value for `cg`"),
        ({"cg": CG[0]}, r"declared with 3 dims, and its numbers have shape \[2, 3\]"),
        ({"cg": CG, "b": 3}, r"\[a, b, c\], of shape \[3, 3, 3\], and its numbers have shape \[3, 2, 3\]"),
        ({"cg": CG, "table": CG}, "no argument `table`(.|\n)*channels, cg"),
        ({"cg": CG, "x": CG}, "no argument `x`"),
        ({"cg": CG / 0}, r"at \[0, 0, 0\] it is nan"),
        ({"cg": torch.where(CG == 2, torch.inf, CG)}, r"at \[0, 1, 2\] it is inf"),
        ({"cg": CG > 0}, r"at \[0, 0, 0\] it is False"),
        ({"cg": [[1, 2], [3]]}, "its rows are not all as long"),
        ({"cg": torch.zeros(2**11, 2**10, 1)}, "2097152 numbers, and a table at most 1048576: make it a buffer"),
        ({"cg": torch.ones(16, 16, 16)}, "4096 non-zeros among 4096 numbers"),
        ({"cg": 0.5}, "a number alone does not say how large dim `c` of `cg` is"),
        ({"cg": "cg.npy"}, "a table of finite numbers"),
    ],
)
def test_what_no_table_is(given: dict[str, object], says: str) -> None:
    with pytest.raises(gdsl.LanguageError, match=says) as caught:
        gdsl.compile(COUPLED, channels=CHANNELS, **given)
    assert "^" in str(caught.value)


def test_the_commands_take_numbers(tmp_path: Path, capsys: Capture) -> None:
    file, array, lists, bad = (str(tmp_path / name) for name in ("t.gdsl", "cg.npy", "cg.json", "bad.json"))
    Path(file).write_text(COUPLED, encoding="utf-8")
    np.save(array, CG.numpy())
    Path(lists).write_text(json.dumps(CG.tolist()), encoding="utf-8")
    Path(bad).write_text("[[1], [NaN]]", encoding="utf-8")
    texts = [f"cg={array}", f"cg={lists}", f"cg={json.dumps(CG.tolist())}"]
    for text in texts:
        assert main(["check", file, "--set", text]) == 0
        assert main(["show", file, "--stage", "optimised", "--set", "channels=2", text]) == 0
        assert "table[a, b, c: 5 non-zeros]" in capsys.readouterr().out
    assert main(["check", file, "--set", texts[0], "a=7"]) == 1
    for text, says in (
        (f"cg={bad}", "no table of finite numbers: at [1, 0] it is nan"),
        (f"cg={tmp_path / 'no.npy'}", "no such file"),
        (f"cg={lists[:-9]}", "a table of finite numbers"),
    ):
        assert main(["check", file, "--set", text]) != 0
        assert says in capsys.readouterr().err


def test_a_check_needs_no_numbers(tmp_path: Path, capsys: Capture) -> None:
    """Nor does it blame a size of its own, or a number that stands in: four dims of 60 are more than a table has."""
    file = tmp_path / "t.gdsl"
    text = """layer L(heads, channels) {{
    const cg[lm, lm', lm'', lm''']
    node x[heads*channels, lm]
    node p[3]
    y = harmonics(p[j] - p[i], 3; lm')
    aggregate s = sum(sum[lm, lm', lm''](cg * split(x, heads*channels, heads, channels)[j] * y))
    update z = {}
}}"""
    file.write_text(text.format("s"), encoding="utf-8")
    assert main(["check", str(file)]) == 0
    assert "L is ok" in capsys.readouterr().out
    file.write_text(text.format("s + y"), encoding="utf-8")
    assert main(["check", str(file)]) == 1
    said = capsys.readouterr().err
    assert said.count("error:") == 1 and "cg" not in said
    assert main(["check", str(file), "--set", "cg=0.5", "lm=16"]) == 1
    assert "0.5 is one number for all of its places: give a table" in capsys.readouterr().err


def test_a_page_begins_with_the_numbers_of_the_command() -> None:
    start = beginning(COUPLED, "t", None, [f"cg={json.dumps(CG.tolist())}", "channels=2"], ())
    found = read(COUPLED, settings_of(start["settings"]))
    assert not found.diagnostics and found.typed is not None
    assert dict(found.typed.arguments)["cg"] == table_of(CG)


@pytest.mark.parametrize("shape", [(3,), (2, 0), (0, 2), (2, 3, 4)])
def test_a_table_as_lists(shape: tuple[int, ...]) -> None:
    value = torch.arange(float(torch.zeros(shape).numel())).view(shape)
    assert ConstantTable(shape, tuple(value.flatten().tolist())).nested() == value.tolist()


def test_integers_beyond_floats_are_refused_in_words() -> None:
    for huge in (10**400, -(10**5000)):  # of the second, Python refuses to write the digits
        with pytest.raises(gdsl.LanguageError, match=r"at \[0, 0, 1\] it is an integer that no float is as large as"):
            gdsl.compile(COUPLED, channels=CHANNELS, cg=[[[0, huge]]])
