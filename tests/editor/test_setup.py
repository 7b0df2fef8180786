"""What the documentation gives for editors."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from gdsl.cli import _parser


def test_every_command_is_the_servers(repository: Path) -> None:
    text = (repository / "docs" / "editor.md").read_text()
    commands = re.findall(r"cmd = \{ (.*?) \}", text)
    assert len(commands) == 2
    for command in commands:
        assert re.findall(r'"(\w+)"', command) == ["gdsl", "lsp"]
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    helix = tomllib.loads(toml)["language-server"]["gdsl"]
    assert [helix["command"], *helix["args"]] == ["gdsl", "lsp"]
    assert _parser().parse_args(["lsp"]).run.__name__ == "_lsp"


def test_the_extension_of_vs_code(repository: Path) -> None:
    folder = repository / "editors" / "vscode"
    package = json.loads((folder / "package.json").read_text())
    (language,), (grammar,) = package["contributes"]["languages"], package["contributes"]["grammars"]
    assert language["extensions"] == [".gdsl"]
    colours = json.loads((repository / "grammar" / Path(grammar["path"]).name).read_text())
    assert grammar["scopeName"] == colours["scopeName"]
    assert json.loads((folder / language["configuration"]).read_text())["comments"]["lineComment"] == "#"
    assert "cp ../../grammar/gdsl.tmLanguage.json ." in (repository / "docs" / "editor.md").read_text()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_extension_starts_the_server(repository: Path, tmp_path: Path) -> None:
    """With stand-ins for VS Code and for the client that it is given."""
    (tmp_path / "extension.js").write_text((repository / "editors" / "vscode" / "extension.js").read_text())
    modules = tmp_path / "node_modules"
    (modules / "vscode").mkdir(parents=True)
    (modules / "vscode" / "index.js").write_text(
        'exports.workspace = { getConfiguration: (of) => ({ get: (name) => (of === "gdsl" ? name : null) }) };'
    )
    (modules / "vscode-languageclient").mkdir()
    (modules / "vscode-languageclient" / "node.js").write_text(
        "exports.LanguageClient = class { constructor(...all) { console.log(JSON.stringify(all)); }"
        " start() { console.log('started'); } stop() { console.log('stopped'); } };"
    )
    script = 'const e = require("./extension.js"); e.activate(); e.deactivate();'
    ran = subprocess.run(["node", "-e", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    made, *rest = ran.stdout.splitlines()
    assert json.loads(made) == [
        "gdsl",
        {"command": "command", "args": ["lsp"]},
        {"documentSelector": [{"language": "gdsl"}]},
    ]
    assert rest == ["started", "stopped"]
