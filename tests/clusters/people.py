"""People of a region at their shells: commands with their exit codes, and what the cluster itself says."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.region import Region

PROGRAM = str(Path(sys.executable).parent / "idf-compute")
SACCT = ("sacct", "--allusers", "--noheader", "--parsable2", "--allocations", "--duplicates", "--starttime=now-1day")


@dataclass(frozen=True)
class Shell:
    """One person's shell."""

    region: Region
    person: str

    def type(self, *words: str, timeout_s: float = 60) -> "subprocess.CompletedProcess[str]":
        environment = self.region.client_environment(self.person)
        return subprocess.run(
            [PROGRAM, *words], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        environment = self.region.client_environment(self.person)
        return subprocess.Popen(
            [PROGRAM, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def json(self, *words: str) -> Any:
        own = words.index("--") if "--" in words else len(words)
        done = self.type(*words[:own], "--json", *words[own:])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def submit(self, *words: str) -> str:
        """Submit and return the job's id."""
        return str(self.json("submit", *words)["id"])


def slurm_rows(region: Region, names: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """What `sacct` itself says of jobs of these names, each attempt a row."""
    fields = ("JobName", "JobID", "State", "ElapsedRaw", "AllocTRES", "User")
    done = region.cluster.run([*SACCT, f"--format={','.join(fields)}"])
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in names}
    for line in done.stdout.decode().splitlines():
        row = dict(zip(fields, line.split("|"), strict=True))
        if row["JobName"] in rows:
            rows[row["JobName"]].append(row)
    return rows
