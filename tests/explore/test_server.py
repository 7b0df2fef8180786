"""The server of ``gdsl explore``: what it answers, and to whom."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the server is in the extra `explore`")
pytest.importorskip("uvicorn", reason="the server is in the extra `explore`")

from gdsl.cli import main
from gdsl.errors import CommandError
from gdsl.explore import command, server
from gdsl.explore.reading import Settings
from gdsl.explore.view import view
from gdsl.language.parse import MAX_TEXT
from tests.explore.serving import Served, serving

TEXT = """layer A(d, k) {
    node x[d]
    param w[d, k] ~ glorot
    aggregate a = sum((x @ w)[j])
    update y = relu(a)
}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("explore") / "given.gdsl"
    path.write_text(TEXT.replace("\n", "\r\n"), encoding="utf-8")
    with serving(str(path), "--set", "d=8") as found:
        # Before torch is there, mistakes and types are.
        status, first = found.post("/api/view", {"text": TEXT.replace("relu", "rel"), "parts": ["flow"]})
        assert status == 200
        assert "relu" in first["diagnostics"][0]["hint"]
        found.ready()
        yield found


def test_the_page_begins_with_the_file(served: Served) -> None:
    status, headers, body = served.ask("GET", "/")
    assert status == 200
    data = body.decode().partition('id="start">')[2].partition("</script>")[0]
    start = json.loads(data)
    assert start["text"] == TEXT  # as a browser has it: no carriage returns
    assert start["settings"]["values"] == {"d": "8"}
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_it_is_reached_from_this_machine_alone(served: Served) -> None:
    assert served.url.startswith("http://127.0.0.1:")


def test_a_view_is_the_one_of_the_function(served: Served) -> None:
    asked = {"text": TEXT, "settings": {"values": {"d": "4"}, "degree": 2}, "parts": ["flow", "stages"]}
    status, found = served.post("/api/view", asked)
    assert status == 200
    assert found.pop("machines")[0]["name"] == "this machine"
    expected = view(TEXT, Settings(values=(("d", 4),), degree=2), ["flow", "stages"])
    assert found == json.loads(json.dumps(expected))


def test_machine_code_and_one_node(served: Served) -> None:
    asked = {"text": TEXT, "settings": {}}
    _, found = served.post("/api/view", {**asked, "parts": ["code"]})
    kernel = found["parts"]["code"]["cpp"][0]["name"]
    status, found = served.post(
        "/api/machine", {**asked, "language": "cpp", "kernel": kernel, "stage": "asm", "target": "sm_90"}
    )
    assert status == 200 and len(found["lines"]) > 10
    status, found = served.post("/api/node", {**asked, "node": 3, "profile": "skewed"})
    assert status == 200 and found["node"] == 3


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/api/view"), ("GET", "/page/app.js")])
def test_another_hosts_name_gets_nothing(served: Served, host: str, method: str, path: str) -> None:
    status, _, body = served.ask(method, path, {"text": TEXT} if method == "POST" else None, Host=host)
    assert status == 403 and b"layer" not in body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "localhost:1"])
def test_names_of_this_machine(served: Served, host: str) -> None:
    assert served.ask("GET", "/", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_another_site_gets_nothing(served: Served, origin: str) -> None:
    assert served.post("/api/view", {"text": TEXT}, Origin=origin)[0] == 403


def test_the_page_itself_and_what_is_no_browser(served: Served) -> None:
    own = served.url.rstrip("/")
    assert served.post("/api/view", {"text": TEXT}, Origin=own)[0] == 200
    assert served.post("/api/view", {"text": TEXT})[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_gets_nothing(served: Served, kind: str) -> None:
    assert served.post("/api/view", {"text": TEXT}, Content_Type=kind)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/page/..%5cserver.py",
        "/page/%2Fetc%2Fpasswd",
        "/page/index.html",
        "/page/",
        "/etc/passwd",
        "/given.gdsl",
        "/openapi.json",
    ],
)
def test_no_file_but_the_pages_own(served: Served, path: str) -> None:
    assert served.ask("GET", path)[0] == 404


def test_the_file_that_was_given_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.gdsl"
    path.write_text(TEXT)
    with serving(str(path)) as found:
        path.write_text(TEXT.replace("relu", "tanh").replace("\n", "\r\n"))
        assert json.loads(found.ask("GET", "/api/file")[2]) == {"text": TEXT.replace("relu", "tanh")}
        path.unlink()
        assert json.loads(found.ask("GET", "/api/file")[2]) == {"text": None}
        assert found.ask("GET", "/api/file", Host="evil.example")[0] == 403
    with serving() as found:
        assert json.loads(found.ask("GET", "/api/file")[2]) == {"text": None}


def test_methods(served: Served) -> None:
    assert served.ask("GET", "/api/view")[0] == 405
    assert served.ask("DELETE", "/")[0] == 405


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/api/view", b"{"),
        ("/api/view", b"[" * 100_000),
        ("/api/view", b"\xff"),
        ("/api/view", []),
        ("/api/view", {}),
        ("/api/view", {"text": 3}),
        ("/api/view", {"text": TEXT, "parts": "flow"}),
        ("/api/view", {"text": TEXT, "parts": ["__class__"]}),
        ("/api/view", {"text": TEXT, "settings": []}),
        ("/api/view", {"text": TEXT, "settings": {"nodes": -1}}),
        ("/api/machine", {"text": TEXT, "language": "cpp"}),
        ("/api/machine", {"text": TEXT, "language": "cpp", "kernel": "A_0", "stage": "../asm", "target": "sm_90"}),
        ("/api/machine", {"text": TEXT, "language": "triton", "kernel": "A_0", "stage": "ptx", "target": "sm_1"}),
        ("/api/machine", {"text": TEXT, "language": "triton", "kernel": "A_0", "stage": "ptx", "target": "gfx942"}),
        ("/api/machine", {"text": TEXT, "language": "triton", "kernel": "A_0", "stage": "amdgcn", "target": "sm_90"}),
        ("/api/machine", {"text": "layer", "language": "cpp", "kernel": "A_0", "stage": "asm", "target": "sm_90"}),
        ("/api/node", {"text": TEXT, "node": "0"}),
        ("/api/node", {"text": TEXT, "node": True}),
        ("/api/node", {"text": TEXT, "node": 99}),
        ("/api/node", {"text": TEXT, "profile": "round"}),
    ],
)
def test_what_is_no_request(served: Served, path: str, data: object) -> None:
    status, found = served.post(path, data)
    assert status == 400
    assert isinstance(found["problem"], str)


def test_a_text_that_is_too_long_is_not_read_to_its_end(served: Served) -> None:
    status, found = served.post("/api/view", {"text": "#" * (10 * MAX_TEXT)})
    assert status == 400
    assert str(MAX_TEXT) in found["problem"]


def test_half_a_character(served: Served) -> None:
    status, found = served.post("/api/view", b'{"text": "layer \\ud800 {", "parts": []}')
    assert status == 200
    assert found["diagnostics"]


# ---------------------------------------------------------------------------------------- the command


def test_hosts() -> None:
    here, open_ = server.hosts_for("127.0.0.1"), server.hosts_for("0.0.0.0")
    assert here("localhost") and here("127.0.0.1") and not here("192.168.1.5") and not here("example.org")
    # Of an open server any address will do: only a name can be made to point elsewhere.
    assert open_("192.168.1.5") and open_("localhost") and not open_("example.org")
    assert server.hosts_for("box.lan")("box.lan")
    assert server.is_loopback("127.0.0.9") and server.is_loopback("::1")
    assert not server.is_loopback("0.0.0.0") and not server.is_loopback("box.lan")


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with server.listen("127.0.0.1", 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        assert main(["explore", "--no-browser", "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"gdsl: 127.0.0.1:{port}: address already in use\n"


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "gdsl.explore.server")
    monkeypatch.delattr("gdsl.explore.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["explore", "--no-browser"]) == 2
    assert "pip install 'gdsl[explore]'" in capsys.readouterr().err


def test_settings_are_checked_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.gdsl"
    path.write_text(TEXT)
    assert main(["explore", str(path), "--set", "nothing=3"]) == 2
    assert "has no argument `nothing`" in capsys.readouterr().err
    assert main(["explore", str(tmp_path / "missing.gdsl")]) == 2
    with pytest.raises(CommandError):
        command.beginning(TEXT, "a", "Other", [], [])


def test_a_file_with_mistakes_opens_all_the_same() -> None:
    assert command.beginning("layer A {", "a", None, [], [])["text"] == "layer A {"
