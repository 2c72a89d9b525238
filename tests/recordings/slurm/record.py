"""Record what a real Slurm says through the gateway, for the unit tests that read it without a cluster.

    python tests/recordings/slurm/record.py
    IDF_TEST_SLURM=/opt/slurm-25.11 python tests/recordings/slurm/record.py

starts a throwaway cluster, drives jobs into as many states as it can within two minutes, and writes
`<release>/{observe,look_up,check,facts,submit,cancel}.txt`: each what the gateway wrote to its standard output, from
25.11 on also `expediting.txt`. IDF_TEST_SLURM names the prefix of a Slurm that is not the machine's own
(tests/README.md).
"""

import re
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from clusters.slurm.cluster import SlurmCluster  # noqa: E402

from adapters.port import Accepted, JobSpec, Known  # noqa: E402
from adapters.slurm.commands import Cancel, Check, Reply, Submit, frame  # noqa: E402
from adapters.slurm.wrapper import batch_script, sbatch_flags  # noqa: E402

SCRIPTS = {
    "succeeded": "exit 0",
    "failed": "exit 3",
    "signalled": "kill -SEGV $$",
    "timed-out": "sleep 300",
    "cancelled": "sleep 300",
    "requeued": "sleep 300",
    "running": "sleep 300",
    "two-nodes": "sleep 300",
}


class Recorder:
    """A cluster, and a folder for what it says."""

    def __init__(self, cluster: SlurmCluster) -> None:
        self.cluster = cluster
        self.account, self.other = cluster.accounts[0], cluster.accounts[-1]
        self.folder = HERE / ".".join(cluster.version.split(".")[:2])
        self.folder.mkdir(exist_ok=True)

    def ask(self, request: dict[str, object], record: str = "") -> bytes:
        said = self.cluster.run([self.cluster.gateway], user=self.cluster.login, input=frame(request), timeout=90)
        if record:
            (self.folder / f"{record}.txt").write_bytes(_without_the_machine(said.stdout))
        return said.stdout

    def submit(self, specs: list[JobSpec], batch: str, record: str = "") -> dict[str, str]:
        command = Submit(batch, specs, parallel=1, timeout_s=30, sbatch_s=20)
        answers = command.read(Reply.read(self.ask(command.request, record)))
        return {name: answer.site_job_id for name, answer in answers.items() if isinstance(answer, Accepted)}

    def record(self) -> None:
        ids = self.submit([self.spec(word) for word in SCRIPTS], "recorded")
        ids |= self.submit([self.spec("waiting", gpus=8, nodes=2)], "recorded-too")
        self.record_refusals()
        time.sleep(5)
        self.cluster.run(["scontrol", "update", f"JobId={ids['idf-requeued']}", "Requeue=1"])
        self.cluster.run(["scontrol", "requeue", ids["idf-requeued"]])
        self.cluster.run(["scancel", ids["idf-cancelled"]], user=self.account)
        time.sleep(100)  # until the time limit of one minute, and Slurm's grace, are over
        self.ask({"do": "observe", "ids": [*ids.values(), "99999999"]}, "observe")
        names = [*ids, "idf-nobody"]
        self.ask({"do": "look_up", "names": names, "since": int(time.time()) - 600}, "look_up")
        self.ask(Check().request, "check")
        self.ask({"do": "upkeep", "what": "facts"}, "facts")
        self.record_cancelling(ids)
        if tuple(map(int, self.folder.name.split("."))) >= (25, 11):
            self.record_expediting()

    def record_refusals(self) -> None:
        """One after another: accepted, and refused for as many reasons as are at hand."""
        odd = [
            self.spec("accepted"),
            self.spec("too-large", gpus=400),
            self.spec("no-partition", partition="nowhere"),
            self.spec("no-such-gpu", gpu_type="h999"),
            self.spec("too-much-memory", memory_mib=1 << 30),
            self.spec("too-long", time_limit_s=60 * 60 * 24 * 3000),
        ]
        self.submit(odd, "refused", "submit")

    def record_cancelling(self, ids: dict[str, str]) -> None:
        known = [(ids["idf-running"], self.account), (ids["idf-succeeded"], self.account), ("99999999", self.account),
                 (ids["idf-waiting"], self.other)]  # fmt: skip
        when = datetime.now(UTC)
        jobs = [Known(f"idf-{job}", account, job, when) for job, account in known]
        self.ask(Cancel(jobs).request, "cancel")

    def record_expediting(self) -> None:
        """A state of 25.11: a failed job whose epilog decides whether it runs again at once on the same nodes."""
        epilog = self.cluster.folder / "etc/epilog"
        epilog.write_text("#!/bin/sh\nsleep 20\nexit 1\n")
        epilog.chmod(0o755)
        with (self.cluster.folder / "etc/slurm.conf").open("a") as settings:
            inside = self.cluster.slurm_conf.replace("slurm.conf", "epilog")
            settings.write(f"\nSlurmctldParameters=enable_expedited_requeue\nEpilog={inside}\n")
        self.cluster.run(["scancel", "--user", self.account])
        self.cluster.run(["scontrol", "reconfigure"]).check_returncode()
        self.cluster.wait_ready()
        words = ["--parsable", "--requeue=expedite", "--job-name=idf-expediting", "--output=/dev/null", "--time=5"]
        script = b"#!/bin/sh\nsleep 2\nexit 1\n"
        done = self.cluster.run(["sbatch", *words, "--gpus-per-node=a100:1"], user=self.account, input=script)
        job = done.stdout.decode().strip()
        end = time.monotonic() + 60
        while b"EXPEDITING" not in self.cluster.run(["squeue", "-h", "-j", job, "-O", "State"]).stdout:
            if time.monotonic() > end:
                raise RuntimeError(f"job {job} was not seen expediting: {done.stderr.decode()}")
            time.sleep(0.5)
        self.ask({"do": "observe", "ids": [job]}, "expediting")

    def spec(self, word: str, **changes: object) -> JobSpec:
        fields: dict[str, object] = {"gpus": 1, "gpu_type": "a100", "time_limit_s": 600}
        if word == "timed-out":
            fields["time_limit_s"] = 60
        if word == "two-nodes":
            fields |= {"gpus": 2, "nodes": 2}
        script = SCRIPTS.get(word, "exit 0").encode()
        spec = JobSpec(name=f"idf-{word}", account=self.account, script=script, **{**fields, **changes})  # type: ignore[arg-type]
        assert batch_script(spec)
        assert sbatch_flags(spec)
        return spec


def _without_the_machine(said: bytes) -> bytes:
    """Leave out where it was recorded: lines of the configuration that hold hosts, ports and paths."""
    said = re.sub(rb"(Slurmctld(Host|Addr)[^\\]*|BOOT_TIME[^\\]*|PluginDir[^\\]*)\\n", b"", said)
    return re.sub(rb"(Slurmctld\([a-z0-9]+\) at )[^ ]+", rb"\1controller", said)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="idf-") as base:
        started = SlurmCluster.start("recorded", Path(base))
        try:
            Recorder(started).record()
        finally:
            started.stop()
