"""How kernels are launched: by the real launcher of Triton, and a driver that only writes down what it is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
Report = dict[str, Any]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    build = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", str(HERE / "no_gpu.c")]
    subprocess.run([*build, "-o", str(library)], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    # Triton keeps what it builds against the driver: not where a real driver is found another time.
    environment |= {"LD_LIBRARY_PATH": str(folder), "TRITON_LIBCUDA_PATH": str(folder)}
    environment |= {"TRITON_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "tests.triton.on_no_gpu"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found: Report = json.loads(done.stdout)
    return found


def arguments(found: Report) -> list[list[int]]:
    return [launch[3:9] for launch in found["launched"]]


def test_a_call_launches_its_kernels(report: Report) -> None:
    (launch,) = report["first"]["launched"]
    programs, threads, stream, *words = launch
    assert (programs, threads, stream) == (4, 128, 0)  # 8 rows a program
    assert words[1] == 30  # num_rows


def test_triton_is_asked_once(report: Report) -> None:
    assert report["first"]["asked"] == ["Sum_0"]
    assert report["again"]["asked"] == []
    assert arguments(report["again"]) == arguments(report["first"])


def test_a_tensor_that_lies_elsewhere_has_a_function_of_its_own(report: Report) -> None:
    assert report["shifted"]["asked"] == ["Sum_0"]
    assert arguments(report["shifted"]) != arguments(report["first"])


def test_what_a_graph_needs_is_compiled_beforehand(report: Report) -> None:
    assert report["first"]["compiled"] == report["hub"]["compiled"] == []
    assert report["shifted"]["compiled"] == ["Sum_0"]


def test_a_profiler_is_told_of_launches(report: Report) -> None:
    assert report["hooked"]["told"] == 1
    assert arguments(report["hooked"]) == arguments(report["again"])
    assert report["hooked"]["asked"] == []


def test_the_current_stream(report: Report) -> None:
    assert [launch[2] for launch in report["stream"]["launched"]] == [42]


def test_a_hub_is_walked_in_chunks(report: Report) -> None:
    assert report["hub"]["asked"] == ["Sum_0", "Sum_0_chunk0", "Sum_0_hubs"]
    assert [launch[0] for launch in report["hub"]["launched"]] == [113, 1, 1]
    assert report["hub"]["launched"][1][6] & 0xFFFFFFFF == 3  # num_chunks: a program takes eight


def test_host_time_of_a_call(report: Report) -> None:
    """Printed, not asserted: run with -s. A real driver's launch comes on top."""
    print(f"{report['host_us']:.1f} us of host time a call")
    assert report["host_us"] > 0
