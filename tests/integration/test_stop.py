"""A service that is told to stop ends, whatever is still asked of it."""

import socket
import time
from pathlib import Path

from clusters.region import Region

from broker.admin import STOP_S_MAX


def test_a_stop_does_not_wait_for_a_question_that_never_ends(tmp_path: Path) -> None:
    region = Region.make(tmp_path / "region", None)  # type: ignore[arg-type] # no site is asked
    region.start()
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: broker\r\nAuthorization: Bearer {region.token('ines')}\r\n"
    with socket.create_connection(("127.0.0.1", region.port)) as asking:
        asking.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n".encode())
        time.sleep(1)
        began = time.monotonic()
        region.stop()
        took = time.monotonic() - began
    assert took > STOP_S_MAX - 2  # region.stop() has a bound of its own
