"""How long the command line takes from nothing: against `python -c pass` of the same environment."""

import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness import Figure, at_most_times, in_turn

ROUNDS = 15
PROGRAM = str(Path(sys.executable).parent / "idf-compute")
NOW = "2026-01-05T08:00:00Z"
JOB = {
    "id": "job-0000000000000000", "name": "train", "person": "ines", "project": "vision", "award": "awd-0",
    "site": "teratec", "state": "running", "reason": None, "gpus": 2, "gpu_class": "a100-80", "nodes": 1,
    "time_limit_s": 3600, "site_job_id": "17", "created_at": NOW, "started_at": NOW, "ended_at": None,
    "settled_at": None, "cancel_requested_at": None, "held_credits": 14_640_000, "charged_credits": None,
    "exit_code": None, "notices": [], "hidden": [],
}  # fmt: skip


def measure() -> list[Figure]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder) / "token"
        token.write_text("idf_000000000000_secret\n")
        token.chmod(0o600)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("IDF_", "PYTHON"))},
            "IDF_COMPUTE_URL": f"http://127.0.0.1:{server.server_port}",
            "IDF_COMPUTE_TOKEN_FILE": str(token),
            "IDF_COMPUTE_CONFIG": str(Path(folder) / "none.toml"),
            "TERM": "xterm-256color",
        }
        figures = [
            _against("version", [PROGRAM, "--version"], environment, bar=3),
            _against("jobs", [PROGRAM, "jobs"], environment, bar=15),
            _against("jobs_tty", [PROGRAM, "jobs"], environment, bar=25, terminal=True),
        ]
    server.shutdown()
    return figures


def _against(
    figure: str, command: Sequence[str], environment: Mapping[str, str], *, bar: float, terminal: bool = False
) -> Figure:
    ours = lambda: _seconds(command, environment, terminal)  # noqa: E731
    raw = lambda: _seconds([sys.executable, "-c", "pass"], environment, terminal)  # noqa: E731
    return at_most_times(figure, "s", *in_turn(ROUNDS, ours, raw), bar=bar)


def _seconds(command: Sequence[str], environment: Mapping[str, str], terminal: bool) -> float:
    began = time.perf_counter()
    if terminal:
        status = _on_terminal(command, environment)
    else:
        status = subprocess.run(command, env=dict(environment), stdout=subprocess.PIPE, check=False).returncode
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}")
    return time.perf_counter() - began


def _on_terminal(command: Sequence[str], environment: Mapping[str, str]) -> int:
    master, slave = pty.openpty()
    child = subprocess.Popen(command, env=dict(environment), stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    try:
        while os.read(master, 65536):
            pass
    except OSError:  # the terminal's last writer is gone
        pass
    os.close(master)
    return child.wait()


class _Answers(BaseHTTPRequestHandler):
    """A broker that knows fifty jobs."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"items": [JOB] * 50, "next_cursor": None}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass
