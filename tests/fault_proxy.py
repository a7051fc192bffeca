"""A proxy in front of an S3 server that injects faults by rules, and records every request.

Requests are forwarded byte for byte, so that their signatures stay valid; each on a connection of its own.
"""

import random
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Literal
from urllib.parse import unquote, urlsplit

Fault = Literal[
    "throttled",  # 503 SlowDown, and the server is not asked
    "denied",  # 403 AccessDenied, and the server is not asked
    "reset",  # the connection is reset, and the server is not asked
    "silent",  # nothing comes, and the server is not asked
    "lost",  # the server does what was asked, its answer is lost by a reset
    "cut",  # half of the body, then the end of the connection
    "cut by reset",  # half of the body, then a reset
    "stalled",  # half of the body, then nothing more
    "shortened",  # half of the body, and a Content-Length that says so
    "unknown",  # 501 NotImplemented, and the server is not asked
    "full",  # 507 XMinioStorageFull, and the server is not asked
    "unconditional",  # 200 where the server refused for a condition, as one that ignores conditions would say
]
ERRORS = {
    "throttled": (503, "Slow Down", "SlowDown"),
    "denied": (403, "Forbidden", "AccessDenied"),
    "unknown": (501, "Not Implemented", "NotImplemented"),
    "full": (507, "Insufficient Storage", "XMinioStorageFull"),
}
ALWAYS = 1 << 30


@dataclass
class Rule:
    """Spoil the next `times` requests of the method whose target (path and query, unquoted) the pattern finds."""

    fault: Fault
    method: str = "GET|HEAD|PUT|POST|DELETE"
    target: str = ""
    times: int = ALWAYS
    # of those that match, let pass so many first
    after: int = 0
    # the share of those that match, drawn at random
    odds: float = 1.0
    # only requests with a header whose lower-case name the pattern finds
    header: str = ""


@dataclass
class Request:
    """One request as it came."""

    method: str
    # path and query, unquoted
    target: str
    # seconds of time.monotonic()
    at: float
    headers: dict[str, str]
    fault: str = ""
    # of the answer, as sent on to the client
    status: int = 0
    body_bytes: int = 0


@dataclass
class FaultProxy:
    """A running proxy."""

    # http://127.0.0.1:port
    endpoint: str
    server: tuple[str, int]
    rules: list[Rule] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    def clear(self) -> None:
        """No rules, and nothing remembered."""
        with self.lock:
            self.rules.clear()
            self.requests.clear()

    def inject(self, fault: Fault, *args: str, **options: object) -> None:
        """Add a rule: method, target and the options of Rule."""
        self.rules.append(Rule(fault, *args, **options))

    def seen(self, method: str = "", target: str = "") -> list[Request]:
        """What came of that method, with the pattern in its target."""
        with self.lock:
            return [r for r in self.requests if method in ("", r.method) and re.search(target, r.target)]

    def _enter(self, request: Request) -> None:
        """Record the request and choose its fault."""
        with self.lock:
            self.requests.append(request)
            for rule in self.rules:
                fits = re.fullmatch(rule.method, request.method) and re.search(rule.target, request.target)
                fits = fits and any(re.search(rule.header, name) for name in request.headers)
                if not fits or not rule.times or self.dice.random() >= rule.odds:
                    continue
                if rule.after:
                    rule.after -= 1
                    continue
                rule.times -= 1
                request.fault = rule.fault
                return

    def serve(self, client: socket.socket) -> None:
        """Answer the requests of one connection until it ends."""
        with client, client.makefile("rb") as source, suppress(OSError):
            while head := read_head(source):
                method, target, headers = parse_request(head)
                request = Request(method, unquote(target), time.monotonic(), headers)
                self._enter(request)
                if not self._answer(request, head, source, client):
                    return

    def _answer(self, request: Request, head: bytes, source: BinaryIO, client: socket.socket) -> bool:
        """Answer one request, with its fault; whether the connection can be used for another."""
        if request.fault == "silent":
            self.stopped.wait()
            return False
        if request.headers.get("expect", "").lower() == "100-continue":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = source.read(int(request.headers.get("content-length", 0)))
        if request.fault in ERRORS:
            request.status, phrase, code = ERRORS[request.fault]
            text = f"<Error><Code>{code}</Code><Message>{phrase}</Message></Error>".encode()
            reply = f"HTTP/1.1 {request.status} {phrase}\r\nContent-Length: {len(text)}\r\n\r\n".encode()
            client.sendall(reply + (b"" if request.method == "HEAD" else text))
            return True
        if request.fault == "reset":
            return reset(client)
        answered, answer = forward(self.server, request.method, head + body)
        if request.fault == "lost":
            return reset(client)
        request.status = int(answered.split()[1])
        if request.fault == "unconditional":
            if request.status == 412:
                answered, answer = b'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: 0\r\n\r\n', b""
        elif request.fault and answer:
            return self._faulty_body(request, answered, answer, client)
        # before they are sent: who waits for them looks at the count next
        request.body_bytes = len(answer)
        client.sendall(answered + answer)
        return True

    def _faulty_body(self, request: Request, head: bytes, body: bytes, client: socket.socket) -> bool:
        request.body_bytes = half = len(body) // 2
        if request.fault == "shortened":
            head = re.sub(rb"(?i)(\r\ncontent-length: )\d+", rb"\g<1>%d" % half, head)
        client.sendall(head + body[:half])
        if request.fault == "stalled":
            self.stopped.wait()
        if request.fault == "cut by reset":
            reset(client)
        return request.fault == "shortened"


def read_head(source: BinaryIO) -> bytes:
    """First line and headers of a message with the empty line behind them; b"" at the end of the connection."""
    lines = [source.readline()]
    while lines[-1].strip():
        lines.append(source.readline())
    return b"".join(lines) if len(lines) > 1 else b""


def parse_request(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, target, and headers by lower-case name."""
    first, *rest = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = [line.partition(":") for line in rest if line]
    return method, target, {name.lower(): value.strip() for name, _, value in pairs}


def forward(server: tuple[str, int], method: str, message: bytes) -> tuple[bytes, bytes]:
    """Head and body of the server's answer, both as they came."""
    with socket.create_connection(server) as upstream, upstream.makefile("rb") as source:
        upstream.sendall(message)
        head = read_head(source)
        while head.split()[1] == b"100":
            head = read_head(source)
        if method == "HEAD" or head.split()[1] in (b"204", b"304"):
            return head, b""
        if found := re.search(rb"(?i)\r\ncontent-length: (\d+)", head):
            return head, source.read(int(found[1]))
        assert re.search(rb"(?i)\r\ntransfer-encoding: chunked", head), head
        return head, read_chunks(source)


def read_chunks(source: BinaryIO) -> bytes:
    """A chunked body with its sizes, as it came."""
    raw = b""
    while True:
        line = source.readline()
        length = int(line.split(b";")[0], 16)
        raw += line + source.read(length + 2)
        if not length:
            return raw


def reset(client: socket.socket) -> bool:
    """End the connection by a reset. False: it can not be used again."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        client.shutdown(socket.SHUT_RD)
    client.close()
    return False


@contextmanager
def fault_proxy(endpoint: str, port: int = 0) -> Iterator[FaultProxy]:
    """A proxy on this loopback port or a free one, in threads of this process, in front of the server at `endpoint`."""
    parts = urlsplit(endpoint)
    assert parts.hostname and parts.port
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        port = listener.getsockname()[1]
        proxy = FaultProxy(f"http://127.0.0.1:{port}", (parts.hostname, parts.port))

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.stopped.set()
            listener.shutdown(socket.SHUT_RDWR)
