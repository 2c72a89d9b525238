"""From typing `idf-compute submit --follow` to the first line of the job's log, on an idle cluster.

The raw side is `sbatch` and a loop that reads its output file, on the head node.
"""

import time
from itertools import count
from pathlib import Path

from clusters.region import Region
from clusters.slurm.cluster import SlurmCluster
from harness import Figure, at_most_more, in_turn
from site_of_bench import bench_region, follow

ROUNDS = 9
LIMIT_S = 60
_numbers = count(1)


def measure() -> list[Figure]:
    with bench_region() as region:
        script = region.folder / "hello.sh"
        script.write_text("#!/bin/bash\necho first line\n")
        times = in_turn(ROUNDS, lambda: ours(region, script), lambda: raw(region.cluster))
    return [at_most_more("first_line", "s", *times, bar=1.5)]


def ours(region: Region, script: Path) -> float:
    began = time.perf_counter()
    job = follow(region, script)
    assert job.stdout is not None
    line = job.stdout.readline()
    took_s = time.perf_counter() - began
    if line != b"first line\n" or job.wait() != 0:
        raise RuntimeError(f"not the job's first line: {line!r}")
    _rest()
    return took_s


def raw(cluster: SlurmCluster) -> float:
    """All of it runs inside the cluster as one command, so that entering it is not counted twice."""
    loop = (
        'cd "$HOME"; f=raw-$1.log; printf "#!/bin/bash\\necho first line\\n" | '
        'sbatch --quiet --gpus=a100:1 --time=1 --output="$f" || exit 1; '
        'until [ -s "$f" ]; do sleep 0.02; done; head -n 1 "$f"'
    )
    began = time.perf_counter()
    done = cluster.run(["bash", "-c", loop, "raw", str(next(_numbers))], user=cluster.accounts[0], timeout=LIMIT_S)
    took_s = time.perf_counter() - began
    if done.stdout != b"first line\n":
        raise RuntimeError(f"not the job's first line: {done.stdout!r} {done.stderr!r}")
    _rest()
    return took_s


def _rest() -> None:
    """Let the cluster become idle again."""
    time.sleep(2)
