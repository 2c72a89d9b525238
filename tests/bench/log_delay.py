"""How long a line of a running job takes from the job to the person who follows its log, at worst in a round.

Each line is the time at which the job wrote it; the cluster and the reader share one clock. The raw side is `tail -F`
on the file, on the head node.
"""

import time
from itertools import count
from pathlib import Path

from clusters.region import Region
from clusters.slurm.cluster import SlurmCluster
from harness import Figure, at_most_more, in_turn
from site_of_bench import bench_region, follow

ROUNDS = 5
LIMIT_S = 60
LINES = 20
SCRIPT = f"#!/bin/bash\nfor _ in $(seq {LINES}); do sleep 0.3; date +%s.%N; done\n"
_numbers = count(1)


def measure() -> list[Figure]:
    with bench_region() as region:
        script = region.folder / "clock.sh"
        script.write_text(SCRIPT)
        times = in_turn(ROUNDS, lambda: ours(region, script), lambda: raw(region.cluster))
    return [at_most_more("log_delay", "s", *times, bar=1.0)]


def ours(region: Region, script: Path) -> float:
    job = follow(region, script)
    assert job.stdout is not None
    delays = []
    for line in job.stdout:
        delays.append(time.time() - float(line))
    if job.wait() != 0 or len(delays) != LINES:
        raise RuntimeError(f"{len(delays)} of the job's {LINES} lines came")
    _rest()
    return max(delays)


def raw(cluster: SlurmCluster) -> float:
    loop = (
        'cd "$HOME"; f=raw-$1.log; touch "$f"; '
        'sbatch --quiet --gpus=a100:1 --time=1 --output="$f" || exit 1; '
        'exec 3< <(exec tail -F "$f" 2>/dev/null); tail=$!; '
        f'for _ in $(seq {LINES}); do read -r written <&3; echo "$written $(date +%s.%N)"; done; kill $tail'
    )
    words = ["bash", "-c", loop, "raw", str(next(_numbers))]
    done = cluster.run(words, user=cluster.accounts[0], input=SCRIPT.encode(), timeout=LIMIT_S)
    times = [line.split() for line in done.stdout.splitlines()]
    if len(times) != LINES:
        raise RuntimeError(f"not the job's lines: {done.stdout!r} {done.stderr!r}")
    _rest()
    return max(float(read) - float(written) for written, read in times)


def _rest() -> None:
    """Let the job leave its node."""
    time.sleep(2)
