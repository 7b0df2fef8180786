"""The ``gdsl`` command: what it prints, what it changes, and its exit codes."""

from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gdsl import __version__, cli
from gdsl.cli import main
from gdsl.language.parse import parse
from gdsl.look.show import constant_of
from gdsl.runtime import cache

Capture = pytest.CaptureFixture[str]

GOOD = """
layer Good(d, out, slope = 0.2, K = 2) {
    param weight[d, out] ~ glorot
    node x[d]
    edge w = 1
    h = leaky_relu(x @ weight, slope)
    for k in 1..K {
        aggregate h = sum(w * h[j])
    }
    update y = h
}
"""

MISTAKES = """layer Bad(d) {
    node x[d]
    message m = x
    update y = nowhere
}

layer Worse {
    node x[d]
    update y = x[i]
}
"""


@pytest.fixture
def good(tmp_path: Path) -> str:
    return write(tmp_path, "good.gdsl", GOOD)


@pytest.fixture
def examples(repository: Path) -> Path:
    return repository / "examples"


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert text.startswith("gdsl")
    return text


# ----------------------------------------------------------------------------------------- check


def test_check_says_ok_for_each_layer(good: str, examples: Path, capsys: Capture) -> None:
    files = [good, *sorted(map(str, examples.glob("*.gdsl")))]
    assert len(files) > 3
    assert main(["check", *files]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == sum(len(parse(Path(f).read_text()).layers) for f in files)
    assert out[0] == f"{good}: Good is ok"


def test_check_shows_every_mistake_of_every_layer(tmp_path: Path, capsys: Capture) -> None:
    file = write(tmp_path, "bad.gdsl", MISTAKES)
    assert main(["check", file]) == 1
    err = capsys.readouterr().err
    assert err.count("error: ") == 3
    assert f"--> {file}, line 3, column 17" in err
    assert "did you mean x[j]?" in err
    assert f"--> {file}, line 9, column 16" in err


def test_check_refuses_names_that_cannot_be_given(tmp_path: Path, capsys: Capture) -> None:
    text = "layer A(lambda) {\n    node x[3]\n    param train[3] ~ ones\n    update y = x * train * lambda\n}\n"
    assert main(["check", write(tmp_path, "a.gdsl", text)]) == 1
    err = capsys.readouterr().err
    assert "`lambda` is a word of Python and cannot be the name of an argument" in err
    assert "`train` is what every torch module or layer has and cannot be the name of a param" in err
    assert "3 |     param train[3] ~ ones\n  |           ^^^^^\n" in err


def test_check_goes_on_after_a_missing_file(good: str, tmp_path: Path, capsys: Capture) -> None:
    bad = write(tmp_path, "bad.gdsl", MISTAKES)
    missing = str(tmp_path / "missing.gdsl")
    assert main(["check", missing, bad, good]) == 2
    out, err = capsys.readouterr()
    assert f"gdsl: {missing}: no such file or directory\n" in err
    assert "unknown name `nowhere`" in err
    assert "Good is ok" in out


def test_check_reads_stdin(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    stdin(monkeypatch, b"layer L { node x[d] update y = z }")
    assert main(["check", "-"]) == 1
    assert "--> <stdin>, line 1, column 32" in capsys.readouterr().err


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# ------------------------------------------------------------------------------------------ show

MARKS = {
    "ast": ["Layer name='Good'", "Loop name='k'", "op='@'"],
    "ir": ["program Good {", "h = leaky_relu(sum[d](x * weight), 0.2)", "return y"],
    "optimised": ["program Good {", "sum@i(h[j])"],
    "fused": ["kernel Good_0", "walk 1: reduce", "bytes: ", "flops: "],
    "cpp": ['extern "C" void Good_0(', "#pragma omp"],
    "triton": ["@triton.jit", "def Good_0(", "# Good_0: walks the in-edges"],
}


@pytest.mark.parametrize("stage", MARKS)
def test_show_each_stage(stage: str, good: str, capsys: Capture) -> None:
    assert main(["show", good, "--stage", stage]) == 0
    out, err = capsys.readouterr()
    for mark in MARKS[stage]:
        assert mark in out
    if stage != "ast":
        assert err == "gdsl: stand-ins for what --set does not give: d=16 out=32\n"


@pytest.mark.parametrize("stage", ["ir", "optimised", "fused", "cpp", "triton"])
def test_show_the_backward(stage: str, good: str, capsys: Capture) -> None:
    assert main(["show", good, "--stage", stage, "--backward"]) == 0
    out = capsys.readouterr().out
    assert "d_y" in out
    assert "d_x" in out or "Good_backward_0" in out


@pytest.mark.skipif(cache.find_compiler() is None, reason="no C++ compiler")
def test_show_asm(good: str, capsys: Capture) -> None:
    assert main(["show", good, "--stage", "asm"]) == 0
    out = capsys.readouterr().out
    assert "Good_0:" in out
    assert "ret" in out


@pytest.mark.parametrize(
    ("stage", "mark"), [("ttir", "tt.func"), ("ptx", ".entry Good_0"), ("sass", "Function : Good_0")]
)
def test_show_machine_code_of_a_gpu(stage: str, mark: str, good: str, capsys: Capture) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    assert main(["show", good, "--stage", stage]) == 0
    assert mark in capsys.readouterr().out


def test_show_with_arguments(good: str, capsys: Capture) -> None:
    assert main(["show", good, "--stage", "ir", "--set", "d=3", "out=5", "K=1", "--set", "slope=0.5"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "leaky_relu(sum[d](x * weight), 0.5)" in out
    assert out.count("sum@i") == 1


def test_show_with_an_optional_input(good: str, capsys: Capture) -> None:
    assert main(["show", good, "--stage", "ir", "--with", "w"]) == 0
    assert "sum@i(w * h[j])" in capsys.readouterr().out


def test_show_takes_a_module_as_it_comes(examples: Path, capsys: Capture) -> None:
    file = str(examples / "edgeconv.gdsl")
    assert main(["show", file, "--stage", "ir", "--set", "channels=8"]) == 0
    assert "m = nn(" in capsys.readouterr().out
    assert main(["show", file, "--stage", "cpp"]) == 0
    assert "channels=16" in capsys.readouterr().err


def test_stand_ins_fit_their_use(tmp_path: Path, capsys: Capture) -> None:
    source = """layer L(a, K, rate, b) {
    param w[a, b] ~ zeros
    node x[a]
    node z[free]
    h = rate * x
    for k in 1..K { aggregate h = sum(h[j]) }
    update y = h @ w
}"""
    assert main(["show", write(tmp_path, "l.gdsl", source), "--stage", "ir"]) == 0
    assert capsys.readouterr().err.endswith(": a=16 K=2 rate=0.5 b=32 free=48\n")


def test_show_reads_linear_maps_of_the_layer(tmp_path: Path, capsys: Capture) -> None:
    """As `compile` does: what runs is one program, not one before the map and one behind it."""
    source = "layer L(d) { linear W(d -> d, bias = false) node x[d] update y = relu(sum(W(x)[j])) }"
    assert main(["show", write(tmp_path, "l.gdsl", source), "--stage", "ir"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("program ") == 1 and "W.weight = param" in shown


def test_show_reads_linear_maps_in_evaluation_mode_and_of_any_size(tmp_path: Path, capsys: Capture) -> None:
    mlp = "mlp m(d -> k -> d, relu, norm = batch_norm, dropout = 0.5)"
    source = f"layer L(d, k) {{ {mlp} node x[d] update y = sum(m(x)[j]) }}"
    size = 3 * 10**6  # far beyond what memory holds
    assert main(["show", write(tmp_path, "l.gdsl", source), "--stage", "ir", "--set", f"d={size}", f"k={size}"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("program ") == 1 and "m.1.running_mean" in shown and "seed" not in shown


def test_show_one_of_several_layers(tmp_path: Path, capsys: Capture) -> None:
    source = "layer A { node x[d] update y = x }\nlayer B { node x[d] update y = -x }"
    file = write(tmp_path, "two.gdsl", source)
    assert main(["show", file, "--stage", "ir", "--layer", "B"]) == 0
    assert "program B {" in capsys.readouterr().out
    assert main(["show", file, "--stage", "ir"]) == 2
    assert "2 layers, A, B: say which with --layer" in one_line(capsys.readouterr().err)
    assert main(["show", file, "--layer", "C"]) == 2
    assert "no layer `C`; it has A, B" in one_line(capsys.readouterr().err)


def test_show_a_program_with_mistakes(tmp_path: Path, capsys: Capture) -> None:
    file = write(tmp_path, "bad.gdsl", MISTAKES)
    assert main(["show", file, "--layer", "Bad"]) == 1
    err = capsys.readouterr().err
    assert f"--> {file}, line 4" in err
    assert "line 9" not in err


@pytest.mark.parametrize(
    ("text", "value"),
    [("16", 16), ("-2", -2), ("0.5", 0.5), ("1e-3", 1e-3), ("true", True), ("False", False), ("none", None),
     ("mean", "mean"), ("'3'", "3"), ('"true"', "true"), ("", ""), ("a=b", "a=b")],
)  # fmt: skip
def test_values_on_the_command_line(text: str, value: object) -> None:
    found = constant_of(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "d"], "`d` has no `=`"),
        (["--set", "dd=3"], "did you mean `d`?"),
        (["--set", "nonsense=3"], "no argument `nonsense`: it has d, out, slope, K"),
        (["--set", "d=3", "d=4"], "`d` twice"),
        (["--set", "d=two"], 'Good cannot have out=16 d="two": '),
        (["--set", "d=2.5"], "must be a whole number"),
        (["--set", "d=-1"], "at least 0"),
        (["--with", "x"], "no optional input `x`: it has w"),
        (["--stage", "hip"], "invalid choice: 'hip'"),
        (["--stage", "ast", "--backward"], "no backward"),
        (["--unknown"], "unrecognized arguments"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], message: str, good: str, capsys: Capture) -> None:
    assert main(["show", good, *arguments]) == 2
    last = capsys.readouterr().err.splitlines(keepends=True)[-1]
    assert message in one_line(last)


def test_a_module_cannot_be_set(examples: Path, capsys: Capture) -> None:
    assert main(["show", str(examples / "edgeconv.gdsl"), "--set", "nn=3"]) == 2
    assert "torch module `nn`" in one_line(capsys.readouterr().err)
    assert main(["show", str(examples / "edgeconv.gdsl"), "--set", "channels=many"]) == 2
    assert "'many' is not a whole number" in one_line(capsys.readouterr().err)


def test_check_shows_warnings_and_strict_fails_on_them(tmp_path: Path, capsys: Capture) -> None:
    text = "layer A(d, p = 0.5) {\n    node x[d]\n    update a = 2 * x\n    update b = x\n}\n"
    file = write(tmp_path, "a.gdsl", text)
    assert main(["check", file]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{file}: A is ok, with 2 warnings\n"
    assert f"warning: the argument `p` is never read\n  --> {file}, line 1, column 12" in shown.err
    assert f"warning: the value of `update a` is never read\n  --> {file}, line 3, column 12" in shown.err
    assert main(["check", "--strict", file]) == 1
    assert capsys.readouterr().err == shown.err
    # With a mistake, both are shown.
    assert main(["check", write(tmp_path, "b.gdsl", text.replace("= x", "= y"))]) == 1
    err = capsys.readouterr().err
    assert "error: unknown name `y`" in err
    assert err.count("warning: ") == 2


RELATED = """layer Related(channels, heads, size, other) {
    node x[channels]
    node z[other]
    update y = merge(split(x, channels, heads, size), heads, size) + rename(z, other -> heads*size)
}
"""


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ([], 0),
        (["channels=12"], 0),
        (["heads=5", "other=35"], 0),
        (["channels=12", "heads=3", "size=4", "other=12"], 0),
        (["channels=12", "heads=5"], 1),
        (["channels=12", "other=13"], 1),
    ],
)
def test_check_finds_sizes_that_fit(settings: list[str], code: int, tmp_path: Path, capsys: Capture) -> None:
    """A program may want one size to be the product of others; what is given stays."""
    file = write(tmp_path, "r.gdsl", RELATED)
    given = ["--set", *settings] if settings else []
    assert main(["check", file, *given]) == code, capsys.readouterr().err


def test_check_with_sizes_that_never_fit(tmp_path: Path, capsys: Capture) -> None:
    """What is wrong with all of them is a mistake, and so is what is wrong with those that were tried."""
    text = "layer A(d) { node x[d] y = cross(x, x) return y, x[1000000] }"
    assert main(["check", write(tmp_path, "a.gdsl", text)]) == 1
    assert "with d = " in capsys.readouterr().err
    assert main(["check", write(tmp_path, "a.gdsl", text.replace("x[1000000]", "x[2]"))]) == 0
    assert main(["check", write(tmp_path, "a.gdsl", text.replace("cross(x, x)", "crss(x, x)"))]) == 1
    err = capsys.readouterr().err
    assert "unknown function `crss`" in err
    assert "with d = " not in err


def test_check_refuses_settings_that_are_none(good: str, capsys: Capture) -> None:
    assert main(["check", good, "--set", "dd=3"]) == 2
    assert "Good has no argument `dd`: did you mean `d`?" in one_line(capsys.readouterr().err)
    assert main(["check", good, "--set", "d"]) == 2
    assert main(["check", good, "--set", "d=16", "K=3"]) == 0


def test_programs_of_the_library_are_right_and_formatted(repository: Path, capsys: Capture) -> None:
    files = [*repository.glob("gdsl/nn/programs/*.gdsl"), *repository.glob("examples/*.gdsl")]
    assert len(files) > 50
    assert main(["check", "--strict", *map(str, files)]) == 0, capsys.readouterr().err
    assert main(["fmt", "--check", *map(str, files)]) == 0, capsys.readouterr().out


# ------------------------------------------------------------------------------------------- fmt

UGLY = "layer L { node x[d];update y=x+1 # more\n}"
NEAT = "layer L {\n    node x[d]\n    update y = x + 1  # more\n}\n"


def test_fmt_in_place(tmp_path: Path, capsys: Capture) -> None:
    file = write(tmp_path, "l.gdsl", UGLY)
    os.chmod(file, 0o640)
    assert main(["fmt", file]) == 0
    assert capsys.readouterr().out == f"{file}: formatted\n"
    assert Path(file).read_text() == NEAT
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o640
    assert main(["fmt", file]) == 0
    assert capsys.readouterr().out == ""
    assert os.listdir(tmp_path) == ["l.gdsl"]


def test_fmt_check_lists_and_changes_nothing(tmp_path: Path, capsys: Capture) -> None:
    ugly, neat = write(tmp_path, "ugly.gdsl", UGLY), write(tmp_path, "neat.gdsl", NEAT)
    assert main(["fmt", "--check", neat]) == 0
    assert main(["fmt", "--check", ugly, neat]) == 1
    assert capsys.readouterr().out == f"{ugly}\n"
    assert Path(ugly).read_text() == UGLY


def test_fmt_from_stdin_to_stdout(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    stdin(monkeypatch, ("\ufeff" + UGLY.replace("more", "mehr: größer")).replace("\n", "\r\n").encode())
    assert main(["fmt", "-"]) == 0
    assert capsys.readouterr().out == NEAT.replace("more", "mehr: größer")


def test_fmt_goes_through_links_and_formats_the_rest(tmp_path: Path, capsys: Capture) -> None:
    target, broken = write(tmp_path, "target.gdsl", UGLY), write(tmp_path, "broken.gdsl", "layer {")
    link = tmp_path / "link.gdsl"
    link.symlink_to(target)
    assert main(["fmt", broken, str(link)]) == 1
    assert f"--> {broken}, line 1" in capsys.readouterr().err
    assert link.is_symlink()
    assert Path(target).read_text() == NEAT
    assert Path(broken).read_text() == "layer {"


def test_fmt_leaves_the_file_whole_when_it_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    file = write(tmp_path, "l.gdsl", UGLY)

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main(["fmt", file]) == 2
    assert f"{file}: no space left on device" in one_line(capsys.readouterr().err)
    assert Path(file).read_text() == UGLY
    assert os.listdir(tmp_path) == ["l.gdsl"]


def test_fmt_checks_its_own_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    file = write(tmp_path, "l.gdsl", UGLY)
    monkeypatch.setattr(cli, "format_program", lambda program: NEAT.replace("+", "-"))
    assert main(["fmt", file]) == 2
    assert "would change the program" in one_line(capsys.readouterr().err)
    assert Path(file).read_text() == UGLY


# ------------------------------------------------------------------------------------------ info


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gdsl {__version__}\n"


ROWS = [
    "gdsl", "python", "system", "torch", "triton", "other packages", "extras", "backends", "gpu", "processor",
    "threads", "compiler", "flags", "native calls", "products", "cache", "settings",
]  # fmt: skip


def info(capsys: Capture, *more: str) -> dict[str, str]:
    assert main(["info", *more]) == 0
    rows = [re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in rows] == ROWS
    return dict(rows)


def test_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    (folder / "a.so").write_bytes(b"x" * 1500)
    (folder / "a.cpp").write_bytes(b"x" * 36)
    monkeypatch.setenv("GDSL_CACHE", str(folder))
    monkeypatch.setenv("GDSL_TUNE", "0")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    rows = info(capsys)
    assert rows["cache"] == "1 compiled programs, 1.5 KiB; $GDSL_CACHE puts it elsewhere"
    assert rows["backends"].endswith("torch")
    assert rows["torch"].startswith(torch.__version__)
    assert f"{torch.get_num_threads()} of torch" in rows["threads"]
    assert "lark " in rows["other packages"] and "numpy " in rows["other packages"]
    assert "GDSL_TUNE=0" in rows["settings"]
    if cache.find_compiler() is not None:
        assert "-O3 -march=native" in rows["flags"]


def test_info_shows_paths_only_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    monkeypatch.setenv("GDSL_CACHE", str(secret))
    monkeypatch.setenv("GDSL_DATA", str(secret / "data"))
    without = info(capsys)
    assert not [row for row in without.values() if "secret" in row or str(Path.home()) in row]
    assert "GDSL_CACHE is set, GDSL_DATA is set" in without["settings"]
    rows = info(capsys, "--paths")
    assert rows["cache"].startswith(f"{secret}: 0 compiled programs")
    assert f"GDSL_DATA={secret / 'data'}" in rows["settings"]
    compiler = cache.find_compiler()
    assert compiler is None or compiler.path in rows["compiler"]


def test_info_without_compiler_or_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(cache, "find_compiler", lambda: None)
    file = write(tmp_path, "file", "")
    monkeypatch.setenv("GDSL_CACHE", file)
    rows = info(capsys)
    assert rows["compiler"].startswith("none: install a C++ compiler")
    assert rows["cache"].startswith("unusable: ")
    assert file not in rows["cache"] and file in info(capsys, "--paths")["cache"]
    assert rows["flags"] == "none"
    assert rows["native calls"].startswith("none")
    assert re.fullmatch(r"(triton, )?torch", rows["backends"])


# ------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("command", ["check", "show", "fmt"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or directory"),
        ("folder", "is a directory"),
        (b"layer L {\n\xff\n}", "line 2 is not UTF-8 text"),
        (b" " * 400_001, "longer than the 100000 characters"),
    ],
)
def test_files_that_cannot_be_read(
    command: str, content: bytes | str | None, message: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "l.gdsl"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    assert main([command, str(path)]) == 2
    err = one_line(capsys.readouterr().err)
    assert str(path) in err
    assert message in err


@pytest.mark.parametrize("words", ["", "compile", "check", "fmt --nothing f", "explore --port 65536"])
def test_bad_commands_are_one_line(words: str, capsys: Capture) -> None:
    assert main(words.split()) == 2
    assert "--help" in one_line(capsys.readouterr().err)


def test_help(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    assert "check" in capsys.readouterr().out


def test_closed_pipe(good: str) -> None:
    command = [sys.executable, "-m", "gdsl", "show", good, "--stage", "ast"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 2
    assert "the output was closed" in one_line(err)


# A process that runs the command and fails where it has imported something heavy.
ALONE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from gdsl.cli import main
from gdsl.language.parse import parse
code = main()
heavy = [name for name in ("torch", "numpy", "sympy") if name in sys.modules]
sys.exit(f"imported {heavy}" if heavy else code)
"""


def alone(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ALONE, str(Path(cli.__file__).parents[1]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("command", [["check"], ["fmt", "--check"]])
def test_check_and_fmt_need_no_torch(command: list[str], examples: Path) -> None:
    done = alone(*command, *map(str, examples.glob("*.gdsl")))
    assert done.returncode == 0, done.stderr


def test_ascii_terminal(tmp_path: Path) -> None:
    file = write(tmp_path, "bad.gdsl", "layer L { node x[d] update y = x + größe }")
    done = alone("check", file, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 1
    assert "\\xf6" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("value", "refused"), [("maybe", True), ("3", True), ("0.5", True), ("true", False), ("none", False), ("0", False)]
)
@pytest.mark.parametrize("command", [["check"], ["show", "--stage", "ir"]])
def test_a_truth_value_is_one(value: str, refused: bool, command: list[str], tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "twice.gdsl"
    file.write_text("layer L(d = 2, twice = false) {\n node x[d]\n y = x\n if twice { y = y + x }\n return y\n}\n")
    assert (main([*command, str(file), "--set", f"twice={value}"]) != 0) is refused
    assert ("`twice` is true or false, not " in capsys.readouterr().err) is refused


def test_programs_that_use_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, block = tmp_path / "net.gdsl", tmp_path / "block.gdsl"
    block.write_text("layer Block(k) {\n    linear lin(d -> k)\n    node x[d]\n    update y = lin(x)\n}\n")
    file.write_text('use   Block from "block.gdsl"\nlayer Net(k) {\n    node x[d]\n    update y = Block(x; k=k)\n}\n')
    assert main(["fmt", str(file)]) == 0
    assert file.read_text().startswith('use Block from "block.gdsl"\n') and "Block(x; k = k)" in file.read_text()
    assert main(["check", "--strict", str(file)]) == 0
    assert main(["show", str(file), "--stage", "ir"]) == 0
    assert "Block.lin.weight = param" in capsys.readouterr().out
    block.write_text("layer Blok(k) {\n    node x[k]\n    update y = x\n}\n")
    assert main(["check", str(file)]) == 1
    assert "net.gdsl, line 1, column 1" in (said := capsys.readouterr().err) and "did you mean `Blok`" in said
    assert main(["fmt", "--check", str(file)]) == 0  # which needs no other file
