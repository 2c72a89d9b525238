"""A broker with its worker in one process, under load, for tests that kill it: `churn.py URL FOLDER TOKEN`.

It submits, cancels, starts and ends jobs on a site in memory as quickly as it can, until it is killed. What
it had at its site dies with it, as with a cluster that lost its disks: the next process finds those jobs gone.
"""

import random
import sys
import threading
import time
from pathlib import Path
from uuid import uuid4

from fastapi.testclient import TestClient

from adapters.fake import FakeScheduler
from adapters.fake_upkeep import FakeUpkeep
from adapters.port import AttemptState
from broker.app import create_app
from broker.bootstrap import bootstrap
from broker.logs import configure_log
from broker.settings import Settings
from broker.worker import Worker
from storage.tables import utcnow

ENDS = (AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.NODE_FAILED)


def main(url: str, folder: str, token: str) -> None:
    scheduler = FakeScheduler(now=utcnow(), gpus_total=32)
    settings = Settings(
        data_dir=Path(folder),
        database_url=url,
        allow_loopback_sites=True,
        reconcile_interval_s=0.05,
        dispatch_interval_s=0.05,
        dispatch_timeout_s=5,
    )
    configure_log("error")
    services = bootstrap(settings, make_scheduler=lambda _site: scheduler, make_upkeep=lambda _site: FakeUpkeep())
    Worker(services).start()
    with TestClient(create_app(services), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        for _ in range(3):
            threading.Thread(target=submit_for_ever, args=(client,), daemon=True).start()
        print("ready", flush=True)
        while True:
            live(scheduler)


def submit_for_ever(client: TestClient) -> None:
    chance = random.Random()
    while True:
        body = {"project": "vision", "arguments": ["true"], "gpus": chance.randint(1, 4), "time_limit_s": 600}
        made = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": str(uuid4())})
        if made.status_code == 201 and chance.random() < 0.3:
            path = f"/v1/jobs/{made.json()['id']}/cancel"
            client.post(path, headers={"Idempotency-Key": str(uuid4())})


def live(scheduler: FakeScheduler) -> None:
    """Let the site's jobs start, run for a while and end in one way or another, sometimes beyond their hold."""
    chance = random.Random()
    scheduler.advance(chance.choice((1, 20, 300)))
    running = [job for job in list(scheduler.jobs.values()) if job.attempts[-1].state is AttemptState.RUNNING]
    for job in running[:4]:
        scheduler.finish(job.spec.name, chance.choice(ENDS))
    time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
