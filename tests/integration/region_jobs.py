"""Jobs of a region that leave a trace where they run, so that a second run, or none, would show."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import httpx
from clusters.people import slurm_rows
from clusters.region import Region

WEIGHT = 2000
TIME_LIMIT_S = 300


class Jobs:
    """Jobs that write a line each into their account's home, so that a second run would show."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._file = f"ran-{uuid4().hex[:8]}"
        self.ids: list[str] = []
        headers = {"Authorization": f"Bearer {region.token('ines')}"}
        self._client = httpx.Client(base_url=f"{region.url}/v1", headers=headers, timeout=30)

    def submit(self, number: int, *, seconds: float = 0) -> list[str]:
        script = f'#!/bin/sh\necho "$SLURM_JOB_NAME" >> ~/{self._file}\nsleep {seconds}\n'
        body = {"project": "vision", "script": script, "time_limit_s": TIME_LIMIT_S}
        return [self._submit(body) for _ in range(number)]

    def _submit(self, body: Any) -> str:
        headers = {"Idempotency-Key": str(uuid4())}
        answer = self._client.post("/jobs", json=body, headers=headers).raise_for_status()
        self.ids.append(answer.json()["id"])
        return self.ids[-1]

    def wait(self, ids: Sequence[str] | None = None, *, limit_s: float = 90) -> None:
        """Wait until all are settled."""
        end = time.monotonic() + limit_s
        for id_ in self.ids if ids is None else ids:
            while (job := self.job(id_))["settled_at"] is None:
                assert time.monotonic() < end, job
                time.sleep(0.2)

    def job(self, id_: str) -> Any:
        return self._client.get(f"/jobs/{id_}").raise_for_status().json()

    def check(self) -> None:
        """Each ran once, Slurm knows one job by its name, one charge stands, and it is right."""
        tally = self.tally()
        assert not any(tally.values()), tally

    def tally(self) -> dict[str, list[str]]:
        """Name the jobs that ran or stand at the site twice, never ran, or were charged otherwise than sacct says.

        A job that Slurm put back and began again has a row for each run, all of one id: each is to be charged.
        """
        rows, ran = self.seen()
        found: dict[str, list[str]] = {"doubled": [], "lost": [], "mischarged": []}
        for id_ in self.ids:
            name = f"idf-{id_}"
            if ran[name] > 1 or len({row["JobID"] for row in rows[name]}) > 1:
                found["doubled"].append(id_)
            elif not ran[name] or not rows[name]:
                found["lost"].append(id_)
            elif not self._is_charged(id_, [int(row["ElapsedRaw"]) for row in rows[name]]):
                found["mischarged"].append(id_)
        assert set(ran) <= set(rows), "something ran that nobody had submitted"
        return found

    def seen(self) -> tuple[dict[str, list[dict[str, str]]], Counter[str]]:
        """Accounting's rows of each job, and how often its program ran, by name."""
        rows = slurm_rows(self._region, [f"idf-{id_}" for id_ in self.ids])
        users = {row["User"] for found in rows.values() for row in found}
        return rows, Counter(b"".join(self._lines_of(user) for user in users).decode().split())

    def _lines_of(self, user: str) -> bytes:
        return self._region.cluster.run(["cat", self._file], user=user).stdout

    def _is_charged(self, id_: str, elapsed_s: Sequence[int]) -> bool:
        job = self.job(id_)
        amounts = sorted((usage["elapsed_s"], usage["charged_credits"]) for usage in job["usage"])
        right = sorted((seconds, seconds * WEIGHT) for seconds in elapsed_s)
        return job["state"] == "succeeded" and amounts == right and job["charged_credits"] == sum(elapsed_s) * WEIGHT


def until(true: Callable[[], object], limit_s: float = 30) -> None:
    """Wait for something to become true, or fail."""
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, f"not within {limit_s} s"
        time.sleep(0.05)
