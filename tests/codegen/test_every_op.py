"""Each op by itself, in both languages, of whole and of half as wide numbers: that there is text for it."""

from __future__ import annotations

import pytest

from gdsl.codegen import cpp, triton
from gdsl.codegen.storage import packed_buffers
from gdsl.passes.pipeline import lower
from tests.ir import every_op
from tests.ir.drive import PLAIN

PROGRAMS = every_op.programs()


@pytest.mark.parametrize("dtype", ["float", "bfloat16"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_both_languages_write_it(name: str, dtype: str) -> None:
    plan = lower(PROGRAMS[name], PLAIN)
    packed = packed_buffers(plan, dtype)
    for kernel in plan.kernels:
        assert f"void {kernel.name}(" in cpp.kernel_source(kernel, plan, packed)
        for function in triton.functions(kernel, plan.program, packed, dtype, "int32_t"):
            compile(function.source, function.name, "exec")
            assert function.values > 0
