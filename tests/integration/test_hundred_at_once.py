"""A hundred people at one instant, and an award that can pay for ten of them."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import uvicorn
from clusters.region import free_port
from world import JOB, World, world

from broker.app import create_app
from cli.units import paris_today

HOLD = (3600 + 60) * 2000


def test_ten_of_a_hundred_are_held_and_ninety_refused_by_name(database_url: str, tmp_path: Path) -> None:
    with world(database_url, tmp_path) as region:
        _open_project_of_ten(region)
        with _served(region) as url:
            answers = _at_once(url, region.tokens["ines"], 100)
        assert Counter((answer.status_code, answer.json().get("code")) for answer in answers) == {
            (201, None): 10,
            (422, "award-too-small"): 90,
        }
        assert all("has 0 h available" in a.json()["detail"] for a in answers if a.status_code == 422)
        award = region.award("ten")
        assert (award["available_credits"], award["held_credits"]) == (0, 10 * HOLD)
        assert len(region.get("ines", "/jobs?project=ten&limit=500")["items"]) == 10
        assert region.faults() == []


def _open_project_of_ten(region: World) -> None:
    today = paris_today()
    region.post("marc", "/projects", {"name": "ten", "organisation": "acme", "programme": "pack-ia-2026"})
    region.post("marc", "/projects/ten/members", {"person": "ines"})
    days = {"start_on": str(today - timedelta(days=1)), "end_on": str(today + timedelta(days=90))}
    region.post("marc", "/awards", {"project": "ten", "amount_credits": 10 * HOLD, **days})


@contextmanager
def _served(region: World) -> Iterator[str]:
    """The application behind a real server and real sockets."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(region.services), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.02)
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join()


def _at_once(url: str, token: str, number: int) -> list[httpx.Response]:
    barrier = threading.Barrier(number)
    answers: list[httpx.Response] = []

    def send(key: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
        with httpx.Client(timeout=60) as client:
            barrier.wait()
            answers.append(client.post(f"{url}/jobs", json={**JOB, "project": "ten"}, headers=headers))

    threads = [threading.Thread(target=send, args=(f"key-{index}",)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
