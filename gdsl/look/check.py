"""``conv.check(x, graph)``: tests of a layer's kernels and derivatives on the user's own data.

All checks run on copies, in evaluation mode, so that the layer and its inputs stay as they are, and all but one in
float64, so that rounding cannot hide or feign a mistake:

- each backend that is at hand against the torch reference, and the optimised program against the plain one; the layer's
  own backend also in its own dtype;
- gradcheck and gradgradcheck of ``torch.autograd``, for each input by itself, so that a failure has a name;
- the adjoint test ⟨Jv, u⟩ = ⟨v, Jᵀu⟩, with Jv from differences of the forward pass;
- the same bits twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

from gdsl.errors import GdslError
from gdsl.runtime.dtypes import short

# Two ways to compute the same number in float64 differ by the order of their sums.
SAME = 1e-9
# In fewer digits they differ by some of the last ones: by how many units of those, by the bytes of a number.
_ROUNDED = {2: 16, 4: 512}
# A central difference with this step has an error of about 1e-10 of the values at hand.
STEP = 1e-6
DIFFERENCE = 1e-5
# How torch's gradcheck compares entries: its own defaults.
ATOL, RTOL = 1e-5, 1e-3
# Each row and column of a Jacobian takes two runs. Where these are more, gradcheck's fast mode compares
# random projections of the Jacobian by each input instead of every entry.
FULL_RUNS = 400
# One-sided differences that disagree by more than this part of their size show a kink, not curvature.
KINK = 1e-3

Function = Callable[..., Tensor]

MISMATCH = "the derivative does not fit the function"
KINKED = "no derivative fits: at this input the function has a kink, such as relu at 0 or a tie of max"

# What a derivative that there is no rule for raises.
_FAILURES = (GdslError, RuntimeError)


@dataclass(frozen=True)
class CheckRow:
    """One check. It passes when ``value``, an error, is at most ``tolerance``; ``note`` says more.

    The value of a gradcheck is the error along one random direction, relative to the derivative's size; its
    verdict is also torch's, which compares entry by entry.
    """

    name: str
    passed: bool
    value: float
    tolerance: float
    note: str = ""

    def line(self, width: int = 0) -> str:
        """As a line of a table whose names are this wide."""
        verdict = "ok" if self.passed else "FAIL"
        return f"  {verdict:<4}  {self.name:<{width}}  {self.value:8.1e}  {self.tolerance:9.0e}  {self.note}"


@dataclass(frozen=True)
class CheckReport:
    """What ``conv.check`` found. True when every check passed; printed, a table with a line for each."""

    layer: str
    rows: tuple[CheckRow, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(row.passed for row in self.rows)

    @property
    def failures(self) -> tuple[CheckRow, ...]:
        """The checks that failed."""
        return tuple(row for row in self.rows if not row.passed)

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return f"<CheckReport {self.layer}: {self._verdict}>"

    def _repr_html_(self) -> str:
        from gdsl.look import html

        return html.report(self)

    @property
    def _verdict(self) -> str:
        count, bad = len(self.rows), len(self.failures)
        return f"{bad} of {count} checks failed" if bad else f"all {count} checks passed"

    def __str__(self) -> str:
        width = max((len(row.name) for row in self.rows), default=0)
        lines = [row.line(width) for row in self.rows]
        head = f"        {'':<{width}}     error  tolerance"
        return "\n".join(line.rstrip() for line in [f"{self.layer}, in float64: {self._verdict}", head, *lines])


# The results of a subject on a backend, of its optimised or of its plain program.
Call = Callable[[str, Sequence[Tensor], bool], tuple[Tensor, ...]]


def check(
    title: str,
    call: Call,
    values: Mapping[str, Tensor],
    outputs: Sequence[str],
    backend: str,
    others: Sequence[str],
    dtype: torch.dtype,
) -> CheckReport:
    """A report on a function of torch that is computed by several backends.

    call:    the function, on a backend, of the values in order; it is called with float64, and with its own dtype
    values:  leaf tensors in float64 by name. All of them require gradients in every check, also those that a check
             does not look at: kernels are made for what requires gradients, and this way they are made once
    outputs: the names of its results
    backend: the one that it runs on
    others:  those to be compared with the reference
    dtype:   the one that it runs in

    Raises what a call raises; a check that fails is a row of the report.
    """
    rows: list[CheckRow] = []
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        subject = _Subject(call, values, outputs, backend, tuple(others), dtype)
        for family in (_compare, _own_dtype, _first_derivatives, _second_derivatives, _adjoint, _repeat):
            rows.extend(family(subject))
    return CheckReport(title, tuple(rows))


# ------------------------------------------------------------------------------------- the subject


class _Subject:
    """A function of named tensors, on its own backend and on others."""

    def __init__(
        self,
        call: Call,
        values: Mapping[str, Tensor],
        outputs: Sequence[str],
        backend: str,
        others: tuple[str, ...],
        dtype: torch.dtype,
    ):
        self.call, self.backend, self.others, self.dtype = call, backend, others, dtype
        self.names, self.values = tuple(values), tuple(values.values())
        self.random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            results = call("torch", self.values, True)
        kept = [(n, r.shape) for n, r in zip(outputs, results, strict=True) if r.is_floating_point()]
        self.output_names, self.shapes = tuple(n for n, _ in kept), tuple(shape for _, shape in kept)

    def function(self, *values: Tensor) -> Tensor:
        """The subject on its own backend with all its results in one vector.

        One vector, since the gradient of one result alone would be another kernel to compile.
        """
        results = self.call(self.backend, values, True)
        return torch.cat([r.reshape(-1) for r in results if r.is_floating_point()])

    def pull(self, u: Tensor, *values: Tensor) -> Tensor:
        """Jᵀu, all gradients in one vector, to be differentiated again."""
        return _gradients(self.function(*values), values, u, again=True)

    @property
    def has_derivatives(self) -> bool:
        """Whether there is a number to differentiate and one to do it by: an empty graph may have none."""
        return any(shape.numel() for shape in self.shapes) and any(v.numel() for v in self.values)

    def normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.random, dtype=torch.float64).to(like.device)


def _gradients(y: Tensor, wrt: Sequence[Tensor], u: Tensor, again: bool = False) -> Tensor:
    """The gradients in one vector; zeros where there is none."""
    found: Sequence[Tensor | None] = [None] * len(wrt)
    if y.requires_grad:
        found = torch.autograd.grad(y, wrt, u, create_graph=again, allow_unused=True)
    parts = [torch.zeros_like(x) if g is None else g for x, g in zip(wrt, found, strict=True)]
    return torch.cat([g.reshape(-1) for g in parts])


# -------------------------------------------------------------------------------------- comparison


def _compare(subject: _Subject) -> Iterator[CheckRow]:
    """Each backend, and the unoptimised program, against the optimised one on the reference."""
    expected = _measure(subject, "torch")
    ways = [(f"{backend} as torch", backend, True) for backend in subject.others]
    for title, backend, optimise in [*ways, ("optimised as unoptimised", "torch", False)]:
        found = _measure(subject, backend, optimise)
        for name, value in expected.items():
            error = error_of(found[name], value)
            yield CheckRow(f"{title}: {name}", error <= SAME, error, SAME)


def _own_dtype(subject: _Subject) -> Iterator[CheckRow]:
    """The results in the dtype that a user computes in against the reference in the same one."""
    if subject.dtype is torch.float64 or subject.backend == "torch":
        return
    values = [v.detach().to(subject.dtype) for v in subject.values]
    tolerance = rounding(subject.dtype)
    pairs = [[r for r in subject.call(b, values, True) if r.is_floating_point()] for b in ("torch", subject.backend)]
    for name, expected, found in zip(subject.output_names, *pairs, strict=True):
        error = error_of(found.double(), expected.double())
        title = f"{subject.backend} as torch in {short(subject.dtype)}: result {name}"
        yield CheckRow(title, error <= tolerance, error, tolerance)


def _measure(subject: _Subject, backend: str, optimise: bool = True) -> dict[str, Tensor]:
    """Results, and gradients of a fixed mix of them, by name."""
    results = [r for r in subject.call(backend, subject.values, optimise) if r.is_floating_point()]
    found = {f"result {n}": r.detach() for n, r in zip(subject.output_names, results, strict=True)}
    if subject.values and results:
        y = torch.cat([r.reshape(-1) for r in results])
        mix = torch.randn(len(y), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        flat = _gradients(y, subject.values, mix.to(y.device))
        parts = flat.split([v.numel() for v in subject.values])
        found |= {f"gradient of {n}": g for n, g in zip(subject.names, parts, strict=True)}
    return found


def rounding(dtype: torch.dtype) -> float:
    """By how much two ways to compute a number in a dtype may differ, as :func:`error_of` measures it."""
    return _ROUNDED[dtype.itemsize] * torch.finfo(dtype).eps if dtype.itemsize in _ROUNDED else SAME


def error_of(found: Tensor, expected: Tensor) -> float:
    """The largest difference, absolute for numbers below one and relative to the largest number above."""
    if found.shape != expected.shape:
        return math.inf
    if not found.numel():
        return 0.0
    same = (found == expected) | (found.isnan() & expected.isnan())  # also the same infinity
    if bool(same.all()):
        return 0.0
    finite = expected[expected.isfinite()].abs()
    scale = max(1.0, float(finite.max()) if finite.numel() else 1.0)
    difference = (found - expected)[~same].abs().max()
    return float(difference) / scale if bool(difference.isfinite()) else math.inf


# ------------------------------------------------------------------------------------- derivatives


def _first_derivatives(subject: _Subject) -> Iterator[CheckRow]:
    return _by_input(subject, "gradcheck", subject.function, subject.values, subject.names)


def _second_derivatives(subject: _Subject) -> Iterator[CheckRow]:
    """The gradients as a function of everything that they depend on, the gradients that come in included."""
    size = sum(shape.numel() for shape in subject.shapes)
    like = subject.values[0] if subject.values else torch.zeros(())
    u = subject.normal(torch.empty(size, device=like.device)).requires_grad_()
    names = ("incoming gradient", *subject.names)
    return _by_input(subject, "gradgradcheck", subject.pull, (u, *subject.values), names)


def _by_input(
    subject: _Subject, title: str, function: Function, values: Sequence[Tensor], names: Sequence[str]
) -> Iterator[CheckRow]:
    """A row for each input by which the function is differentiated."""
    if not subject.has_derivatives:
        return
    # All inputs at once share the runs for the backward; only after a failure is each one looked at alone.
    together = not _disagrees(function, values, range(len(values)))
    for k, name in enumerate(names):
        if values[k].numel():
            yield _differentiate(subject, f"{title}: {name}", function, values, k, together)


def _differentiate(
    subject: _Subject, name: str, function: Function, values: Sequence[Tensor], k: int, agrees: bool
) -> CheckRow:
    """Compare a function's derivative by one input with differences of the function."""
    note = "" if agrees else _disagrees(function, values, [k])
    try:
        value = _adjoint_error(subject, function, values, [k])
        if value > DIFFERENCE:
            note = note or MISMATCH
        if note == MISMATCH and _has_kink(subject, function, values, k):
            note = KINKED
    except _FAILURES as error:
        value, note = math.inf, note or _first_line(error)
    return CheckRow(name, not note, value, DIFFERENCE, note)


def _disagrees(function: Function, values: Sequence[Tensor], which: Sequence[int]) -> str:
    """What torch's gradcheck has against the derivatives by these inputs.

    Nothing, MISMATCH, or why there are no derivatives.
    """

    def of_these(*some: Tensor) -> Tensor:
        near = list(values)
        for k, x in zip(which, some, strict=True):
            near[k] = x
        return function(*near)

    chosen = tuple(values[k] for k in which)
    try:
        runs = 2 * (sum(v.numel() for v in chosen) + function(*values).numel())
        gradcheck(
            of_these, chosen, eps=STEP, atol=ATOL, rtol=RTOL, check_undefined_grad=False, fast_mode=runs > FULL_RUNS
        )
    except GradcheckError:
        return MISMATCH
    except _FAILURES as error:
        return _first_line(error)
    return ""


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _has_kink(subject: _Subject, function: Function, values: Sequence[Tensor], k: int) -> bool:
    """Whether the derivatives from the two sides differ, so that no derivative could fit."""
    v = subject.normal(values[k])
    middle = function(*values).detach()
    ahead, behind = (_moved(function, values, {k: s * STEP * v}) for s in (1.0, -1.0))
    right, left = (ahead - middle) / STEP, (middle - behind) / STEP
    return float((right - left).norm()) > KINK * max(float(right.norm()), float(left.norm()))


def _moved(function: Function, values: Sequence[Tensor], by: Mapping[int, Tensor]) -> Tensor:
    """The function near its values."""
    near = [(v.detach() + by[k]).requires_grad_() if k in by else v for k, v in enumerate(values)]
    return function(*near).detach()


def _adjoint(subject: _Subject) -> Iterator[CheckRow]:
    """⟨Jv, u⟩ = ⟨v, Jᵀu⟩ over all inputs at once."""
    if not subject.has_derivatives:
        return
    value = _adjoint_error(subject, subject.function, subject.values, range(len(subject.values)))
    yield CheckRow("adjoint: <Jv, u> = <v, J'u>", value <= DIFFERENCE, value, DIFFERENCE)


def _adjoint_error(subject: _Subject, function: Function, values: Sequence[Tensor], which: Sequence[int]) -> float:
    """|⟨Jv, u⟩ - ⟨v, Jᵀu⟩| for random u and v; relative to the usual size of ⟨Jv, u⟩ where that is above one.

    Jv comes from the forward pass alone, by central differences; the double-backward trick would take it from
    the very Jᵀ that is being tested.
    """
    v = {k: subject.normal(values[k]) for k in which}
    ahead, behind = (_moved(function, values, {k: s * STEP * d for k, d in v.items()}) for s in (1.0, -1.0))
    jv = (ahead - behind) / (2 * STEP)
    y = function(*values)
    u = subject.normal(y)
    pulled = _gradients(y, [values[k] for k in which], u)
    left, right = float(jv @ u), float(torch.cat([d.reshape(-1) for d in v.values()]) @ pulled)
    error = abs(left - right) / max(1.0, float(jv.norm()), abs(right))
    return math.inf if math.isnan(error) else error


# -------------------------------------------------------------------------------------- repetition


def _repeat(subject: _Subject) -> Iterator[CheckRow]:
    """The same input gives the same bits, forward and backward."""
    first, second = (_measure(subject, subject.backend) for _ in range(2))
    for title, start in (("results", "result "), ("gradients", "gradient ")):
        names = [name for name in first if name.startswith(start)]
        wrong = sum(_different_bits(first[name], second[name]) for name in names)
        note = f"{wrong} numbers differ" if wrong else ""
        yield CheckRow(f"same bits twice: {title}", not wrong, float(wrong), 0.0, note)


def _different_bits(a: Tensor, b: Tensor) -> int:
    """How many numbers are not the same bit by bit: 0.0 is not -0.0, and a NaN is itself."""
    pairs = [v.contiguous().reshape(-1, 1).view(torch.uint8) for v in (a, b)]
    return int((pairs[0] != pairs[1]).any(1).sum())
