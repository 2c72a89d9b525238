"""From 500 jobs held to 500 ids committed, over SSH, against `sbatch` itself, eight at a time on the head node.

Both sides give Slurm the same generated script and the same flags, as the same account, into a queue that
is closed, so that submissions are measured and not jobs.
"""

import time
from dataclasses import replace
from itertools import count

from harness import Figure, at_least, in_turn
from site_of_bench import SCRIPT, BenchSite, bench_site

from adapters.port import JobSpec
from adapters.slurm.wrapper import batch_script, sbatch_flags
from storage.tables import utcnow

JOBS = 500
ROUNDS = 5
_numbers = count(1)


def measure() -> list[Figure]:
    with bench_site() as site:
        site.close_queue()
        rates = in_turn(ROUNDS, lambda: ours(site), lambda: raw(site))
    return [at_least("dispatch_ssh", "jobs/s", *rates, bar=0.8)]


def ours(site: BenchSite) -> float:
    return site.dispatch_rate(site.desk(), JOBS)


def raw(site: BenchSite) -> float:
    account = site.cluster.accounts[0]
    deadline = utcnow().replace(year=2099)
    spec = JobSpec("idf-job-0000000000000000", account, 1, "a100", 600, script=SCRIPT.encode(), deadline=deadline)
    number = next(_numbers)
    names = [f"idf-job-{number:04}{index:012}" for index in range(JOBS)]
    folder = f"/tmp/raw-{number}"
    site.cluster.run(["mkdir", folder], user=account).check_returncode()
    for name in names:
        script = batch_script(replace(spec, name=name)).encode()
        site.cluster.run(["tee", f"{folder}/{name}"], user=account, input=script).check_returncode()
    home = site.cluster.run(["sh", "-c", "echo $HOME"], user=account).stdout.decode().strip()
    flags = [flag for flag in sbatch_flags(spec) if not flag.startswith("--job-name")]
    places = [f"--chdir={home}", f"--output={home}/.idf/logs/%x.log"]
    command = ["xargs", "-P8", "-I{}", "sbatch", "--parsable", *flags, *places, "--job-name={}", f"{folder}/{{}}"]
    began = time.perf_counter()
    done = site.cluster.run(command, user=account, input="\n".join(names).encode(), timeout=120, env={"TZ": "UTC"})
    rate = JOBS / (time.perf_counter() - began)
    if len(done.stdout.split()) != JOBS:
        raise RuntimeError(f"sbatch took {len(done.stdout.split())} of {JOBS}: {done.stderr[-500:].decode()}")
    site.empty_queue()
    return rate
