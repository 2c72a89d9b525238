"""A pool's logs over real HTTP, from a server that gives them as kubelet does: from the beginning, in pieces."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from adapters.errors import Unreachable
from adapters.k8s import logs
from adapters.k8s.client import Api
from adapters.port import LogChunk

SPACE = "idf-p"


class Kubelet:
    """What the pods wrote so far, whether they ended, and how often and from where their logs were asked for."""

    def __init__(self) -> None:
        self.pods: dict[str, bytes] = {}
        self.ended: set[str] = set()
        self.asked: list[tuple[str, bool]] = []
        self.sent = 0
        self.cut = False

    def listed(self) -> Any:
        items = [
            {
                "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": f"2026-03-01T08:00:0{number}Z"},
                "status": {"phase": "Succeeded" if name in self.ended else "Running"},
            }
            for number, name in enumerate(self.pods)
        ]
        return {"items": items, "metadata": {}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kubelet: Kubelet

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        *_, pod, last = parts.path.split("/")
        if last == "log":
            self._log(pod, follow="follow" in parse_qs(parts.query))
            return
        body = json.dumps(self.kubelet.listed()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _log(self, pod: str, *, follow: bool) -> None:
        kubelet, sent = self.kubelet, 0
        kubelet.asked.append((pod, follow))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                ended = pod in kubelet.ended
                sent += self._send(kubelet.pods[pod][sent:])
                if kubelet.cut:
                    kubelet.cut, self.close_connection = False, True
                    return
                if ended or not follow:
                    break
                time.sleep(0.01)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def _send(self, data: bytes) -> int:
        for start in range(0, len(data), 1000):
            piece = data[start : start + 1000]
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.kubelet.sent += len(data)
        return len(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kubelet() -> Kubelet:
    return Kubelet()


@pytest.fixture
def api(kubelet: Kubelet, tmp_path: Path) -> Iterator[Api]:
    handler = type("Own", (Handler,), {"kubelet": kubelet})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    users = [{"name": "u", "user": {}}]
    kubeconfig = {"clusters": [cluster], "contexts": [context], "users": users, "current-context": "x"}
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    made = Api(tmp_path / "kubeconfig", None, connections=4, timeout_s=10)
    yield made
    made.close()
    server.shutdown()
    server.server_close()


@pytest.fixture
def read(api: Api) -> Iterator[Any]:
    kept = logs.Logs(1 << 20)

    def once(offset: int, limit_bytes: int = 1 << 20, wait_s: float = 0.0) -> LogChunk:
        return kept.read(api, SPACE, "idf-1", None, offset, limit_bytes, wait_s)

    yield once
    kept.close()


def test_who_follows_costs_what_is_new(read: Any, kubelet: Kubelet) -> None:
    kubelet.pods["a"] = bytes(range(256)) * 400
    first = read(0, wait_s=5)
    while first.next_offset < len(kubelet.pods["a"]):
        first = read(first.next_offset, wait_s=5)
    for number in range(20):
        kubelet.pods["a"] += f"line {number}\n".encode()
        chunk = read(first.next_offset, wait_s=5)
        assert chunk.data == f"line {number}\n".encode()
        first = chunk
    assert kubelet.asked == [("a", True)]
    assert kubelet.sent == len(kubelet.pods["a"]), "each byte came once"
    kubelet.pods["a"] += b"last\n"
    kubelet.ended.add("a")
    assert read(first.next_offset, wait_s=5).data == b"last\n"
    assert read(len(kubelet.pods["a"]), wait_s=5) == LogChunk(b"", len(kubelet.pods["a"]), exists=True)


def test_a_long_log_is_read_in_pieces_by_one_answer(read: Any, kubelet: Kubelet) -> None:
    kubelet.pods["a"] = b"0123456789" * 30_000
    kubelet.ended.add("a")
    data, offset = b"", 0
    while chunk := read(offset, limit_bytes=7_000):
        if not chunk.data:
            break
        data, offset = data + chunk.data, chunk.next_offset
    assert data == kubelet.pods["a"]
    assert kubelet.asked == [("a", False)]


def test_any_offset_gives_what_stands_there(read: Any, kubelet: Kubelet) -> None:
    kubelet.pods["a"] = b"abcdef"
    assert read(4, limit_bytes=1).data == b"e"
    assert read(1, limit_bytes=2).data == b"bc"
    assert read(5).data == b"f"
    assert read(6).data == b""
    kubelet.pods["a"] += b"g"
    assert read(6).data == b"g"
    assert read(99) == LogChunk(b"", 99, exists=True)


def test_the_log_of_several_attempts_is_theirs_one_after_another(read: Any, kubelet: Kubelet) -> None:
    kubelet.pods |= {"a": b"first\n", "b": b"second\n"}
    kubelet.ended |= {"a"}
    assert read(0).data == b"first\nsecond\n"
    assert read(8).data == b"cond\n"
    following = read(13, wait_s=0.2)
    assert (following.data, following.next_offset) == (b"", 13)
    kubelet.asked.clear()
    kubelet.pods["b"] += b"more\n"
    assert read(13, wait_s=5).data == b"more\n"
    assert kubelet.asked == [], "the first attempt's log is not read again, the second's answer is open"


def test_two_who_follow_at_different_places_each_get_all(read: Any, kubelet: Kubelet) -> None:
    kubelet.pods["a"] = b"x" * 5000
    slow, fast = 0, read(0, wait_s=5).next_offset
    while fast < 5000:
        fast = read(fast, wait_s=5).next_offset
    while slow < 5000:
        chunk = read(slow, limit_bytes=700, wait_s=5)
        assert chunk.data
        slow = chunk.next_offset
    kubelet.pods["a"] += b"new"
    assert read(5000, wait_s=5).data == b"new"
    assert read(5000, wait_s=5).data == b"new"


def test_an_answer_that_broke_off_is_begun_anew_where_it_stood(read: Any, kubelet: Kubelet) -> None:
    kubelet.pods["a"] = b"before "
    offset = read(0, wait_s=5).next_offset
    kubelet.cut = True
    wait_for_break(lambda: read(offset, wait_s=0.1).data)
    kubelet.pods["a"] += b"after"
    assert read(offset, wait_s=5).data == b"after"


def wait_for_break(look: Callable[[], bytes]) -> None:
    for _ in range(100):
        try:
            look()
        except Unreachable:
            return
    pytest.fail("it did not break off")


def test_answers_that_nobody_reads_on_are_closed(api: Api, kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "TAILS_MAX", 3)
    monkeypatch.setattr(logs, "IDLE_S", 0.2)
    kept = logs.Logs(1 << 20)
    kubelet.pods["a"] = b"0123456789"
    for offset in range(8):
        assert kept.read(api, SPACE, "idf-1", None, offset, 1, 5).data == str(offset).encode()
    assert len(kept._tails) <= 3
    time.sleep(0.3)
    assert kept.read(api, SPACE, "idf-1", None, 9, 10, 5).data == b"9"
    assert [key for key, _ in kept._tails] == [(SPACE, "uid-a")]
    kept.close()
    for _ in range(100):
        if not [each for each in threading.enumerate() if each.name == "log"]:
            return
        time.sleep(0.05)
    pytest.fail("threads that read answers stayed")
