"""From 500 jobs held to 500 ids committed, by pyslurm, against a bare loop of pyslurm's own submit().

Both sides give Slurm the same generated script and the same fields, as the same account, into a queue that is
closed. The bare loop is timed from within, its start and its import left out.
"""

import json
from dataclasses import replace
from itertools import count

from clusters.slurm import daemons, pyslurm
from clusters.slurm.accounts import PYTHON
from harness import Figure, at_least, in_turn, progress
from site_of_bench import SCRIPT, BenchSite, bench_site

from adapters.port import JobSpec
from adapters.slurm.pyslurm_child import described
from adapters.slurm.pyslurm_site import SlurmPyslurm
from adapters.slurm.wrapper import batch_script, sbatch_flags
from storage.tables import utcnow

JOBS = 500
ROUNDS = 5
BARE = """
import json, sys, time
import pyslurm
jobs = [pyslurm.JobSubmitDescription(**fields) for fields in json.load(sys.stdin)]
began = time.perf_counter()
ids = [job.submit() for job in jobs]
print(len(set(ids)), time.perf_counter() - began)
"""
_numbers = count(1)


def measure() -> list[Figure]:
    with bench_site() as site:
        if reason := pyslurm.missing(site.cluster):
            progress(f"dispatch_pyslurm is skipped: {reason}")
            return []
        site.close_queue()
        scheduler = pyslurm.site(site.cluster)
        rates = in_turn(ROUNDS, lambda: ours(site, scheduler), lambda: bare(site))
    return [at_least("dispatch_pyslurm", "jobs/s", *rates, bar=0.8)]


def ours(site: BenchSite, scheduler: SlurmPyslurm) -> float:
    return site.dispatch_rate(replace(site.desk(), scheduler=scheduler), JOBS)


def bare(site: BenchSite) -> float:
    account = site.cluster.accounts[0]
    deadline = utcnow().replace(year=2099)
    spec = JobSpec("idf-job-0000000000000000", account, 1, "a100", 600, script=SCRIPT.encode(), deadline=deadline)
    home = site.cluster.run(["sh", "-c", "echo $HOME"], user=account).stdout.decode().strip()
    places = [f"--chdir={home}", f"--output={home}/.idf/logs/%x.log"]
    number = next(_numbers)
    specs = [replace(spec, name=f"idf-job-{number:04}{index:012}") for index in range(JOBS)]
    environment = {"TZ": "UTC", "PATH": daemons.PATH}
    fields = [described([*sbatch_flags(each), *places], batch_script(each)) for each in specs]
    fields = [{**each, "environment": environment} for each in fields]
    command = [PYTHON, "-I", "-c", BARE]
    done = site.cluster.run(command, user=account, input=json.dumps(fields).encode(), timeout=120, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"bare pyslurm failed: {done.stderr[-500:].decode()}")
    ids, elapsed_s = done.stdout.split()
    if int(ids) != JOBS:
        raise RuntimeError(f"bare pyslurm got {int(ids)} ids for {JOBS} jobs")
    site.empty_queue()
    return JOBS / float(elapsed_s)
