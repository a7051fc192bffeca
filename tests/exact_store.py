"""A small S3 server in this process that keeps every key letter by letter, as AWS does and SeaweedFS does not.

Path-style addresses, no signatures, no parts; a listing is one page.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape


@dataclass
class ExactStore:
    """A running server; `objects` by bucket and key, as `bucket/key`."""

    # http://127.0.0.1:port
    endpoint: str
    objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """What points an AWS client at it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "nobody-looks",
            "AWS_SECRET_ACCESS_KEY": "nobody-looks",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: ExactStore

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def _key(self) -> str:
        # http.server makes one slash of two at the beginning of `path`, the request line has them all
        return unquote(self.requestline.split(" ")[1].partition("?")[0].removeprefix("/"))

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("If-None-Match") == "*" and self._key in self.store.objects:
            self._refuse(412, "PreconditionFailed")
            return
        self.store.objects[self._key] = data
        self._answer(200, ETag=_etag(data))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        query = parse_qs(self.path.partition("?")[2], keep_blank_values=True)
        if "list-type" in query:
            self._list(query.get("prefix", [""])[0], int(query.get("max-keys", ["1000"])[0]))
            return
        data = self.store.objects.get(self._key)
        if data is None:
            self._refuse(404, "NoSuchKey")
        elif (span := self.headers.get("Range")) is None:
            self._answer(200, data, ETag=_etag(data), Content_Length=str(len(data)))
        else:
            begin, end = map(int, span.removeprefix("bytes=").split("-"))
            part = data[begin : end + 1]
            where = f"bytes {begin}-{begin + len(part) - 1}/{len(data)}"
            self._answer(206, part, ETag=_etag(data), Content_Range=where)

    def do_DELETE(self) -> None:
        self.store.objects.pop(self._key, None)
        self._answer(204)

    def _list(self, prefix: str, most: int) -> None:
        bucket = self._key.rstrip("/")
        keys = sorted(k[len(bucket) + 1 :] for k in self.store.objects if k.startswith(f"{bucket}/{prefix}"))
        items = "".join(
            f"<Contents><Key>{escape(quote(key))}</Key><Size>{len(self.store.objects[f'{bucket}/{key}'])}</Size>"
            f"<ETag>{escape(_etag(self.store.objects[f'{bucket}/{key}']))}</ETag></Contents>"
            for key in keys[:most]
        )
        head = f"<Prefix>{escape(quote(prefix))}</Prefix><EncodingType>url</EncodingType>"
        body = f"<ListBucketResult>{head}<IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
        self._answer(200, body.encode(), Content_Type="application/xml")

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


@contextmanager
def exact_store() -> Iterator[ExactStore]:
    """A server on a free loopback port, in threads of this process."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.store = ExactStore(f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield handler.store  # type: ignore[attr-defined]
        finally:
            server.shutdown()
