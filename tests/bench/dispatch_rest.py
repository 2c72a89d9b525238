"""From 500 jobs held to 500 ids committed, through slurmrestd, against a bare loop over slurmrestd itself.

Both sides give slurmrestd the same bodies as the same account, over as many connections at a time, into a queue that is
closed, so that submissions are measured and not jobs. The loop has the transport's own client, httpx, as one would
write it by hand: what the broker adds is measured, not what one client costs more than another.
"""

import queue
import threading
import time
from itertools import count

import httpx
from harness import Figure, at_least, in_turn
from site_of_bench import SCRIPT, BenchSite, bench_site

from adapters.port import JobSpec
from adapters.slurm.rest_client import RestSettings
from adapters.slurm.rest_jobs import job_asked, job_body
from storage.tables import utcnow

JOBS = 500
ROUNDS = 5
VERSION = "v0.0.38"
PARALLEL = RestSettings("").parallel
_numbers = count(1)


def measure() -> list[Figure]:
    with bench_site(transport="rest") as site:
        site.close_queue()
        rates = in_turn(ROUNDS, lambda: ours(site), lambda: raw(site))
    return [at_least("dispatch_rest", "jobs/s", *rates, bar=0.8)]


def ours(site: BenchSite) -> float:
    return site.dispatch_rate(site.desk(), JOBS)


def raw(site: BenchSite) -> float:
    account = site.cluster.accounts[0]
    said = site.cluster.run(["scontrol", "token", f"username={account}", "lifespan=300"]).stdout.decode()
    headers = {
        "Content-Type": "application/json",
        "X-SLURM-USER-NAME": account,
        "X-SLURM-USER-TOKEN": said.strip().removeprefix("SLURM_JWT="),
    }
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for body in _bodies(site, account):
        waiting.put(body)
    ids: list[int] = []
    loops = [threading.Thread(target=_loop, args=(site, headers, waiting, ids)) for _ in range(PARALLEL)]
    began = time.perf_counter()
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    rate = JOBS / (time.perf_counter() - began)
    if len(set(ids)) != JOBS:
        raise RuntimeError(f"slurmrestd took {len(set(ids))} of {JOBS}")
    site.empty_queue()
    return rate


def _bodies(site: BenchSite, account: str) -> list[bytes]:
    home = site.cluster.run(["sh", "-c", "echo $HOME"], user=account).stdout.decode().strip()
    deadline, number = utcnow().replace(year=2099), next(_numbers)
    bodies = []
    for index in range(JOBS):
        name = f"idf-job-{number:04}{index:012}"
        spec = JobSpec(name, account, 1, "a100", 600, script=SCRIPT.encode(), deadline=deadline)
        bodies.append(job_body(job_asked(spec, VERSION), VERSION, home, {"PATH": "/usr/bin:/bin", "HOME": home}))
    return bodies


def _loop(site: BenchSite, headers: dict[str, str], waiting: "queue.SimpleQueue[bytes]", ids: list[int]) -> None:
    base = f"http://{site.cluster.host}:{site.cluster.ports['slurmrestd']}/slurm/{VERSION}"
    with httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False) as client:
        while True:
            try:
                body = waiting.get_nowait()
            except queue.Empty:
                return
            ids.append(client.post("/job/submit", content=body).json()["job_id"])
