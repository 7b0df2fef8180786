"""The page and its views over HTTP, for one person on one machine.

Nothing of a request is run or opened: a text is compiled and its kernels are printed, and the only files that are read
are the page's own, the one that was given, and, where one was given, the programs beside it that a text uses. Requests
must name this server as their host, so that no other site's name can be made to point here, and those that bring a text
must come from the page itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gdsl.errors import CommandError, GdslError, InputError
from gdsl.explore import page
from gdsl.explore.reading import as_json, read, settings_of
from gdsl.language.parse import MAX_TEXT
from gdsl.locks import Lock

# A text in UTF-8 and escaped, with its settings.
MOST_BYTES = 8 * MAX_TEXT
_TYPES = {"css": "text/css", "js": "text/javascript"}


class CompilerThread:
    """What needs torch: imported in a thread of its own, and used by one request at a time.

    The import would hold up the page: it begins with the first question of one, or when none has come for a while.
    """

    def __init__(self) -> None:
        self.turn = Lock()
        self.ready = threading.Event()
        self.machines: list[dict[str, Any]] = []
        self.begun = False

    def start(self, after: float = 0.0) -> None:
        timer = threading.Timer(after, self._load)
        timer.daemon = True
        timer.start()

    def _load(self) -> None:
        with self.turn:
            if self.begun:
                return
            self.begun = True
            view = importlib.import_module("gdsl.explore.view")
            view.view(_WARM)  # the first program takes longer than those after it
            self.ready.set()
            self.machines = importlib.import_module("gdsl.explore.machines").machines()

    def call(self, name: str, *arguments: Any) -> Any:
        with self.turn:
            return getattr(importlib.import_module("gdsl.explore.view"), name)(*arguments)


# Seconds until the compiler is imported though nobody has asked.
_PATIENCE = 1.0
_WARM = "layer Warm(d) { node x[d] aggregate a = sum(x[j]) update y = relu(a) }"


# -------------------------------------------------------------------------------------------- requests


async def _body(request: Request) -> dict[str, Any]:
    """The JSON of a request that the page sent. Raises :class:`gdsl.InputError` for what is none."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MOST_BYTES:
            raise InputError(f"a program has at most {MAX_TEXT} characters")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError("a request is JSON") from error
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        raise InputError("a request has a text")
    return found


def _json(data: dict[str, Any], status: int = 200) -> Response:
    """In ASCII, which has a form for half a character too."""
    return Response(json.dumps(data, allow_nan=False), status, media_type="application/json")


def _answers(work: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Any]:
    """A handler that gives what a function makes of a request's JSON, in a thread."""

    async def handler(request: Request) -> Response:
        try:
            return _json(await run_in_threadpool(work, await _body(request)))
        except GdslError as problem:
            return _json({"problem": str(problem)}, 400)
        except (RecursionError, MemoryError, OverflowError) as problem:
            return _json({"problem": f"the program is too large: {type(problem).__name__}"}, 400)

    return handler


def app(
    start: dict[str, Any],
    again: Callable[[], str] | None,
    allowed: Callable[[str], bool],
    folder: Path | None = None,
) -> Starlette:
    """The server of a page that begins with ``start``. ``allowed`` says which hosts a request may name, ``again``
    reads the file that the page shows, if there is one, and ``folder`` is where that is: texts may use the programs
    below it."""
    compiler = CompilerThread()

    def view(data: dict[str, Any]) -> dict[str, Any]:
        settings, parts = settings_of(data.get("settings", {}), folder), data.get("parts", [])
        if not isinstance(parts, list) or not all(isinstance(p, str) for p in parts):
            raise InputError("parts are a list of names")
        if not compiler.ready.is_set():
            # Mistakes and types at once; the page asks again for what needs torch.
            found = as_json(read(data["text"], settings))
            compiler.start()
            return {**found, "parts": {}, "problem": None, "loading": True}
        found = compiler.call("view", data["text"], settings, tuple(parts))
        return {**found, "machines": compiler.machines}

    def machine(data: dict[str, Any]) -> dict[str, Any]:
        asked = [data.get(name) for name in ("language", "kernel", "stage", "target")]
        if not all(isinstance(a, str) for a in asked):
            raise InputError("a language, a kernel, a stage and a target are names")
        return compiler.call("code_of", data["text"], settings_of(data.get("settings", {}), folder), *asked)

    def node(data: dict[str, Any]) -> dict[str, Any]:
        number, profile = data.get("node", 0), data.get("profile", "even")
        if type(number) is not int or not isinstance(profile, str):
            raise InputError("a node is a number, and a profile a name")
        return compiler.call("node_of", data["text"], settings_of(data.get("settings", {}), folder), number, profile)

    async def given(request: Request) -> Response:
        try:
            return _json({"text": await run_in_threadpool(again) if again else None})
        except GdslError:  # saved at this moment, or gone
            return _json({"text": None})

    async def index(request: Request) -> Response:
        return HTMLResponse(page.served(start))

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in (*page.STYLES, *page.SCRIPTS):
            return PlainTextResponse("there is no such file", 404)
        text = (page.FOLDER / name).read_text(encoding="utf-8")
        return Response(text, media_type=_TYPES[name.rsplit(".")[-1]])

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        compiler.start(after=_PATIENCE)
        yield

    routes = [
        Route("/", index),
        Route("/page/{name}", file),
        Route("/api/file", given),
        Route("/api/view", _answers(view), methods=["POST"]),
        Route("/api/machine", _answers(machine), methods=["POST"]),
        Route("/api/node", _answers(node), methods=["POST"]),
    ]
    made = Starlette(routes=routes, lifespan=lifespan)
    made.add_middleware(_Guard, allowed=allowed)
    return made


class _Guard:
    """Lets through what names this server and, where it brings something, what comes from its page."""

    def __init__(self, app: ASGIApp, allowed: Callable[[str], bool]):
        self.app, self.allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        why = self.refusal(scope["method"], headers)
        if why is not None:
            await PlainTextResponse(why, 403)(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self.app(scope, receive, guarded)

    def refusal(self, method: str, headers: dict[str, str]) -> str | None:
        """Why a request is not answered."""
        host = headers.get("host", "")
        if not self.allowed(_name(host)):
            return "this is another host: use the address that gdsl explore printed"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "this comes from another site"
        if method == "POST" and headers.get("content-type", "").split(";")[0] != "application/json":
            return "a request is JSON"
        return None


_HEADERS = [
    (b"content-security-policy", page.POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


def _name(host: str) -> str:
    """A host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


# ---------------------------------------------------------------------------------------------- running

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what is bound to a host."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def hosts_for(host: str) -> Callable[[str], bool]:
    """Which hosts a request to a server on this one may name: of an open server also any address, which no site's name
    can stand for."""
    if is_loopback(host):
        return lambda name: name in (*LOOPBACK, host)

    def allowed(name: str) -> bool:
        with contextlib.suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name in (*LOOPBACK, host)

    return allowed


def listen(host: str, port: int) -> socket.socket:
    """A socket on a port; on another one where 0 asks for any. Raises :class:`gdsl.errors.CommandError`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        raise CommandError(f"{host}:{port}: {(error.strerror or str(error)).lower()}") from error
    return found


def serve(
    start: dict[str, Any],
    again: Callable[[], str] | None,
    host: str,
    port: int,
    opened: Callable[[str], None],
    folder: Path | None = None,
) -> None:
    """Answer until the process is told to stop. ``opened`` gets the address when the server listens."""
    with listen(host, port) as bound:
        name, number = bound.getsockname()[:2]
        shown = f"[{name}]" if ":" in name else name
        made = app(start, again, hosts_for(host), folder)
        config = uvicorn.Config(
            made, log_level="warning", access_log=False, lifespan="on", ws="none", timeout_graceful_shutdown=2
        )
        bound.listen(128)
        opened(f"http://{shown}:{number}/")
        asyncio.run(uvicorn.Server(config).serve(sockets=[bound]))
