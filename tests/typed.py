"""The command line in this process, typed at a region's real service on loopback."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from world import World

from broker.app import create_app


class Typed(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Type = Callable[..., Typed]


@contextmanager
def typing_at(
    region: World, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Type]:
    """Type commands as a person of the region: `run("marc", "aid", "show", "acme")`."""
    from cli import config, dispatch

    for name in [name for name in os.environ if name.startswith("IDF_COMPUTE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("IDF_COMPUTE_CONFIG", str(folder / "config.toml"))
    server = uvicorn.Server(uvicorn.Config(create_app(region.services), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < until, "the service did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def run(person: str, *words: str) -> Typed:
        config.save(config.Config(url=f"http://127.0.0.1:{port}", token=region.tokens[person]))
        capfd.readouterr()
        code = dispatch.run(list(words))
        return Typed(int(code), *capfd.readouterr())

    yield run
    server.should_exit = True
    thread.join(20)


def in_json(ran: Typed) -> Any:
    """Read what a command with `--json` printed; it must have succeeded."""
    assert ran.code == 0, ran.err
    return json.loads(ran.out)
