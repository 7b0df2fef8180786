"""A file cannot run anything: what an exported model's operator says is data, and is checked before it is used.

Every field of every op's node is edited, one after the other. Whatever stands there, the operator is refused with a
clear error, or it is another well-formed program, in whose kernels a name is a name. ``--slow`` tries every mark in
every field, the default every twentieth. ``python -m tests.fuzz calls`` looks for more.
"""

from __future__ import annotations

import ast
import builtins
import copy
import json
import math
import random
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import gdsl
from gdsl.errors import GraphError, InputError, ProgramError
from gdsl.ir import build as b
from gdsl.ir.ops import OPS
from gdsl.ir.program import Program
from gdsl.ir.serialise import from_data, to_data
from gdsl.ir.types import Dim, Domain, Type
from gdsl.ir.verify import verify
from gdsl.module import operators
from gdsl.module.operators import OperatorCall, call_of
from tests.fuzz import Way, at, attack_call, calls, changed_call, evaluate, places, write_kernels
from tests.ir.drive import A, E, G, N, integer, load, program

# Nothing of these may happen: a flag that an evaluated text would set, a word that would stand in generated code.
FLAG = "setattr(__import__('gdsl'), 'mark', 1)"
TEXTS = [
    FLAG, f"[{FLAG}]", f"1) or {FLAG} or (1", "gdsl_mark", "x); gdsl_mark(", "*/ gdsl_mark /*", '"""gdsl_mark',
    "gdsl_mark\nint gdsl_mark", "gdsl_mark\\", "\\\ngdsl_mark", "#include gdsl_mark", "{gdsl_mark}", "%sgdsl_mark",
    "\u0661gdsl_mark", "gdsl_mark\x00", "gdsl_mark\u2028", "", " ", "0", "1", "-1", "__class__", "9" * 5000,
]  # fmt: skip
NUMBERS = [
    None, True, False, 0, 1, -1, 2, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**40, 0.0, -0.0, 1.0, 1.5,
    math.nan, math.inf, -math.inf, [], [[]], [0], {}, {"node": 0}, {"node": 10**9}, {"node": "0"}, {"mark": FLAG},
]  # fmt: skip
MARKS = [*TEXTS, *NUMBERS]
CALLS = {json.loads(text)["program"]["nodes"][-1][0] + f" {k}": text for k, text in enumerate(calls())}
EVERY = 20
EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No text with a mark is evaluated, and the flag is not set."""
    run = builtins.eval

    def watching(source: Any, *scopes: Any) -> Any:
        assert not isinstance(source, str) or not re.search(r"gdsl_mark|'mark'", source)
        return run(source, *scopes)

    monkeypatch.setattr(builtins, "eval", watching)
    yield
    assert not hasattr(gdsl, "mark")


def edited(text: str, way: Way, value: Any) -> str:
    data = json.loads(text)
    at(data, way[:-1])[way[-1]] = copy.deepcopy(value)
    return json.dumps(data)


def fields(text: str) -> list[Way]:
    """The way to every value of an operator but the whole of it."""
    return [way for way in places(json.loads(text)) if way]


def skeleton(kernels: tuple[str, str]) -> tuple[str, ...]:
    """Generated code without comments and line breaks, every name in it the same."""
    without = (re.sub(pattern, "", text) for pattern, text in zip(("//.*", "#.*"), kernels, strict=True))
    return tuple(re.sub(r"\s+", " ", re.sub(r"[A-Za-z_]\w*", "x", text)) for text in without)


def read(text: str) -> OperatorCall | str:
    """The operator, or why it is refused."""
    try:
        found: OperatorCall = call_of.__wrapped__(text)
    except ProgramError as error:
        return str(error)
    return found


def try_edits(text: str, edits: list[tuple[Way, Any]]) -> tuple[int, int]:
    """How many edits were refused, and how many made another program."""
    plain = skeleton(write_kernels(call_of(text).program))
    refused = 0
    for way, mark in edits:
        found = read(edited(text, way, mark))
        if isinstance(found, str):
            assert len(found) < 5000
            refused += 1
            continue
        verify(found.program)
        if isinstance(mark, str) and mark != at(json.loads(text), way):
            # A value or a dim of another name; what is not a name is not text.
            assert is_name(way), (way, mark)
            assert skeleton(write_kernels(found.program)) == plain
            evaluate(found.program)
    return refused, len(edits)


# The fields that hold a name that its writer was free to choose: of the program, values, dims and inputs.
NAMES = re.compile(r"program/(name|outputs/\d+/0|names/\d+|nodes/\d+/(2/1/\d+/0|3/(name|dim|new)))")


def is_name(way: Way) -> bool:
    return NAMES.fullmatch("/".join(map(str, way))) is not None


@pytest.mark.parametrize("name", CALLS)
def test_each_field_of_each_op(name: str) -> None:
    every = [(way, mark) for way in fields(CALLS[name]) for mark in MARKS]
    start = random.Random(name).randrange(EVERY)
    refused, tried = try_edits(CALLS[name], every[start::EVERY])
    assert refused > 0.8 * tried


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_each_mark_in_each_field_of_each_op(name: str) -> None:
    refused, tried = try_edits(CALLS[name], [(way, mark) for way in fields(CALLS[name]) for mark in MARKS])
    assert refused > 0.8 * tried


def test_operators_of_every_op_are_edited() -> None:
    edited_ops = {row[0] for text in CALLS.values() for row in json.loads(text)["program"]["nodes"]}
    assert edited_ops == {name for name, op in OPS.items() if not op.no_file}


@pytest.mark.parametrize("name", CALLS)
def test_fields_that_are_missing_or_new(name: str) -> None:
    for way in fields(CALLS[name]):
        data = json.loads(CALLS[name])
        holder = at(data, way[:-1])
        if isinstance(holder, dict) and "names" not in way:
            value = holder.pop(way[-1])
            for text in (json.dumps(data), edited(json.dumps(data), (*way[:-1], "gdsl_mark"), value)):
                with pytest.raises(ProgramError):
                    call_of(text)


@settings(max_examples=300)
@given(st.sampled_from(list(CALLS.values())), st.randoms(use_true_random=False))
def test_changed_operators_are_operators_or_mistakes(text: str, chance: random.Random) -> None:
    """Refused, or well formed, written and read again, evaluated, and made kernels of."""
    attack_call(changed_call(text, chance, list(CALLS.values())))


# ------------------------------------------------------------------------------- what surrounds a program


def simple(**more: Any) -> OperatorCall:
    x, e = load("x", N, A), load("e", E)
    return OperatorCall(program(b.segment(b.gather(x, "j") * e, "i", "sum", N), name="Sum"), "float32", "torch", **more)


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "dtype": ({"dtype": "int32"}, "`dtype` of an operator: one of float32, float64, bfloat16, float16 is needed"),
    "dtype of another type": ({"dtype": ["float32"]}, "`dtype` of an operator"),
    "backend": ({"backend": "os"}, "`backend` of an operator: one of auto, triton, cpp, torch is needed, not 'os'"),
    "method of a graph": ({"graph": ["__class__"]}, "`graph` of an operator: one of add_self_loops"),
    "a method that graphs have": ({"graph": ["reverse"]}, "`graph` of an operator: one of add_self_loops"),
    "methods in a text": ({"graph": "add_self_loops"}, "graph: a list is needed"),
    "an end": ({"requires": [["k", 2]]}, "`requires` of an operator: an end, i or j, or reverse, and a number"),
    "a degree": ({"requires": [["i", True]]}, "`requires` of an operator"),
    "a negative degree": ({"requires": [["i", -1]]}, "`requires` of an operator"),
    "a choice": ({"choices": [["save", "some"]]}, "`choices` of an operator: a choice"),
    "a choice of lists": ({"choices": [[["save"], "all"]]}, "`choices` of an operator: a choice"),
    "a mask of numbers": ({"mask": [1, 0]}, "`mask` of an operator: true or false is needed"),
    "a short mask": ({"mask": [True]}, "`mask` of an operator names some of its 2 inputs"),
    "one more": ({"code": "1"}, "an operator has the fields program, dtype,"),
    "a program that is none": ({"program": [1]}, "a program has the fields"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_field_of_an_operator(case: str) -> None:
    changes, message = FIELDS[case]
    with pytest.raises(ProgramError, match=message):
        call_of(json.dumps({**json.loads(simple().text()), **changes}))


def test_a_mask_of_integers_is_refused() -> None:
    picked = b.index(load("t", G, A), integer("k", N, 4), "a")
    data = json.loads(OperatorCall(program(picked), "float32", "torch").text())
    with pytest.raises(ProgramError, match="all of them floats"):
        call_of(json.dumps({**data, "mask": [True, True]}))


@pytest.mark.parametrize(
    "text", ["", "{", "null", "3", "[" * 10**5, "[" * 10**5 + "]" * 10**5, '{"a": ' * 10**5, "1" * 5000, "\x00"]
)
def test_what_is_no_operator(text: str) -> None:
    with pytest.raises(ProgramError):
        call_of(text)


def test_a_deep_program_is_read() -> None:
    """As deep as an operator may be: data nests no deeper than a program is long."""
    h = load("x", N)
    for _ in range(5000):
        h = b.elementwise("tanh", h)
    made = program(h)
    assert from_data(json.loads(json.dumps(to_data(made)))) == made
    nested: Any = 1
    for _ in range(900):
        nested = [nested]
    with pytest.raises(ProgramError):
        from_data({**to_data(made), "names": nested})


def test_dead_and_repeated_nodes_are_refused() -> None:
    data = to_data(simple().program)
    for more in (["const", [], ["global", [], "float", None], {"value": 1.0}], data["nodes"][0]):
        with pytest.raises(ProgramError, match="there twice, or no output needs it"):
            from_data({**data, "nodes": [*data["nodes"], more]})


def test_equal_numbers_of_other_types_stay_apart() -> None:
    """1 is True to Python, and nodes that are equal are one: a size that is true is refused, whatever lives already."""
    one = b.load("x", Type(Domain.NODE, (Dim("a", 1),)), "input")
    data = to_data(Program("P", (("y", one),)))
    for size in (True, 1.0):
        data["nodes"][0][2][1][0][1] = size
        with pytest.raises(ProgramError, match="is not the size of `a`"):
            from_data(data)


# ------------------------------------------------------------------------------------- tensors of a run


def run(
    made: OperatorCall, tensors: list[Tensor], edges: Tensor = EDGES, sizes: tuple[int, int] = (3, 3), **more: Any
) -> Any:
    return torch.ops.gdsl.run(made.text(), tensors, edges, *sizes, more.get("batch"), more.get("graphs", 1))


X, W = torch.ones(3, 4), torch.ones(3)
TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"tensors": []}, "Sum has 2 inputs, and 0 tensors were given"),
    "one more": ({"tensors": [X, W, W]}, "Sum has 2 inputs, and 3 tensors were given"),
    "dtype": ({"tensors": [X.double(), W]}, "`x` is torch.float64, and this call was compiled for torch.float32"),
    "integers": ({"tensors": [X.long(), W]}, "`x` is torch.int64"),
    "dims": ({"tensors": [X[:, :3], W]}, r"`x` has shape \[3, 3\], and \[3, 4\] is needed"),
    "rows": ({"tensors": [X[:2], W]}, r"`x` has shape \[2, 4\], and \[3, 4\] is needed"),
    "a row too many": ({"tensors": [X, torch.ones(4)]}, r"`e` has shape \[4\], and \[3\] is needed"),
    "a number": ({"tensors": [X, torch.ones(())]}, r"`e` has shape \[\], and"),
    "edges": ({"tensors": [X, W], "edges": EDGES + 1}, "edge"),
    "edges of floats": ({"tensors": [X, W], "edges": EDGES.float()}, "edge_index"),
    "two sets of nodes": ({"tensors": [X, W], "sizes": (4, 3)}, "Sum needs one set of nodes, and the graph has 4"),
    "no size": ({"tensors": [X, W], "sizes": (-1, 3)}, "needs one set of nodes, and the graph has -1 sources"),
    "batch": ({"tensors": [X, W], "batch": torch.zeros(2, dtype=torch.long)}, r"`batch` is torch.int64 \[2\], and"),
    "graphs": ({"tensors": [X, W], "batch": torch.tensor([0, 1, 2]), "graphs": 2}, "node 2 has batch = 2"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit(case: str) -> None:
    """Refused before a kernel reads them: there is no C++ compiler that could be called."""
    given, message = TENSORS[case]
    made = simple()
    for backend in ("torch", "cpp"):
        with pytest.raises((InputError, GraphError), match=message):
            run(OperatorCall(made.program, made.dtype, backend), **given)


def test_tensors_of_another_device() -> None:
    """Not by the dispatcher, which gives what lies on the meta device to the operator's fake."""
    with pytest.raises(InputError, match="`x` is on meta, and the graph is on cpu"):
        operators._run(simple().text(), [X.to("meta"), W], EDGES, 3, 3, None, 1)


@pytest.mark.parametrize("role", ["input", "saved", "seed"])
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_integers_that_are_no_index(backend: str, role: str) -> None:
    """Whatever their dtype and role, and NaN among them: an index outside its table would read what lies beside it."""
    picked = b.index(load("t", G, A), b.load("k", integer("_", N, 4).type, role), "a")
    made, table = OperatorCall(program(picked), "float32", backend), torch.arange(4.0)
    loads = [n.attrs.name for n in made.program.inputs]

    def given(k: Tensor) -> list[Tensor]:
        return [{"t": table, "k": k}[name] for name in loads]

    assert run(made, given(torch.tensor([0, 3, 1])))[0].tolist() == [0, 3, 1]
    for k in ([0, 4, 0], [-1, 0, 0], [2**40, 0, 0]):
        with pytest.raises(InputError, match=r"has k = .*, and k must be from 0 to 3"):
            run(made, given(torch.tensor(k)))
    for wrong in (torch.tensor([math.nan, 0, 0]), torch.tensor([0.0, 1, 2]), torch.zeros(3, dtype=torch.bool)):
        with pytest.raises(InputError, match="`k` is torch"):
            run(made, given(wrong))


def test_other_operators_take_no_names_of_methods() -> None:
    for method in ("__class__", "reverse", "to", "gdsl_mark"):
        with pytest.raises(ProgramError, match="a graph is changed by one of"):
            torch.ops.gdsl.rewired(method, EDGES, 3, 3)
        with pytest.raises(ProgramError, match="a graph is changed by one of"):
            torch.ops.gdsl.in_order([method], "i", EDGES, 3, 3)
    with pytest.raises(ProgramError, match="edges are sorted by their end i or j, not 'k'"):
        torch.ops.gdsl.in_order([], "k", EDGES, 3, 3)


# ---------------------------------------------------------------------------------------- a file on disk


def test_an_exported_model_that_was_edited(tmp_path: Path) -> None:
    """A file that ``torch.export`` wrote: it runs as it is, and not with another text in any of some fields."""
    text = "layer C(d = 2) { node x[d] edge k: int(3) param t[3, d] ~ glorot update y = sum(t[k] * x[j]) }"
    conv = gdsl.compile(text)
    x, kinds = torch.ones(3, 2), torch.tensor([0, 1, 2])
    with torch.no_grad():
        exported = torch.export.export(conv, (x, EDGES, kinds))
    whole = tmp_path / "whole.pt2"
    torch.export.save(exported, whole)
    again = torch.export.load(whole).module()
    torch.testing.assert_close(again(x, EDGES, kinds), conv(x, EDGES, kinds))
    told = json.loads(next(n for n in exported.graph.nodes if n.target is torch.ops.gdsl.run.default).args[0])
    ways = [way for way in fields(json.dumps(told)) if not isinstance(at(told, way), dict | list)]
    tried = 0
    for k, way in enumerate(ways[:: max(1, len(ways) // 12)]):
        edit_file(whole, tmp_path / f"{k}.pt2", json.dumps(told, separators=(",", ":")), way)
        with pytest.raises(Exception, match=r"ProgramError|is no name|is needed|is not|one of"):
            torch.export.load(tmp_path / f"{k}.pt2").module()(x, EDGES, kinds)
        tried += 1
    assert tried >= 10


def edit_file(source: Path, target: Path, text: str, way: Way) -> None:
    """The archive with a mark in one field of the operator's text."""
    old, new = (json.dumps(t) for t in (text, json.dumps(json.loads(edited(text, way, FLAG + ";")))))
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as changed:
        contents = {info: archive.read(info) for info in archive.infolist()}
        assert sum(old.encode() in content for content in contents.values()) == 1
        for info, content in contents.items():
            changed.writestr(info, content.replace(old.encode(), new.encode()))


# ------------------------------------------------------------------------------------------ names as text


@pytest.mark.parametrize("evil", TEXTS)
def test_names_of_any_text_are_names_in_kernels(evil: str) -> None:
    """Of values, dims, inputs and the program itself, where no file is between: a class or a module may have any."""

    def named(name: str) -> Program:
        x, t = load(f"x{name}", N, Dim(f"a{name}", 4)), load(f"t{name}", G)
        h = b.elementwise("tanh", x) * t
        y = b.segment(b.gather(h, "j"), "i", "sum", N)
        outputs = ((f"y{name}", y), ("s", b.sum_dims(y, [f"a{name}"])))
        return Program(f"P{name}", outputs, {h: f"h{name}", y: f"v{name}"})

    assert skeleton(write_kernels(named(evil))) == skeleton(write_kernels(named("")))
    for text in write_kernels(named(evil)):
        assert text.isascii() and "\\" not in text and "\x00" not in text


# ----------------------------------------------------------------------------------- what could run anything

# Calls that make code of data, or may, and where the project needs one.
RUNNERS = """eval exec compile __import__ pickle.load pickle.loads pickle.Unpickler marshal.load marshal.loads
torch.load np.load ctypes.CDLL ctypes.cdll.LoadLibrary os.system os.popen torch.ops.load_library
torch.jit.load loader.exec_module""".split()
LAST = {name.rpartition(".")[2] for name in RUNNERS}
NEEDED = {
    ("gdsl/ir/ops/functions.py", "eval"),  # the op table's own text
    ("gdsl/nn/declared.py", "exec"),  # constructors, of the names in the body of a class
    ("gdsl/runtime/source.py", "exec"),  # a generated kernel
    ("gdsl/runtime/source.py", "compile"),
    ("gdsl/runtime/cache.py", "ctypes.CDLL"),  # the same in C++, in a file of the user's own
    ("gdsl/runtime/native.py", "loader.exec_module"),  # an extension of torch, likewise
    ("gdsl/runtime/freed.py", "ctypes.CDLL"),  # the allocator of the process
    ("gdsl/runtime/steps.py", "ctypes.CDLL"),  # torch's own library, for its products of matrices
    ("gdsl/look/measure.py", "ctypes.CDLL"),  # libc
}


def test_nothing_else_makes_code_of_data() -> None:
    """No other `eval`, no pickle, no file read by torch or numpy that may hold one, no shell."""
    root, found = Path(gdsl.__file__).parent.parent, set()
    for file in (f for folder in ("gdsl", "benchmarks", "examples") for f in sorted((root / folder).rglob("*.py"))):
        text = file.read_text(encoding="utf-8")
        if not any(word in text for word in (*LAST, "shell")):
            continue
        for call in (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)):
            last = getattr(call.func, "attr", getattr(call.func, "id", ""))
            options = {k.arg: ast.unparse(k.value) for k in call.keywords if k.arg == "shell" or last in LAST}
            name = ast.unparse(call.func) if last in LAST else ""
            plain = name == "np.load" and options.get("allow_pickle", "False") == "False"
            plain = plain or (name == "torch.load" and options.get("weights_only") == "True")
            if (name in RUNNERS and not plain) or options.get("shell", "False") != "False":
                found.add((str(file.relative_to(root)), name))
    assert found == NEEDED
