"""The server of the review page, over real HTTP: who gets what, what is written, how it ends."""

import http.client
import json
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import review_pages

from pipeline.console.options import UsageError
from pipeline.io import store
from pipeline.io.store_errors import StoreError
from pipeline.review import server

VERDICTS = {"format": "difface verdicts 1", "run": "r", "digest": "d", "verdicts": []}


@dataclass(frozen=True)
class Served:
    """A running server."""

    port: int
    token: str
    # its output
    output: Path

    def ask(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> http.client.HTTPResponse:
        """The answer, read whole into `.data`; nothing is sent but what is given, and a fitting Host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            answer.data = answer.read()
            return answer
        finally:
            connection.close()

    def with_token(self, path: str) -> http.client.HTTPResponse:
        """The answer to who has the token."""
        return self.ask(path, {server.HEADER: self.token})

    def post(self, data: bytes, **headers: str) -> http.client.HTTPResponse:
        """Save verdicts."""
        return self.ask("/verdicts", {server.HEADER: self.token} | headers, "POST", data)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of a page of one face."""
    output = tmp_path_factory.mktemp("output")
    review_pages.write_output(output, [review_pages.face(0)])
    with review_pages.served(str(output)) as (address, _):
        parts = urlsplit(address)
        assert parts.hostname == "127.0.0.1" and parts.port
        yield Served(parts.port, parse_qs(parts.query)["token"][0], output)


# ---------------------------------------------------------------------------------------------- who gets what


@pytest.mark.parametrize("path", ["/", "/index.html", "/verdicts", "/?token=wrong", "/nothing.png"])
@pytest.mark.parametrize("headers", [{}, {server.HEADER: "wrong"}, {"Cookie": "difface-review=x"}])
def test_without_the_token_nothing_is_given(served, path, headers):
    answer = served.ask(path, headers)
    assert answer.status == 403 and b"faces" not in answer.data


def test_the_address_gives_the_page_and_a_cookie_that_gives_the_rest(served):
    page = served.ask(f"/?token={served.token}")
    assert page.status == 200
    assert page.data == (served.output / "review" / "index.html").read_bytes()
    cookie, *rules = page.getheader("Set-Cookie").split("; ")
    assert {rule.lower() for rule in rules} >= {"httponly", "samesite=strict"}
    assert "frame-ancestors 'none'" in page.getheader("Content-Security-Policy")
    assert page.getheader("X-Content-Type-Options") == "nosniff"
    assert page.getheader("Referrer-Policy") == "no-referrer"
    tile = served.ask(f"/{review_pages.face(0).src}", {"Cookie": cookie})
    assert tile.status == 200 and tile.getheader("Content-Type") == "image/png"
    assert tile.data == (served.output / "review" / review_pages.face(0).src).read_bytes()
    # the page's script has the token from its address
    back = served.ask("/", {"Cookie": cookie})
    assert (back.status, back.getheader("Location")) == (303, f"/?token={served.token}")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{}", 200),
        ("localhost:{}", 200),
        ("[::1]:{}", 200),
        ("127.0.0.1", 403),
        ("127.0.0.1:1", 403),
        ("evil.example:{}", 403),
        ("127.0.0.1.evil.example:{}", 403),
        ("10.0.0.1:{}", 403),
        ("", 403),
    ],
)
def test_a_name_that_only_points_here_is_refused(served, host, status):
    assert served.ask(f"/?token={served.token}", {"Host": host.format(served.port)}).status == status


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.png",
        "/tiles/../../secret.png",
        "/%2e%2e/secret.png",
        "/tiles/%2e%2e%2f%2e%2e%2fsecret.png",
        "/..%5csecret.png",
        "//etc/passwd.png",
        "/%2fetc%2fpasswd.png",
        "/link.png",
        "/linked/secret.png",
        "/secret.png%00.png",
        "/notes.txt",
        "/.hidden",
        "/tiles",
        "/nothing.png",
        f"/{'a' * 300}.png",
    ],
)
def test_nothing_but_the_pages_own_files_is_shown(served, path):
    folder = served.output / "review"
    (served.output / "secret.png").write_bytes(b"secret")
    (folder / "notes.txt").write_bytes(b"secret")
    (folder / ".hidden").write_bytes(b"secret")
    for name, target in [("link.png", "secret.png"), ("linked", ".")]:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(served.output / target)
    answer = served.with_token(path)
    assert answer.status == 404 and answer.data == b"there is no such file"


# ---------------------------------------------------------------------------------------------- what is written


def test_verdicts_are_written_whole_and_given_back(served):
    file = served.output / "review" / "verdicts.json"
    file.unlink(missing_ok=True)
    assert served.with_token("/verdicts").status == 204
    data = json.dumps(VERDICTS | {"verdicts": [{"picture": "x" * 5_000_000}]}).encode()
    assert served.post(data).status == 204
    assert file.read_bytes() == data == served.with_token("/verdicts").data


def test_verdicts_want_the_token_in_a_header(served):
    file = served.output / "review" / "verdicts.json"
    file.unlink(missing_ok=True)
    cookie = f"difface-review-{served.port}={served.token}"
    data = json.dumps(VERDICTS).encode()
    for path, headers in [
        (f"/verdicts?token={served.token}", {}),
        ("/verdicts", {"Cookie": cookie}),
        ("/verdicts", {"Cookie": cookie, server.HEADER: "wrong"}),
        ("/verdicts", {}),
    ]:
        assert served.ask(path, headers, "POST", data).status == 403
    assert served.post(data, Host=f"evil.example:{served.port}").status == 403
    assert not file.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"format": "difface verdicts 2"}',
        b'{"verdicts": []}',
    ],
)
def test_what_holds_no_verdicts_is_refused_and_leaves_those_there_are(served, data):
    file = served.output / "review" / "verdicts.json"
    file.write_bytes(b"earlier")
    answer = served.post(data)
    assert answer.status == 400 and answer.data.startswith(b"verdicts are a JSON file")
    assert file.read_bytes() == b"earlier"


def test_verdicts_are_at_most_64_mib(served):
    """A body without a length, so that it has to be counted."""
    file = served.output / "review" / "verdicts.json"
    file.write_bytes(b"earlier")
    piece = b" " * (1 << 20)
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as link:
        link.sendall(
            f"POST /verdicts HTTP/1.1\r\nHost: localhost:{served.port}\r\n{server.HEADER}: {served.token}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(64):
            link.sendall(b"100000\r\n" + piece + b"\r\n")
        link.sendall(b"1\r\n \r\n")
        answer = link.recv(100)
    assert answer.startswith(b"HTTP/1.1 413")
    assert file.read_bytes() == b"earlier"


def test_other_methods_are_refused(served):
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert served.ask("/verdicts", {server.HEADER: served.token}, method).status == 405
        assert served.ask("/verdicts", {}, method).status == 403


def test_an_output_that_can_not_be_written_to_is_a_sentence(served, monkeypatch, tmp_path):
    def fail(uri: str, data: bytes) -> None:
        raise StoreError(f"could not write {uri}: the disk is full")

    monkeypatch.setattr(store, "write_bytes", fail)
    answer = server.Review(str(tmp_path), "127.0.0.1", 80)._write(json.dumps(VERDICTS).encode())
    assert answer.status_code == 502 and b"the disk is full" in answer.body


def test_an_output_on_s3_is_served_and_written_to(s3, tmp_path):
    review_pages.write_output(tmp_path, [review_pages.face(0)])
    output = f"{s3.uri}/reviewed"
    for name in ("index.html", review_pages.face(0).src):
        store.write_bytes(f"{output}/review/{name}", (tmp_path / "review" / name).read_bytes())
    with review_pages.served(output) as (address, _):
        parts = urlsplit(address)
        there = Served(parts.port, parse_qs(parts.query)["token"][0], tmp_path)
        assert b"Review of the tests" in there.ask(f"/?token={there.token}").data
        tile = there.with_token(f"/{review_pages.face(0).src}")
        assert tile.data == (tmp_path / "review" / review_pages.face(0).src).read_bytes()
        assert there.with_token("/tiles/none.png").status == 404
        assert there.with_token("/verdicts").status == 204
        data = json.dumps(VERDICTS).encode()
        assert there.post(data).status == 204
    assert store.read_bytes(f"{output}/review/verdicts.json") == data


# ---------------------------------------------------------------------------------------------- start and end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_and_nothing_else_is_printed(tmp_path, number):
    review_pages.write_output(tmp_path, [review_pages.face(0)])
    with review_pages.served(str(tmp_path)) as (address, child):
        parts = urlsplit(address)
        there = Served(parts.port, "wrong", tmp_path)
        assert there.ask("/").status == 403
        # a browser keeps its connections open
        with socket.create_connection(("127.0.0.1", parts.port)) as link:
            link.sendall(b"GET / HTTP/1.1\r\n")
            child.send_signal(number)
            printed, complained = child.communicate(timeout=60)
    assert (child.returncode, printed, complained) == (0, "", "")


def test_an_address_that_others_reach_is_served_with_a_warning(tmp_path):
    review_pages.write_output(tmp_path, [review_pages.face(0)])
    with review_pages.served(str(tmp_path), "0.0.0.0") as (address, _):
        parts = urlsplit(address)
        there = Served(parts.port, parse_qs(parts.query)["token"][0], tmp_path)
        assert parts.hostname == socket.gethostname().lower()
        page = f"/?token={there.token}"
        hosts = [
            f"{socket.gethostname()}:{there.port}",
            f"10.0.0.1:{there.port}",
            f"evil.example:{there.port}",
        ]
        assert [there.ask(page, {"Host": host}).status for host in hosts] == [200, 200, 403]


def test_a_port_in_use_and_an_unknown_host_are_a_sentence(tmp_path):
    review_pages.write_output(tmp_path, [review_pages.face(0)])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"^could not listen on 127.0.0.1, port {port}: .*--port"):
            server.serve(str(tmp_path), "127.0.0.1", port, print)
    for host, found in [("", "--host must name"), ("999.1.1.1", "could not listen on 999.1.1.1")]:
        with pytest.raises(UsageError, match=found):
            server.serve(str(tmp_path), host, 0, print)
    with pytest.raises(UsageError, match=r"--port must lie in 0..65535, got 70000"):
        server.serve(str(tmp_path), "127.0.0.1", 70000, print)


def test_an_output_without_a_page_is_a_sentence(tmp_path):
    with pytest.raises(
        UsageError, match=r"wants .*/review/index.html, which is not there; finish a run first"
    ):
        server.serve(str(tmp_path), "127.0.0.1", 0, print)
