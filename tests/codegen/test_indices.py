"""Places in dims: what both generators print of one expression is the place that plain numbers give."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from gdsl.codegen import notation, values
from gdsl.codegen.indices import Axis, Index, Known, Literal, Place, Row, Shift, Within, linear, reshaped
from gdsl.codegen.nest import Nest, joined
from gdsl.ir.types import Dim

# Sizes before and after a reshape: split, merged, both, sizes of 1 at each end, and no place at all.
RESHAPES = [
    ((6,), (2, 3)),
    ((2, 3), (6,)),
    ((2, 3, 4), (4, 6)),
    ((4, 6), (2, 3, 4)),
    ((3, 4, 5), (12, 5)),
    ((2, 1, 3), (1, 6, 1)),
    ((6,), (1, 6)),
    ((1, 1), ()),
    ((), (1,)),
    ((5,), (5,)),
]


def dims(letter: str, sizes: tuple[int, ...]) -> list[Dim]:
    return [Dim(f"{letter}{k}", size) for k, size in enumerate(sizes)]


def axes(of: list[Dim]) -> dict[str, Place]:
    return {d.name: Axis(d.name, k, d.size) for k, d in enumerate(of)}


def in_c(place: Place, at: dict[str, int]) -> int:
    """The value of the C text: its integers are not negative, so that `/` is Python's `//`."""
    return int(eval(values.print_place(place).replace("/", "//"), dict(at)))


def in_triton(place: Place, of: list[Dim]) -> np.ndarray:
    """The block of the Triton text, of the frame of some dims."""
    names = {d.name: np.arange(d.size) for d in of} | {"tl": SimpleNamespace(where=np.where)}
    found = eval(notation.print_place(place, len(of)), names)
    return np.broadcast_to(found, [d.size for d in of])


@pytest.mark.parametrize(("old", "new"), RESHAPES)
def test_reshaped(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    before, after = dims("a", old), dims("b", new)
    index = reshaped(before, after, axes(after))
    assert set(index) == {d.name for d in before}
    blocks = {d.name: in_triton(index[d.name], after) for d in before if d.size > 1}
    for at in itertools.product(*(range(size) for size in new)):
        whole = int(np.ravel_multi_index(at, new)) if new else 0
        wanted = np.unravel_index(whole, old) if old else ()
        variables = {d.name: place for d, place in zip(after, at, strict=True)}
        for d, place in zip(before, wanted, strict=True):
            assert in_c(index[d.name], variables) == place
            if d.size > 1:
                assert blocks[d.name][at] == place


@pytest.mark.parametrize(("old", "new"), RESHAPES)
def test_there_and_back_is_the_same_number(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    before, after = dims("a", old), dims("b", new)
    there = reshaped(before, after, axes(after))
    offset = linear(before, there)
    back = linear(after, reshaped(after, before, there))
    for place in (offset, back):
        numbers = np.arange(math.prod(new)).reshape(new)
        assert (in_triton(place, after) == numbers).all()
        for at in itertools.product(*(range(size) for size in new)):
            variables = {d.name: place for d, place in zip(after, at, strict=True)}
            assert in_c(place, variables) == numbers[at]


def test_linear_of_a_row() -> None:
    of = dims("a", (3, 1, 4))
    place = linear(of, axes(of), Row("i"))
    assert values.print_sum(place) == "i * 12 + a0 * 4 + a2"
    assert notation.print_sum(place, 3) == "i[:, :, None, None, None] * 12 + a0[:, None, None] * 4 + a2[None, None, :]"
    assert values.print_sum(linear([], {}, Row("i"))) == notation.print_sum(linear([], {}, Row("i")), 0) == "i"
    assert values.print_sum(linear([], {})) == "0"


def test_a_place_that_is_known() -> None:
    one, two = Dim("a", 5), Dim("b", 4)
    index: Index = {"a": Literal(3), "b": Axis("b", 0, 4)}
    assert notation.print_sum(linear([one, two], index), 1) == "3 * 4 + b"
    assert linear([two], {"b": Literal(0)}).terms == ()


def test_parts_of_a_dim() -> None:
    of = dims("a", (7,))
    place = Axis("a0", 0, 7)
    assert in_triton(Shift(place, 2), of).tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert in_triton(Within(place, 2, 5), of).tolist() == [0, 0, 0, 1, 2, 0, 0]
    assert in_triton(Within(Shift(place, 1), 2, 5), of).tolist() == [0, 0, 1, 2, 0, 0, 0]
    assert values.print_place(Within(place, 2, 5)) == "(a0 >= 2 && a0 < 5 ? (a0 - 2) : 0)"
    assert values.print_place(Within(place, 0, 5)) == "(a0 >= 0 && a0 < 5 ? a0 : 0)"


def test_what_a_place_varies_with() -> None:
    of = dims("b", (2, 3, 4))
    read = Known("rel[id]", frozenset({1}))
    index = reshaped([Dim("a", 6), Dim("c", 4)], of, axes(of))
    assert (index["a"].axes, index["a"].depth) == ({0, 1}, 2)
    assert (index["c"].axes, index["c"].depth) == ({2}, 3)
    assert linear([Dim("r", 3)], {"r": read}).known == (read,)
    # A dim with one place adds nothing, and its loop is there all the same.
    single = linear(dims("d", (3, 1)), axes(dims("d", (3, 1))))
    assert (values.print_sum(single), single.depth) == ("d0", 2)


def test_equal_expressions_are_equal() -> None:
    of = dims("b", (2, 3))
    first, second = (reshaped([Dim("a", 6)], of, axes(of))["a"] for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert Shift(first, 2) != Shift(first, 3)
    assert len({Shift(first, 2), Shift(second, 2), Literal(2)}) == 2


A, B = Dim("a", 4), Dim("b", 3)


def nest(*loops: Dim, reads: tuple[str, Index, list[Dim]] | None = None, writes: str | None = None) -> Nest:
    made = Nest(loops)
    if writes is not None:
        made.writes[writes] = linear(loops, axes(list(loops)))
    if reads is not None:
        name, index, of = reads
        at = linear(of, index)
        made.reads[name] = {(at, at.depth)}
    return made


@pytest.mark.parametrize(
    ("index", "of", "together"),
    [
        (axes([A, B]), [A, B], True),
        ({"a": Axis("a", 0, 4), "b": Shift(Axis("b", 1, 3), 1)}, [A, B], False),
        ({"a": Axis("a", 0, 4), "b": Literal(0)}, [A, B], False),
        ({"a": Axis("a", 0, 4)}, [A], False),
        ({"a": Axis("b", 1, 3), "b": Axis("a", 0, 4)}, [A, B], False),
    ],
)
def test_loops_are_shared_where_just_written_values_are_read(index: Index, of: list[Dim], together: bool) -> None:
    first = nest(A, B, writes="v")
    assert len(joined([first, nest(A, B, reads=("v", index, of), writes="w")])) == (1 if together else 2)


def test_loops_are_shared_with_what_reads_other_values() -> None:
    other = ("u", {"a": Literal(0), "b": Literal(0)}, [A, B])
    assert len(joined([nest(A, B, writes="v"), nest(A, B, reads=other)])) == 1
    assert len(joined([nest(A, B, writes="v"), nest(B, A, reads=other)])) == 2


def test_the_third_of_joined_loops_sees_what_the_first_wrote() -> None:
    elsewhere = ("v", {"a": Literal(1), "b": Literal(1)}, [A, B])
    first, second, third = nest(A, B, writes="v"), nest(A, B, writes="w"), nest(A, B, reads=elsewhere)
    assert len(joined([first, second, third])) == 2
