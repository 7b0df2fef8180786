"""All that is to be run on a GPU, in one command that fits ten minutes: a smoke test, the tests, the benchmark.

    python benchmarks/card.py --folder gpu                     the whole, within nine minutes
    python benchmarks/card.py --folder gpu --wheels wheels     on a machine that lacks packages, with wheels of them
    python benchmarks/card.py --folder gpu --rehearse          on the CPU, in Triton's interpreter, tiny

Each part runs in a process of its own with a share of the time, and writes what it has found as it goes, so that a run
that is cut off still counts. ``FOLDER/gpu.json`` holds everything; the last lines printed are a short table. Nothing is
installed. Exits with 1 if a number was wrong or a test failed, with 0 where time ran out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import report

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent

# The tests compile hundreds of functions, once each: what is measured to choose block sizes has a test of its own.
VARIABLES = {"tests": {"GDSL_TUNE": "0"}}

# Of the time that is left when a part begins, what it may take: the smoke test a minute of nine.
SHARES = {"smoke": 0.11, "tests": 0.45, "benchmark": 1.0}

OUTCOMES = ("passed", "failed", "error", "skipped")

_RESULT = re.compile(
    r"(PASSED|FAILED|ERROR|SKIPPED) (?:\[ *\d+%\] )?(tests/\S+)|(tests/\S+) (PASSED|FAILED|ERROR|SKIPPED)"
)


def main() -> None:
    args = _arguments()
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(args)
    found: dict[str, Any] = {"kind": "card", "budget_s": args.budget, "rehearsed": args.rehearse}
    end = time.monotonic() + args.budget
    for part, command in _commands(args, folder).items():
        if part not in args.parts:
            continue
        limit = (end - time.monotonic()) * SHARES[part]
        variables = {**environment, **VARIABLES.get(part, {})}
        found[part] = {"limit_s": round(limit), **_run(command, limit, variables, folder / f"{part}.log")}
        found[part] |= _READERS[part](folder)
        (folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    print("\n" + summary(found), flush=True)
    if any(_is_bad(found[part]) for part in args.parts):
        raise SystemExit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", default="gpu", help="where the results go")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--parts", type=lambda t: t.split(","), default=list(SHARES), help=",".join(SHARES))
    parser.add_argument("--wheels", help="a folder with wheels of packages that this Python lacks")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 8), help="of the tests")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, in Triton's interpreter, tiny")
    return parser.parse_args()


def _environment(args: argparse.Namespace) -> dict[str, str]:
    """Wheels of pure Python are imported as they are: nothing is unpacked or installed."""
    wheels = sorted(str(path.resolve()) for path in Path(args.wheels).glob("*.whl")) if args.wheels else []
    paths = [str(REPOSITORY), *wheels, *filter(None, [os.environ.get("PYTHONPATH")])]
    more = {"TRITON_INTERPRET": "1"} if args.rehearse else {}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **more}


def _commands(args: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    where = ["--device", "cpu", "--tiny"] if args.rehearse else []
    few = ["--graphs", "arxiv", "--layers", "GCN,GAT", "--peers", "gdsl,pyg", "--calls", "1"] if args.rehearse else []
    tests = ["-m", "pytest", "-v", "--tb=short", "-m", "gpu", "tests/triton/test_gpu.py"]
    tests += ["-n", str(args.processes)] if args.processes > 1 else []
    tests += ["--rehearse"] if args.rehearse else []
    smoke = [str(HERE / "smoke.py"), "--json", str(folder.resolve() / "smoke.json"), *where]
    benchmark = [str(HERE / "gpu.py"), "--json", str(folder.resolve() / "benchmark.json"), *where, *few]
    parts = {"smoke": smoke, "tests": tests, "benchmark": benchmark}
    return {part: [sys.executable, *command] for part, command in parts.items()}


def _run(command: Sequence[str], limit: float, environment: Mapping[str, str], log: Path) -> dict[str, Any]:
    """Run a part until its limit, its output both shown and kept. ``status`` is None where its time ran out."""
    start = time.monotonic()
    with log.open("w") as kept:
        output: dict[str, Any] = {"stdout": kept, "stderr": subprocess.STDOUT}
        child = subprocess.Popen(command, cwd=REPOSITORY, env=dict(environment), start_new_session=True, **output)
        try:
            status: int | None = child.wait(max(limit, 1.0))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(child)
    print(f"== {log.stem} ==\n{log.read_text()[-4000:]}", flush=True)
    return {"status": status, "took_s": round(time.monotonic() - start, 1)}


def _end(child: subprocess.Popen[bytes]) -> None:
    """The processes of a part, its workers among them: they are a group of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _rows(path: Path) -> dict[str, Any]:
    return {"found": json.loads(path.read_text())} if path.is_file() else {"found": None}


def _outcomes(folder: Path) -> dict[str, Any]:
    """What each test's line in the log says, and the log's end where one failed."""
    text = (folder / "tests.log").read_text()
    tests = {}
    for match in _RESULT.finditer(text):
        first, name, other, last = match.groups()
        tests[name or other] = (first or last).lower()
    failed = [name for name, outcome in tests.items() if outcome in ("failed", "error")]
    counts = {kind: list(tests.values()).count(kind) for kind in OUTCOMES}
    return {**counts, "failures": failed, "end": text[-8000:] if failed or not tests else ""}


_READERS = {
    "smoke": lambda folder: _rows(folder / "smoke.json"),
    "tests": _outcomes,
    "benchmark": lambda folder: _rows(folder / "benchmark.json"),
}


def _is_bad(part: Mapping[str, Any]) -> bool:
    return part["status"] not in (0, None) or bool(part.get("failures"))


def summary(found: Mapping[str, Any]) -> str:
    """A short table."""
    lines = []
    for part in (part for part in SHARES if part in found):
        took, status = found[part]["took_s"], found[part]["status"]
        how = "cut off" if status is None else "passed" if not _is_bad(found[part]) else "FAILED"
        lines.append(f"{part}: {how} after {took} s")
    if "tests" in found:
        lines.append(", ".join(f"{found['tests'][kind]} {kind}" for kind in OUTCOMES))
    for row in _results(found, "smoke").get("results", []):
        lines.append(" ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    benchmark = _results(found, "benchmark")
    return "\n".join([*lines, *(["", report.render(benchmark)] if benchmark else [])])


def _results(found: Mapping[str, Any], part: str) -> dict[str, Any]:
    """What a part has written; nothing where it did not get that far."""
    return found.get(part, {}).get("found") or {}


if __name__ == "__main__":
    main()
