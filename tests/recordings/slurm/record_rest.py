"""Record what a real slurmrestd says, for the unit tests that read it without a cluster.

    python tests/recordings/slurm/record_rest.py

starts a throwaway cluster, drives jobs into as many states as it can within two minutes, and writes
`<release>/rest_{queue,accounting,controller}.json`: what slurmrestd answered, less what nobody reads.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2])]

from clusters.slurm.cluster import SlurmCluster  # noqa: E402

from adapters.port import Accepted, JobSpec, Known  # noqa: E402
from adapters.slurm import RestSettings, SlurmRest, SlurmSettings, SshSettings  # noqa: E402
from storage.tables import utcnow  # noqa: E402

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
UNREAD = {"job_resources", "gres_detail", "steps", "priority", "association_id", "show_flags"}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="idf-") as base:
        cluster = SlurmCluster.start("recorded", Path(base))
        try:
            _record(cluster)
        finally:
            cluster.stop()


def _record(cluster: SlurmCluster) -> None:
    ssh = SshSettings(
        host=cluster.host, port=cluster.ssh_port, user=cluster.login,
        identity_file=cluster.identity_file, known_host=cluster.known_host,
    )  # fmt: skip
    site = SlurmRest(SlurmSettings(cluster=cluster.name, ssh=ssh), RestSettings(cluster.slurmrestd))
    account = cluster.accounts[0]
    ids = _submit(site, [_spec(word, script, account) for word, script in SCRIPTS.items()])
    ids |= _submit(site, [_spec("waiting", "true", account, gpus=8, nodes=2)])
    array = ["sbatch", "--parsable", "--array=3-9:2%1", "--begin=now+1hour", "--job-name=array", "--wrap=true"]
    done: subprocess.CompletedProcess[bytes] = cluster.run(array, user=account)
    ids["array"] = done.stdout.decode().strip()
    time.sleep(5)
    cluster.run(["scontrol", "update", f"JobId={ids['requeued']}", "Requeue=1"])
    cluster.run(["scontrol", "requeue", ids["requeued"]])
    site.cancel([Known("idf-cancelled", account, ids["cancelled"], utcnow())])
    time.sleep(100)  # until the time limit of one minute, and Slurm's grace, are over
    version = site._version_offered()
    folder = HERE / ".".join(cluster.version.split(".")[:2])
    _write(folder / "rest_queue.json", site._get(f"/slurm/{version}/jobs").body)
    asked = {"step": ",".join(ids.values()), "skip_steps": "true"}
    _write(folder / "rest_accounting.json", site._get(f"/slurmdb/{version}/jobs", asked).body)
    _write(folder / "rest_controller.json", site._get(f"/slurm/{version}/diag").body)


def _spec(word: str, script: str, account: str, **more: Any) -> JobSpec:
    nodes = 2 if word == "two-nodes" else 1
    fields = {"gpus": nodes, "nodes": nodes, **more}
    limit_s = 60 if word == "timed-out" else 600
    return JobSpec(f"idf-{word}", account, gpu_type="a100", time_limit_s=limit_s, script=script.encode(), **fields)


def _submit(site: SlurmRest, specs: list[JobSpec]) -> dict[str, str]:
    answers = site.submit(f"recorded-{specs[0].name}", specs)
    accepted = {name: answer for name, answer in answers.items() if isinstance(answer, Accepted)}
    return {name.removeprefix("idf-"): answer.site_job_id for name, answer in accepted.items()}


def _write(file: Path, body: Any) -> None:
    kept = {key: value for key, value in body.items() if key in ("jobs", "statistics", "errors")}
    if "jobs" in kept:
        kept["jobs"] = [{key: job[key] for key in job if key not in UNREAD} for job in kept["jobs"]]
    else:
        kept["statistics"] = {key: value for key, value in kept["statistics"].items() if isinstance(value, int)}
    file.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
