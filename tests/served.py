"""The broker of a test's small region behind a real port, and the command line typed against it in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from clusters.region import free_port
from world import World

from broker.app import create_app


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Typist:
    """Types `idf-compute` as one person after another."""

    def __init__(self, region: World, url: str, capture: pytest.CaptureFixture[str]) -> None:
        self._region, self._url, self._capture = region, url, capture

    def __call__(self, person: str, *words: str) -> Ran:
        from cli import config, dispatch

        config.save(config.Config(url=self._url, token=self._region.tokens[person]))
        self._capture.readouterr()
        code = dispatch.run(list(words))
        return Ran(int(code), *self._capture.readouterr())

    def done(self, person: str, *words: str) -> str:
        """Type what must succeed; returns what it printed."""
        ran = self(person, *words)
        assert ran.code == 0, ran
        return ran.out


@contextmanager
def served(
    region: World, folder: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> Iterator[Typist]:
    """Serve a region until the block ends."""
    for name in ("IDF_COMPUTE_URL", "IDF_COMPUTE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IDF_COMPUTE_CONFIG", str(folder / "cli.toml"))
    port = free_port()
    settings: Any = {"host": "127.0.0.1", "port": port, "log_level": "error", "lifespan": "off"}
    server = uvicorn.Server(uvicorn.Config(create_app(region.services), **settings))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive(), "the server ended before it began"
    try:
        yield Typist(region, f"http://127.0.0.1:{port}", capture)
    finally:
        server.should_exit = True
        thread.join(10)
