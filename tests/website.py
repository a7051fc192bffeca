"""A web server on loopback that publishes files as a release page does: with ranges, and with broken connections."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Site:
    """A published address, and what it has been asked."""

    # http://127.0.0.1:port
    root: str
    # what is served under every name that `files` does not have
    data: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = '"one"'
    # how many bytes of an answer are sent before the connection breaks; one entry a request
    breaks: list[int] = field(default_factory=list)
    status: int = 200
    # the Range of each request
    asked: list[str | None] = field(default_factory=list)
    sent: int = 0


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request to a site."""

    site: Site

    def do_GET(self) -> None:
        """A file, from where the client has it, as far as the connection holds."""
        site = self.site
        wanted = self.headers.get("Range")
        site.asked.append(wanted)
        if site.status != 200:
            self.send_error(site.status)
            return
        data = site.files.get(self.path.strip("/"), site.data)
        start = 0
        if wanted and self.headers.get("If-Range") == site.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start == len(data) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{start}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", site.etag)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        stop = start + site.breaks.pop(0) if site.breaks else len(data)
        site.sent += len(data[start:stop])
        self.wfile.write(data[start:stop])

    def log_message(self, *_args: object) -> None:
        """Nothing: pytest's output is no access log."""


@contextmanager
def published(data: bytes = b"") -> Iterator[Site]:
    """A site that answers until the end of the block."""
    site = Site(root="", data=data)
    handler = type("SiteHandler", (Handler,), {"site": site})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    site.root = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
