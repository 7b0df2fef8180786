"""Every entry of the op table: its torch, sympy and C++ forms and its derivative agree."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest
import sympy
import torch
from torch import Tensor

from gdsl.codegen import cpp
from gdsl.ir import build as b
from gdsl.ir.node import Node
from gdsl.ir.ops import ELEMENTWISE, ElementwiseOp, torch_function
from gdsl.ir.types import Dim, Kind, Type
from gdsl.runtime import cache, reference
from tests.ir.drive import PLAIN, G, frame, program, runner

OPS = list(ELEMENTWISE.values())
SMOOTH = [op for op in OPS if op.kind in ("float", "same") and op.name not in ("where", "to_float")]
BOUND = 6
FRAME = frame([[], []], 0)

# The kinds of an op's arguments where they are not all floats.
ARGUMENTS = {"and": "bb", "or": "bb", "not": "b", "where": "bff", "to_float": "i"}


def ids(op: ElementwiseOp) -> str:
    return op.name


def kinds(op: ElementwiseOp) -> str:
    return ARGUMENTS.get(op.name, "f" * op.arity)


def samples(op: ElementwiseOp, count: int = 7) -> list[Tensor]:
    """Points in the op's own interval, different for each argument."""
    low, high = op.sample
    made = {
        "f": lambda: low + (high - low) * torch.rand(count, dtype=torch.float64),
        "b": lambda: torch.rand(count) < 0.5,
        "i": lambda: torch.randint(-9, 9, (count,)),
    }
    return [made[kind]() for kind in kinds(op)]


def torch_form(op: ElementwiseOp, dtype: torch.dtype = torch.float64):
    return torch_function(op.name, BOUND, dtype)


def sympy_form(op: ElementwiseOp) -> tuple[sympy.Basic, list[sympy.Symbol]]:
    names = [f"x{k}" for k in range(op.arity)]
    symbols = [
        sympy.Symbol(n) if k == "b" else sympy.Symbol(n, real=True) for n, k in zip(names, kinds(op), strict=True)
    ]
    return sympy.sympify(op.sympy.format(*names), locals=dict(zip(names, symbols, strict=True))), symbols


def at(form: sympy.Basic, symbols: list[sympy.Symbol], point: tuple) -> float:
    value = form.subs({s: sympy.sympify(v) for s, v in zip(symbols, point, strict=True)})
    return float(value) if value not in (sympy.true, sympy.false) else float(bool(value))


def points(args: list[Tensor]) -> list[tuple]:
    return list(zip(*(a.tolist() for a in args), strict=True))


def loads(op: ElementwiseOp) -> list[Node]:
    kind = {"f": Kind.FLOAT, "b": Kind.BOOL, "i": Kind.INT}
    return [b.load(f"x{k}", Type(G, (), kind[c]), "input") for k, c in enumerate(kinds(op))]


# ------------------------------------------------------------------------------- torch and sympy


@pytest.mark.parametrize("op", OPS, ids=ids)
def test_torch_form_is_sympy_form(op: ElementwiseOp) -> None:
    args = samples(op)
    form, symbols = sympy_form(op)
    wanted = torch.tensor([at(form, symbols, p) for p in points(args)], dtype=torch.float64)
    torch.testing.assert_close(torch_form(op)(*args).double(), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPS, ids=ids)
def test_one_derivative_for_each_argument(op: ElementwiseOp) -> None:
    assert len(op.derivative) == op.arity


@pytest.mark.parametrize("op", SMOOTH, ids=ids)
def test_derivative_is_that_of_sympy(op: ElementwiseOp) -> None:
    args, nodes = samples(op), loads(op)
    y = b.elementwise(op.name, *nodes)
    form, symbols = sympy_form(op)
    for rule, symbol in zip(op.derivative, symbols, strict=True):
        slope = sympy.diff(form, symbol)
        if slope.has(sympy.Derivative, sympy.Subs):
            continue  # sympy has no derivative: gradcheck has
        partial = b.const(0.0) if rule is None else rule(*nodes, y)
        for point in points(args):
            given = {n: torch.tensor(v, dtype=torch.float64) for n, v in zip(nodes, point, strict=True)}
            (found,) = reference.run([partial], given, FRAME)
            assert float(found) == pytest.approx(at(slope, symbols, point), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("op", [*SMOOTH, ELEMENTWISE["where"]], ids=ids)
def test_first_and_second_derivative_by_finite_differences(op: ElementwiseOp) -> None:
    args, nodes = samples(op, 1), loads(op)
    run = runner(program(b.elementwise(op.name, *nodes)), "torch", PLAIN)
    args = [a[0].requires_grad_() if a.is_floating_point() else a[0] for a in args]
    assert torch.autograd.gradcheck(lambda *a: run(a, FRAME), args)
    assert torch.autograd.gradgradcheck(lambda *a: run(a, FRAME), args)


# ------------------------------------------------------------------------------------ C++ form

_C = {"f": "T", "b": "bool", "i": "int64_t"}
_TYPES = {"float": torch.float32, "double": torch.float64}


def _function(op: ElementwiseOp, number: str, given: str, suffix: str) -> str:
    """A loop that applies the op's C++ form; T is the type of its float arguments."""
    names = [f"x{k}" for k in range(op.arity)]
    types = [_C[k].replace("T", number) for k in given]
    result = {"bool": "bool", "int": "int64_t"}.get(
        op.kind, "int64_t" if set(given) == {"i"} and op.kind == "same" else number
    )
    head = ", ".join(f"const {t}* p{k}" for k, t in enumerate(types))
    body = " ".join(f"const {t} {n} = p{k}[n];" for k, (t, n) in enumerate(zip(types, names, strict=True)))
    form = op.cpp.format(*names, bound=BOUND).replace("gdsl_float(", f"{number}(")
    return f'extern "C" void {op.name}_{suffix}(int64_t size, {head}, {result}* y) ' + (
        f"{{ for (int64_t n = 0; n < size; ++n) {{ {body} y[n] = {form}; }} }}\n"
    )


def exact(op: ElementwiseOp) -> bool:
    """Whether the op also works on integers as they are."""
    return op.kind in ("same", "bool") and set(kinds(op)) == {"f"}


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    """Every op for float, double and, where it has one, int64 in one translation unit."""
    text = [_function(op, number, kinds(op), number) for op in OPS for number in _TYPES]
    text += [_function(op, "double", "i" * op.arity, "int") for op in OPS if exact(op)]
    return cache.load(cpp.header("prelude.h") + "\n" + "".join(text), name="op_table")


def call(library: ctypes.CDLL, name: str, args: list[Tensor], like: Tensor) -> Tensor:
    out = torch.empty_like(like)
    held = [a.contiguous() for a in args]
    function = getattr(library, name)
    function.restype = None
    function(ctypes.c_int64(len(out)), *(ctypes.c_void_p(t.data_ptr()) for t in (*held, out)))
    return out


def special(dtype: torch.dtype) -> list[float]:
    info = torch.finfo(dtype)
    found = [
        0.0,
        info.tiny,
        info.tiny / 4,
        info.eps,
        0.3,
        0.5,
        1.0,
        1.5,
        2.0,
        3.0,
        7.25,
        100.0,
        1e4,
        info.max,
        torch.inf,
    ]
    return [*found, *(-v for v in found), torch.nan]


def hard_arguments(op: ElementwiseOp, dtype: torch.dtype) -> list[Tensor]:
    """Every combination of the special values, and a few thousand ordinary ones."""
    values = {"f": special(dtype), "b": [True, False], "i": [-(2**40), -3, 0, 5, 2**40]}
    columns = zip(*itertools.product(*(values[k] for k in kinds(op))), strict=True)
    hard = [
        torch.tensor(c, dtype={"f": dtype, "b": torch.bool, "i": torch.long}[k])
        for c, k in zip(columns, kinds(op), strict=True)
    ]
    return [torch.cat([h, s.to(h.dtype)]) for h, s in zip(hard, samples(op, 3000), strict=True)]


# Units in the last place by which a function may differ from torch's own; others are the same operation.
ULP = {"exp": 2, "tanh": 5, "sigmoid": 4, "softplus": 4, "expm1": 2, "log": 2, "log1p": 2, "pow": 3, "sin": 2,
       "cos": 2, "acos": 2, "atan2": 4, "erf": 4, "sqrt": 1, "norm_sqrt": 1, "rsqrt": 2}  # fmt: skip


def ulps(found: Tensor, wanted: Tensor) -> Tensor:
    """The distance in units of the last place of ``wanted``; infinite where only one is NaN or infinite."""
    a, w = found.double().numpy(), wanted.double().numpy()
    with np.errstate(all="ignore"):
        unit = np.spacing(np.abs(wanted.numpy())).astype(np.float64)
        gap = np.abs(a - w) / unit
    gap[(a == w) | (np.isnan(a) & np.isnan(w))] = 0
    gap[np.isnan(gap)] = np.inf
    return torch.from_numpy(gap)


def beyond_fmod(a: Tensor, b: Tensor) -> Tensor:
    """Where the quotient overflows though both numbers are finite, and torch's vectorised fmod is NaN."""
    return (a.double() / b.double()).isinf() & a.isfinite() & (b != 0)


@pytest.mark.parametrize("number", _TYPES)
@pytest.mark.parametrize("op", OPS, ids=ids)
def test_cpp_form_is_torch_form(library: ctypes.CDLL, op: ElementwiseOp, number: str) -> None:
    dtype = _TYPES[number]
    args = hard_arguments(op, dtype)
    if op.name == "mod":
        args = [a[~beyond_fmod(*args)] for a in args]
    if op.name == "sigmoid":  # below that torch's float32 gives 0, and ours the small number that it is
        args = [args[0][~(args[0] < -87.0)]]
    wanted = torch_form(op, dtype)(*args)
    found = call(library, f"{op.name}_{number}", args, wanted)
    if not wanted.is_floating_point():
        assert torch.equal(found, wanted)
        return
    gap = ulps(found, wanted)
    worst = int(gap.argmax())
    assert gap[worst] <= ULP.get(op.name, 0), (
        f"{[a[worst].item() for a in args]}: {found[worst]}, torch {wanted[worst]}"
    )


@pytest.mark.parametrize("op", [op for op in OPS if exact(op)], ids=ids)
def test_cpp_form_on_integers(library: ctypes.CDLL, op: ElementwiseOp) -> None:
    values = [-7, -1, 0, 1, 2, 6, 2**40]
    args = [torch.tensor(c) for c in zip(*itertools.product(values, repeat=op.arity), strict=True)]
    wanted = torch_form(op)(*args)
    assert torch.equal(call(library, f"{op.name}_int", args, wanted), wanted)


def test_exp_is_within_2_ulp_of_the_truth(library: ctypes.CDLL) -> None:
    """Over all exponents, also where the result is below the smallest normal number."""
    x = torch.linspace(-104.5, 89.5, 1_000_003)
    found = call(library, "exp_float", [x], x)
    assert ulps(found, x.double().exp().float()).max() <= 2


def test_tanh_and_sigmoid_are_accurate_everywhere(library: ctypes.CDLL) -> None:
    x = torch.cat([torch.linspace(-20, 20, 400_001), torch.logspace(-38, 0, 1000), -torch.logspace(-38, 0, 1000)])
    for name in ("tanh", "sigmoid"):
        truth = getattr(torch, name)(x.double()).float()
        assert ulps(call(library, f"{name}_float", [x], x), truth).max() <= ULP[name]


def test_an_index_is_in_range_whatever_the_number(library: ctypes.CDLL) -> None:
    for number, dtype in _TYPES.items():
        x = torch.tensor(special(dtype), dtype=dtype)
        found = call(library, f"to_int_{number}", [x], torch.empty(len(x), dtype=torch.long))
        assert found.min() >= 0
        assert found.max() < BOUND


# The square root of a norm has slope 0 at 0 by design, where torch.sqrt's is infinite.
HARD = [op for op in SMOOTH if op.name != "norm_sqrt"]
# Of these a factor of the derivative is 0, and no condition: 0 · inf is NaN, where torch may select.
FACTORS = ("pow", "mod", "leaky_relu")


@pytest.mark.parametrize(
    ("op", "reached"),
    [*((op, 1.0) for op in HARD), *((op, torch.inf) for op in HARD if op.name not in FACTORS)],
    ids=lambda v: v.name if isinstance(v, ElementwiseOp) else f"reached by {v:g}",
)
def test_gradient_at_hard_points_is_that_of_torch(op: ElementwiseOp, reached: float) -> None:
    """At 0, at ties, at infinity: the same number, infinity or NaN as torch's own derivative."""
    values = [-2.0, -1.0, 0.0, 1.0, 2.0] + ([-torch.inf, torch.inf] if op.arity == 1 else [])
    args = [torch.tensor(c, dtype=torch.float64) for c in zip(*itertools.product(values, repeat=op.arity), strict=True)]
    line = Dim("n", len(args[0]))
    nodes = [b.load(f"x{k}", Type(G, (line,)), "input") for k in range(op.arity)]
    run = runner(program(b.elementwise(op.name, *nodes)), "torch", PLAIN)

    def slopes(function) -> list[Tensor]:
        leaves = [a.clone().requires_grad_() for a in args]
        y = function(leaves)
        found = [None] * len(leaves)
        if y.requires_grad:
            found = torch.autograd.grad(y, leaves, torch.full_like(y, reached), allow_unused=True)
        return [torch.zeros(line.size) if g is None else g for g in found]

    pairs = zip(slopes(lambda a: run(a, FRAME)[0]), slopes(lambda a: torch_form(op)(*a)), strict=True)
    for found, wanted in pairs:
        differ = ~((found == wanted) | (found.isnan() & wanted.isnan()) | ((found - wanted).abs() < 1e-12))
        assert not differ.any(), [
            (*(a[k].item() for a in args), found[k].item(), wanted[k].item()) for k in differ.nonzero()[:, 0]
        ]
