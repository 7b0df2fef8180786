"""Packed sets in files: what was saved is read, and a file that is not whole is refused before anything is computed."""

from __future__ import annotations

import json
import pickle
import zlib
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdsl.data import Loader, Packed, container, pack, packing
from gdsl.errors import InputError

from . import graphs as made
from .test_loader import assert_same_store, only_torch


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "molecules"
    pack(made.many(made.molecule, made.sizes(7))).save(path)
    return path


@pytest.mark.parametrize("make", [made.molecule, made.academic, partial(made.molecule, order="source")])
@pytest.mark.parametrize("check", [True, False])
def test_what_was_saved_is_read(make, check, tmp_path):
    packed = pack(made.many(make, made.sizes(9)))
    packed.save(tmp_path / "set")
    found = Packed.load(tmp_path / "set", check=check)
    assert repr(found) == repr(packed)
    for one, other in zip(Loader(found, 4), Loader(packed, 4), strict=True):
        for type in ("", *one.node_types, *one.edge_types):
            assert_same_store(one[type] if type else one, other[type] if type else other)
            if "edge_index" in (one[type] if type else one):
                orders = [(b[type] if type else b).graph.out_edges for b in (one, other)]
                assert torch.equal(orders[0].edge, orders[1].edge)


def test_a_set_that_is_packed_into_a_file_in_chunks_is_the_same(tmp_path, monkeypatch):
    items = made.many(made.molecule, made.sizes(9)) + made.many(partial(made.molecule, order="source"), made.sizes(3))
    pack(items).save(tmp_path / "whole")
    monkeypatch.setattr(packing, "CHUNK", 40)
    pack(iter(items), tmp_path / "parts")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "whole"]


def test_a_failed_pack_leaves_nothing(tmp_path):
    with pytest.raises(InputError):
        pack([*made.many(made.molecule, [(2, 1)]), object()], tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_objects_that_json_does_not_know_are_not_saved(tmp_path):
    item = made.many(made.molecule, [(2, 1)])[0]
    item.name = {1, 2}
    with pytest.raises(InputError, match="cannot be stored"):
        pack([item]).save(tmp_path / "set")


@given(st.data(), st.booleans())
def test_a_file_that_is_cut_short_is_refused(saved, tmp_path_factory, data, check):
    whole = saved.read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1))
    cut = tmp_path_factory.getbasetemp() / "cut"
    cut.write_bytes(whole[:length])
    with pytest.raises(InputError, match="cut"):
        Packed.load(cut, check=check)


@given(st.data())
def test_any_changed_byte_is_noticed_or_changes_nothing(saved, tmp_path_factory, data):
    whole = bytearray(saved.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    changed = tmp_path_factory.getbasetemp() / "changed"
    changed.write_bytes(whole)
    try:
        found = Packed.load(changed)
    except InputError:
        return
    # Between two arrays nothing is kept.
    expected = Packed.load(saved)
    assert_same_store(found.batch(range(7)), expected.batch(range(7)))


def _rewritten(path: Path, change) -> None:
    """Change the description or the arrays of a file, with all checksums right."""
    raw = bytearray(path.read_bytes())
    start, _, _ = container.PLACE.unpack(raw[8:32])
    about = json.loads(raw[start:])
    change(about, raw)
    for array in about["arrays"]:
        size = array["count"] * container.DTYPES.get(array["dtype"], torch.uint8).itemsize
        array["crc"] = zlib.crc32(raw[array["start"] : array["start"] + size])
    text = json.dumps(about).encode()
    raw[start:] = text
    raw[8:32] = container.PLACE.pack(start, len(text), zlib.crc32(text))
    path.write_bytes(raw)


def _numbers(about, raw, array: int) -> torch.Tensor:
    """The integers of an array of the file, which can be written to."""
    found = about["arrays"][array]
    return torch.frombuffer(raw, dtype=container.DTYPES[found["dtype"]], count=found["count"], offset=found["start"])


def _set_listed(about, raw):
    numbers = _numbers(about, raw, about["edges"][0][1]["listed"])
    numbers[0] = torch.iinfo(numbers.dtype).max


def _negative(about, raw):
    numbers = _numbers(about, raw, about["edges"][0][1]["listed"])
    numbers[-1] = torch.iinfo(numbers.dtype).min or torch.iinfo(numbers.dtype).max


def _set_part(name, value):
    def change(about, raw):
        numbers = _numbers(about, raw, about["edges"][0][1]["parts"][name])
        info = torch.iinfo(numbers.dtype)
        numbers[len(numbers) // 2] = max(info.min, min(value, info.max))

    return change


def _other_width(about, raw):
    about["arrays"][about["edges"][0][1]["listed"]].update(dtype="int32", count=1)


def _swap_edges(about, raw):
    numbers = _numbers(about, raw, about["edges"][0][1]["parts"]["in_edge"])
    numbers[:2] = numbers[:2].flip(0).clone()


def _set_offsets(about, raw):
    _numbers(about, raw, about["offsets"][1])[2] = 1 << 40


def _set_loops(about, raw):
    k = about["offsets"][about["edges"][0][1]["ends"][3]]
    numbers = _numbers(about, raw, k)
    numbers[1:] += 1


LIES = {
    "an edge to no node": _set_listed,
    "a negative node": _negative,
    "a row that begins elsewhere": _set_part("in_first", 3),
    "a negative row": _set_part("out_first", -1),
    "an index of no node": _set_part("in_index", 1 << 30),
    "an edge id that is not there": _set_part("out_edge", 1 << 30),
    "edges in another order": _swap_edges,
    "edges of another width": _other_width,
    "graphs that begin elsewhere": _set_offsets,
    "loops that are not there": _set_loops,
    "an array beyond the end": lambda about, raw: about["arrays"][0].update(count=1 << 40),
    "a negative count": lambda about, raw: about["arrays"][0].update(count=-1),
    "an unknown dtype": lambda about, raw: about["arrays"][0].update(dtype="object"),
    "offsets that are not there": lambda about, raw: about["columns"][0][2].update(length=99),
    "another shape": lambda about, raw: about["columns"][0][2].update(shape=[None, 77]),
    "no shape": lambda about, raw: about["columns"][0][2].update(shape=None),
    "values of another type": lambda about, raw: about["columns"][0].__setitem__(0, "paper"),
    "edges of another type": lambda about, raw: about["edges"][0].__setitem__(0, ["", ""]),
    "another version": lambda about, raw: about.update(version=1),
    "nothing": lambda about, raw: about.clear() or about.update(arrays=[]),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("largest", [(9, 23), (9, 300), (9, 40_000)])  # numbers of one, two and four bytes
def test_a_file_that_lies_with_right_checksums_is_refused(lie, native, largest, tmp_path):
    path = tmp_path / "set"
    # Not sorted by either end, so that all parts are there, and of a length of their own.
    pack(made.many(made.molecule, [(9, 23), (7, 31), (8, 19), (5, 40), largest])).save(path)
    Packed.load(path)
    _rewritten(path, LIES[lie])
    with nullcontext() if native else only_torch(), pytest.raises(InputError, match=str(path)):
        Packed.load(path)


def test_nothing_of_a_file_is_executed(tmp_path):
    path = tmp_path / "set"

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("executed",))

    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="no packed data set"):
        Packed.load(path)
    torch.save({"x": torch.ones(99)}, path)
    with pytest.raises(InputError, match="no packed data set"):
        Packed.load(path)


def test_a_mapped_set_takes_no_memory_of_its_own(tmp_path):
    random = torch.Generator().manual_seed(0)
    items = (made.Data(x=torch.randn(20_000, 64, generator=random), y=torch.ones(1)) for _ in range(4))
    packed = pack(items, tmp_path / "large")
    values = packed.read.columns["", "x"].values
    assert values.nbytes == 4 * 20_000 * 64 * 4
    assert not values.untyped_storage().resizable()  # memory of the file, not of torch


def test_paths_that_are_no_files(tmp_path):
    packed, items = pack(made.many(made.molecule, made.sizes(2))), made.many(made.molecule, made.sizes(2))
    for read in (tmp_path, tmp_path / "none", None, 3):
        with pytest.raises(InputError, match=r"cannot be read|is needed"):
            Packed.load(read)
    for write in (tmp_path, tmp_path / "none" / "set", 3):
        for call in (packed.save, lambda path: pack(items, path)):
            with pytest.raises(InputError, match=r"is a folder|make it first|is needed"):
                call(write)
    assert list(tmp_path.iterdir()) == []
