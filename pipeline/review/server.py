"""The review page of an output over HTTP, for this machine's own browser: `serve`.

It shows what lies below OUT/review/ and writes OUT/review/verdicts.json. Everything wants the token of the printed
address: in the address, in a cookie that the first answer sets, or in a header; what writes wants the header.
"""

import ipaddress
import json
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.console.commands import on_stop_signals
from pipeline.console.options import UsageError
from pipeline.io import store
from pipeline.io.store_errors import StoreError
from pipeline.io.uris import local_path
from pipeline.records.verdicts import FORMAT

PAGE, VERDICTS = "index.html", "verdicts.json"
LARGEST_VERDICTS = 64 << 20
HEADER = "X-Review-Token"
# what is shown, by the end of its name; nothing else is
KINDS = {
    "html": "text/html; charset=utf-8",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
}
# of every answer; the page itself says what it may load
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# seconds that an answer under way has at the end
GRACE = 3


def serve(output: str, host: str, port: int, say: Callable[[str], None]) -> None:
    """Show the review page of an output until Ctrl-C or SIGTERM; call it in the main thread.

    port: 0 takes a free one. say: is given the address, and a warning where others can reach it. Raises UsageError
    where the output has no page, or this address can not be listened on; StoreError where the output can not be read.
    """
    folder = store.join(output, "review")
    if not store.exists(store.join(folder, PAGE)):
        raise UsageError(
            f"a review page wants {store.join(folder, PAGE)}, which is not there; finish a run first"
        )
    with _listening(host, port) as listener:
        review = Review(folder, host, listener.getsockname()[1])
        server = _Server(
            uvicorn.Config(
                review.app(),
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE,
            )
        )
        if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
            say(
                f"warning: {host} can be reached from other machines, unencrypted: whoever learns this address can "
                "see the faces and give verdicts"
            )
        with on_stop_signals(server.stop):
            say(f"the review page is at {review.address}; Ctrl-C ends")
            server.run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError."""
    if not host:
        raise UsageError("--host must name an address, got an empty one; 127.0.0.1 is this machine's own")
    if not 0 <= port <= 65535:
        raise UsageError(f"--port must lie in 0..65535, got {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"could not listen on {host}, port {port}: {error}; choose another --port, or 0 for a free one"
        ) from error


class _Server(uvicorn.Server):
    """A server whose signals are ours."""

    def stop(self) -> None:
        """Answer what is under way, then end; a second time, end at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    def handle_exit(self, sig: int, frame: object) -> None:  # what `capture_signals` installs
        self.stop()


@dataclass(frozen=True)
class Review:
    """What is served, and to whom."""

    # OUT/review
    folder: str
    host: str
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def address(self) -> str:
        """With the token."""
        return f"http://{_in_address(self.host)}:{self.port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """Its name: servers on other ports of a machine share cookies."""
        return f"difface-review-{self.port}"

    def app(self) -> ASGIApp:
        """Everything that is answered."""
        routes = [
            Route("/verdicts", self.saved, methods=["GET"]),
            Route("/verdicts", self.save, methods=["POST"]),
            Route("/", self.page, methods=["GET"]),
            Route(f"/{PAGE}", self.page, methods=["GET"]),
            Route("/{path:path}", self.file, methods=["GET"]),
        ]
        return _Guard(Starlette(routes=routes), self)

    def page(self, request: Request) -> Response:
        """The page, at an address with the token, from which its script has it."""
        if not self.is_token(request.query_params.get("token")):
            return RedirectResponse(f"/?token={self.token}", 303)
        answer = self._read(PAGE)
        answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
        return answer

    def file(self, request: Request) -> Response:
        """A file below the folder."""
        return self._read(request.path_params["path"])

    def _read(self, path: str) -> Response:
        kind = KINDS.get(path.rpartition(".")[2].lower())
        parts = path.split("/")
        uri = store.join(self.folder, path)
        unusual = "\\" in path or "\0" in path or any(part in {"", ".", ".."} for part in parts)
        found = None if kind is None or unusual or not self._is_below(uri) else _content(uri, kind)
        return found or PlainTextResponse("there is no such file", 404)

    def _is_below(self, uri: str) -> bool:
        """Whether a file lies below the folder: a link may lead elsewhere."""
        if store.is_remote(uri):
            return True
        return local_path(uri).resolve().is_relative_to(local_path(self.folder).resolve())

    def saved(self, _: Request) -> Response:
        """The verdicts that the output holds, or 204."""
        return _content(store.join(self.folder, VERDICTS), "application/json") or Response(status_code=204)

    async def save(self, request: Request) -> Response:
        """Write verdicts into the output."""
        if not self.is_token(request.headers.get(HEADER)):
            return PlainTextResponse(f"verdicts want the token in the header {HEADER}", 403)
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > LARGEST_VERDICTS:
                return PlainTextResponse(
                    f"verdicts are at most {LARGEST_VERDICTS >> 20} MiB", 413, {"Connection": "close"}
                )
        return await run_in_threadpool(self._write, bytes(data))

    def _write(self, data: bytes) -> Response:
        try:
            file = json.loads(data)
        except (ValueError, RecursionError):
            return PlainTextResponse("verdicts are a JSON file", 400)
        if not isinstance(file, dict) or file.get("format") != FORMAT:
            return PlainTextResponse(f'verdicts are a JSON file with "format": "{FORMAT}"', 400)
        try:
            store.write_bytes(store.join(self.folder, VERDICTS), data)
        except StoreError as error:
            return PlainTextResponse(str(error), 502)
        return Response(status_code=204)

    def is_token(self, text: str | None) -> bool:
        """Whether this is the token, in a time that does not tell."""
        return text is not None and secrets.compare_digest(text.encode(), self.token.encode())

    def is_host(self, text: str) -> bool:
        """Whether a Host header names what is listened on: a name that only points here does not count."""
        name, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "80")
        if port != str(self.port):
            return False
        name = name.strip("[]").lower()
        if name == self.host.lower():
            return True
        # a number, or a name of this machine's own, is nobody else's
        own = {"localhost", socket.gethostname().lower()} if _is_any(self.host) else {"localhost"}
        try:
            return ipaddress.ip_address(name).is_loopback or _is_any(self.host)
        except ValueError:
            return name in own


@dataclass(frozen=True)
class _Guard:
    """Lets requests pass that name this server and have its token."""

    app: ASGIApp
    review: Review

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)

        async def with_headers(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}  # type: ignore[misc]
            await send(message)

        given = (
            request.headers.get(HEADER),
            request.query_params.get("token"),
            request.cookies.get(self.review.cookie),
        )
        answer: ASGIApp = self.app
        if not self.review.is_host(request.headers.get("host", "")):
            answer = PlainTextResponse("this server has another name", 403)
        elif not any(map(self.review.is_token, given)):
            answer = PlainTextResponse("open the whole address that was printed, with its token", 403)
        await answer(scope, receive, with_headers)  # type: ignore[arg-type]


def _content(uri: str, kind: str) -> Response | None:
    """A file, None where there is none, or an answer that says why it could not be read."""
    try:
        return Response(store.read_bytes(uri), media_type=kind)
    except StoreError as error:
        try:
            there = store.exists(uri)
        except StoreError:
            there = True
        except OSError:  # no name of a file
            there = False
        return PlainTextResponse(str(error), 502) if there else None


def _in_address(host: str) -> str:
    """The host as an address has it; this machine's name for all of its addresses."""
    if _is_any(host):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _is_any(host: str) -> bool:
    """Whether the host stands for all addresses of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
