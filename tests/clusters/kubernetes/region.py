"""A small region over the throwaway pool."""

import json
from pathlib import Path

from clusters.kubernetes.layout import CLASS_LABEL, REAL_CLASS, SIMULATED_CLASS, TAINT
from clusters.region import GPU_CLASS, Region


class PoolRegion(Region):
    """A region whose only site is a pool: its jobs really run where the pool has a real node."""

    kubeconfig: Path | None = None
    """How the broker reaches the pool, if not as the pool says."""

    def write_site(self) -> Path:
        """Write the pool's enrolment as an operator would."""
        pool = self.cluster
        product = REAL_CLASS if pool.node else SIMULATED_CLASS
        toleration = f'tolerations = [{{ key = "{TAINT}" }}]\n'
        file = self.folder / "pool.toml"
        file.write_text(
            f"""# The pool as the broker reaches it; the kubeconfig lies on the broker's machine.
name = "{pool.name}"
kind = "k8s"
cluster = "{pool.name}"
isolation = "accounts"
gpus_per_job_max = 8
kill_grace_s = 5

[gpu_types]
{json.dumps(GPU_CLASS)} = "a100"

[kubernetes]
kubeconfig = "{self.kubeconfig or pool.kubeconfig("broker")}"
image = "{pool.image}"

[kubernetes.nodes.a100]
labels = {{ "{CLASS_LABEL}" = "{product}" }}
{"" if pool.node else toleration}
[kubernetes.nodes_without_gpu]
labels = {{ "{CLASS_LABEL}" = "{SIMULATED_CLASS}" }}
{toleration}"""
        )
        return file
