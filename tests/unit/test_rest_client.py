"""HTTP to a slurmrestd that misbehaves: every call ends, and says truly whether anything may have happened."""

import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.errors import Uncertain, Unreachable
from adapters.slurm import rest_client
from adapters.slurm.rest_client import Question, RestConnection, RestSettings, Said

TOKEN = "header.payload.signature"
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"job_id": 7}'
Answerer = Callable[[socket.socket, bytes], None]


class Server:
    """Reads one request of each connection whole, and lets `answer` say something."""

    def __init__(self, answer: Answerer, listener: socket.socket, wrap: ssl.SSLContext | None = None) -> None:
        self._answer, self._listener, self._wrap = answer, listener, wrap
        self.requests: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        try:
            with connection if self._wrap is None else self._wrap.wrap_socket(connection, server_side=True) as stream:
                while request := _whole(stream):
                    self.requests.append(request)
                    self._answer(stream, request)
        except OSError:
            return


def _whole(stream: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = stream.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l")), 0
    )
    while len(body) < length:
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def serve() -> Iterator[Callable[[Answerer], tuple[Server, RestConnection]]]:
    closing: list[socket.socket | RestConnection] = []

    def make(answer: Answerer) -> tuple[Server, RestConnection]:
        listener = socket.create_server(("127.0.0.1", 0))
        connection = RestConnection(RestSettings(f"http://127.0.0.1:{listener.getsockname()[1]}"), 2)
        closing.extend((listener, connection))
        return Server(answer, listener), connection

    yield make
    for one in closing:
        one.close()


def post(body: bytes = b"{}") -> Question:
    return Question("POST", "/slurm/v0.0.38/job/submit", "idf001", TOKEN, body=lambda: body)


def test_an_answer_is_read_and_the_token_travels_in_its_header_only(serve, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    caplog.set_level(logging.DEBUG)
    server, connection = serve(lambda stream, _: stream.sendall(OK))
    question = Question("GET", "/slurmdb/v0.0.38/jobs", "idf001", TOKEN, {"step": "1,2", "state": "a b"})
    assert connection.ask(question, 5) == Said(200, {"job_id": 7})
    head = server.requests[0].decode().split("\r\n")
    assert head[0] == "GET /slurmdb/v0.0.38/jobs?step=1%2C2&state=a+b HTTP/1.1"
    assert f"X-SLURM-USER-TOKEN: {TOKEN}" in head
    assert sum(TOKEN in line for line in head) == 1
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(question)


def _silent(stream: socket.socket, _: bytes) -> None:
    time.sleep(3)


def _hangs_up(stream: socket.socket, _: bytes) -> None:
    stream.shutdown(socket.SHUT_RDWR)


def _half(stream: socket.socket, _: bytes) -> None:
    stream.sendall(OK[:-3])
    stream.shutdown(socket.SHUT_RDWR)


def _drips(stream: socket.socket, _: bytes) -> None:
    stream.sendall(OK[:-13])
    for byte in OK[-13:]:
        stream.sendall(bytes([byte]))
        time.sleep(0.3)


def _drips_its_head(stream: socket.socket, _: bytes) -> None:
    for byte in OK:
        stream.sendall(bytes([byte]))
        time.sleep(0.3)


def _no_http(stream: socket.socket, _: bytes) -> None:
    stream.sendall(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize("answer", [_silent, _hangs_up, _half, _drips, _drips_its_head, _no_http])
def test_what_was_handed_over_and_not_answered_is_uncertain_in_bounded_time(serve, answer: Answerer) -> None:  # type: ignore[no-untyped-def]
    server, connection = serve(answer)
    began = time.monotonic()
    with pytest.raises(Uncertain):
        connection.ask(post(), 1)
    assert time.monotonic() - began < 4
    assert len(server.requests) == 1, "never sent a second time"


def test_an_answer_without_end_is_uncertain(serve, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(rest_client, "ANSWER_BYTES_MAX", 1000)
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b" " * 5000
    _, connection = serve(lambda stream, _: stream.sendall(large))
    with pytest.raises(Uncertain, match="larger"):
        connection.ask(post(), 5)


def test_a_redirect_is_not_followed(serve) -> None:  # type: ignore[no-untyped-def]
    other, _ = serve(lambda stream, _: stream.sendall(OK))
    port = other._listener.getsockname()[1]
    moved = f"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n".encode()
    _, connection = serve(lambda stream, _: stream.sendall(moved))
    assert connection.ask(post(), 5).status == 307
    assert not other.requests


def test_a_proxy_of_the_environment_is_not_used(serve, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    _, connection = serve(lambda stream, _: stream.sendall(OK))
    assert connection.ask(post(), 5).status == 200


def test_whoever_finds_no_connection_free_has_sent_nothing(serve) -> None:  # type: ignore[no-untyped-def]
    server, connection = serve(_silent)
    both = threading.Thread(target=connection.ask_all, args=([post(), post()], 3, 3))
    both.start()
    while len(server.requests) < 2:
        time.sleep(0.01)
    with pytest.raises(Unreachable, match="no connection to slurmrestd is free"):
        connection.ask(post(), 0.3)
    both.join()
    assert len(server.requests) == 2


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(Unreachable, match="no connection"):
        RestConnection(RestSettings(f"http://127.0.0.1:{port}"), 1).ask(post(), 5)


@pytest.mark.parametrize("url", ["http://192.0.2.1:6820", "http://slurm.example.org", "ftp://127.0.0.1", "127.0.0.1"])
def test_a_token_never_travels_in_the_clear(url: str) -> None:
    with pytest.raises(Unreachable, match="https"):
        RestConnection(RestSettings(url), 1).ask(post(), 5)


def test_many_are_asked_in_order_and_none_after_the_time_to_start_is_over(serve) -> None:  # type: ignore[no-untyped-def]
    def slow(stream: socket.socket, _: bytes) -> None:
        time.sleep(0.2)
        stream.sendall(OK)

    server, connection = serve(slow)
    outcomes = connection.ask_all([post(str(n).encode()) for n in range(12)], 0.5, 5)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == sorted(kinds, key=[Said, Unreachable].index)
    assert 0 < kinds.count(Said) < 12
    assert len(server.requests) == kinds.count(Said), "what is told as never sent was never sent"


def test_the_certificate_is_verified(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(lambda stream, _: stream.sendall(OK), listener, context)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        assert RestConnection(RestSettings(url, certificate), 1).ask(post(), 5).status == 200
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            RestConnection(RestSettings(url), 1).ask(post(), 5)
        with pytest.raises(Unreachable, match="authority"):
            RestConnection(RestSettings(url, tmp_path / "none"), 1).ask(post(), 5)
        assert len(server.requests) == 1


def test_a_unix_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        Server(lambda stream, _: stream.sendall(OK), listener)
        assert RestConnection(RestSettings(f"unix:{tmp_path}/s"), 1).ask(post(), 5) == Said(200, {"job_id": 7})


def test_errors_become_one_sentence() -> None:
    error = {"error": "Invalid job id specified", "description": "unable to kill", "error_number": 2017}
    assert Said(500, {"errors": [error, error]}).sentence() == "Invalid job id specified: unable to kill"
    assert Said(502, {}).sentence() == "HTTP status 502"
    assert Said(500, {"errors": "none"}).errors == []
