"""`POST /v1/jobs` with its hold committed, at 8 clients, against a bare route that commits one row.

Both are FastAPI on uvicorn in a process of its own, on SQLite with `synchronous=FULL`; both validate the
same body. Ours has the token, idempotency, award, hold, chain, job, payload and event on top.
"""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from clusters.region import free_port
from harness import Figure, at_least, in_turn, progress

CLIENTS = 8
REQUESTS = 60
"""Per client and round."""
ROUNDS = 7
BODY = {
    "project": "vision",
    "script": "#!/bin/bash\n" + "# a line of an ordinary training script\n" * 20 + "python train.py\n",
    "gpus": 1,
    "time_limit_s": 600,
    "environment": {"EPOCHS": "3"},
}


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        with served("ours", Path(folder)) as (ours, token), served("bare", Path(folder)) as (bare, _):
            latencies: list[float] = []
            rates = in_turn(ROUNDS, lambda: round_of(ours, token, latencies), lambda: round_of(bare, "", []))
    latencies.sort()
    p99_ms = latencies[int(len(latencies) * 0.99)] * 1000
    progress(
        f"ours: median {statistics.median(latencies) * 1000:.1f} ms, p99 {p99_ms:.1f} ms over {len(latencies)} requests"
    )
    return [at_least("accept", "jobs/s", *rates, bar=0.5)]


@contextmanager
def served(which: str, folder: Path) -> Iterator[tuple[int, str]]:
    """Serve one side in a process of its own; gives its port and a token."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("accept_servers.py")), which, str(folder), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        token = server.stdout.readline().strip()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port, token
    finally:
        server.terminate()
        server.wait()


def round_of(port: int, token: str, latencies: list[float]) -> float:
    """Return accepted jobs per second of one round."""
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda _: client(port, token, latencies), range(CLIENTS)))  # raises what a client raised
    return CLIENTS * REQUESTS / (time.perf_counter() - began)


def client(port: int, token: str, latencies: list[float]) -> None:
    """Send requests over one connection; plain sockets, so that the client costs next to nothing."""
    body = json.dumps(BODY).encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(REQUESTS):
            head = (
                f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
                f"Idempotency-Key: {uuid4()}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            began = time.perf_counter()
            connection.sendall(head.encode() + body)
            answer = read_answer(connection)
            latencies.append(time.perf_counter() - began)
            if not answer.startswith(b"HTTP/1.1 201"):
                raise RuntimeError(answer[:500].decode())


def read_answer(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, rest = data.partition(b"\r\n\r\n")
    length = int(
        next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1]
    )
    while len(rest) < length:
        rest += connection.recv(65536)
    return data
