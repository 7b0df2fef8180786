"""The built wheel works by itself: in a new environment, with no source tree in sight."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

# Runs in the new environment. The layer's result is checked against the same sum written in torch.
COMPILE_A_LAYER = '''
import pathlib, sys
import torch
import gdsl

inside = pathlib.Path(sys.prefix).resolve()
assert inside in pathlib.Path(gdsl.__file__).resolve().parents, f"{gdsl.__file__} is not in {inside}"

conv = gdsl.compile("""
layer MeanLinear(in_channels, out_channels) {
    param weight[in_channels, out_channels] ~ glorot
    node x[in_channels]
    message   m = x[j]
    aggregate a = mean(m)
    update    y = a @ weight
}
""", in_channels=3, out_channels=2)

edge_index = torch.tensor([[0, 1, 2, 3, 0], [1, 0, 1, 1, 3]])
x = torch.randn(5, 3, requires_grad=True)
y = conv(x, edge_index)
y.square().sum().backward()

adjacency = torch.zeros(5, 5)
adjacency[edge_index[1], edge_index[0]] = 1
z = x.detach().requires_grad_()
expected = (adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)) @ z @ conv.weight.detach()
expected.square().sum().backward()
torch.testing.assert_close(y, expected)
torch.testing.assert_close(x.grad, z.grad)
print("compiled and ran from", gdsl.__file__)
'''


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """A command with neither the source tree nor the user's Python settings in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"),
        *("--wheel-dir", folder, repository),
        cwd=folder,
    )
    (built,) = folder.glob("gdsl-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The script folder of a new virtual environment that holds gdsl from the wheel and nothing else of ours.

    torch and the other dependencies are read from the environment that runs the tests: a `.pth` file puts
    its site-packages last on the path. Python follows no `.pth` file found there: an editable gdsl stays
    invisible.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    run(
        *(sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet"),
        *("--no-deps", "--no-index", wheel),
        cwd=folder,
    )
    site_packages = run(
        scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
    ).strip()
    borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    Path(site_packages, "zz_dependencies.pth").write_text("\n".join(borrowed) + "\n")
    return scripts


def test_holds_grammar_programs_and_metadata(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        packed = archive.read("gdsl/grammar/gdsl.lark")
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
        (scripts,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert packed == (repository / "grammar" / "gdsl.lark").read_bytes()
    sources = {path.relative_to(repository).as_posix() for path in (repository / "gdsl").rglob("*.py")}
    programs = {path.relative_to(repository).as_posix() for path in (repository / "gdsl").rglob("*.gdsl")}
    page = {path.relative_to(repository).as_posix() for path in (repository / "gdsl/explore/page").iterdir()}
    assert sources | programs | page | {"gdsl/py.typed", "gdsl-0.1.0.dist-info/licenses/LICENSE"} <= names
    assert {name.split("/")[0] for name in names} == {"gdsl", "gdsl-0.1.0.dist-info"}
    for line in ("Requires-Dist: torch>=2.11", "License-Expression: MIT", "Author: The gdsl authors"):
        assert line in metadata
    assert "gdsl = gdsl.cli:main" in scripts


def test_compiles_a_layer_in_an_empty_environment(environment: Path, tmp_path: Path) -> None:
    script = tmp_path / "compile_a_layer.py"
    script.write_text(COMPILE_A_LAYER)
    out = run(environment / "python", script, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert "compiled and ran from" in out


def test_command_line_is_installed(environment: Path, tmp_path: Path) -> None:
    program = tmp_path / "layer.gdsl"
    program.write_text("layer Sum(d) {\n  node x[d]\n  message m = x[j]\n  aggregate a = sum(m)\n  update y = a\n}\n")
    run(environment / "gdsl", "check", program, cwd=tmp_path)
