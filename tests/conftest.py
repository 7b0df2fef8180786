"""What all tests share: the data folder, the random seed, hypothesis profiles, when slow and GPU tests run.

pytest                              the default: seconds a test, the same draws each time
pytest --slow                       also the tests marked slow
pytest --native                     calls like one before by native code, wherever a test makes some
GDSL_HYPOTHESIS=nightly pytest      many random examples, new ones each time
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent

# Triton is imported after this: where there is no GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

_UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("default", derandomize=True, max_examples=20, database=None, **_UNHURRIED)
settings.register_profile("nightly", max_examples=2_000, print_blob=True, **_UNHURRIED)
settings.load_profile(os.environ.get("GDSL_HYPOTHESIS", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--native", action="store_true", help="repeat calls in native code in all tests")
    parser.addoption("--rehearse", action="store_true", help="run GPU tests on the CPU, in Triton's interpreter")


def pytest_configure(config: pytest.Config) -> None:
    # A bug of the compiler that a user only sees as a slower layer.
    config.addinivalue_line("filterwarnings", "error::gdsl.errors.InternalWarning")
    # Random texts say much to no effect; tests/language/test_lint.py looks at those that people read.
    config.addinivalue_line("filterwarnings", "ignore::gdsl.language.errors.LanguageWarning")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip_slow = pytest.mark.skip(reason="slow: run with --slow")
    skip_gpu = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(skip_slow)
        if item.get_closest_marker("gpu") and not (torch.cuda.is_available() or config.getoption("--rehearse")):
            item.add_marker(skip_gpu)


def pytest_collection_finish() -> None:
    # Modules and tests are there until the end: what looks at all objects need not look at them, and is seldom needed.
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], 50)


def pytest_unconfigure() -> None:
    gc.unfreeze()  # some extension modules complain of what is left when Python ends


@pytest.fixture(autouse=True, scope="session")
def _nothing_beside(pytestconfig: pytest.Config) -> None:
    """All cores have tests to run: nothing is compiled ahead of its use. Calls are Python's but for `native_code`."""
    from gdsl.runtime import cache, native

    cache.cores = lambda: 1
    if not pytestconfig.getoption("--native"):
        native._state = "missing"
    elif native.native(wait=True) is None:
        pytest.exit("--native needs a C++ compiler, and the headers of Python and torch", 1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test draws the same random numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from the global generator
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real graphs: `$GDSL_DATA`, else shared/datasets beside the repository."""
    named = os.environ.get("GDSL_DATA")
    root = Path(named).expanduser() if named else REPOSITORY.parent / "shared" / "datasets"
    if not root.is_dir():
        pytest.skip(f"no data sets: set GDSL_DATA, or put them in {os.path.relpath(root)}")
    return root


@pytest.fixture
def examples_on_path(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets a test import the modules of examples/ as its scripts do."""
    folder = REPOSITORY / "examples"
    monkeypatch.syspath_prepend(str(folder))
    for name in ("data", "cora"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


@pytest.fixture
def native_code(pytestconfig: pytest.Config) -> Iterator[None]:
    """Calls like one before are repeated by native code, which takes a while to be compiled; elsewhere they are not."""
    from gdsl.runtime import native

    native._state = "untried" if native._module is None else native._state
    if native.native(wait=True) is None:
        native._state = "missing"
        pytest.skip("needs a C++ compiler, and the headers of Python and torch")
    try:
        yield
    finally:
        if not pytestconfig.getoption("--native"):
            native._module, native._state = None, "missing"
