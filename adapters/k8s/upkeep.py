"""Keeping a pool in order: its audit, and the projects' namespaces from their making to their removal."""

import time
from collections.abc import Mapping

from adapters.errors import SiteError, Unreachable
from adapters.k8s.client import Json, NotFound
from adapters.k8s.manifests import CANCELLED, SELECTOR, TOMBSTONE, require_namespace
from adapters.k8s.scheduler import K8sPool
from adapters.k8s.settings import K8sSettings
from adapters.k8s.states import utcnow
from adapters.upkeep import Audit, Expected, Finding, Severity

GONE_S_MAX = 60.0
"""How long a wipe waits for a namespace to go; after that it is asked for again."""
LOOK_S = 0.5


class K8sUpkeep:
    """A pool as an operator keeps it; the second port (adapters/upkeep.py)."""

    def __init__(self, settings: K8sSettings) -> None:
        self._pool = K8sPool(settings)

    def audit(self, expected: Expected) -> Audit:
        """See the port. That namespaces are apart is what the admission policy and the network policy promise; no
        crossing is tried, since nothing of ours enforces the latter: that is advice.
        """
        facts = self._pool.check()
        remedy = "see docs/operating.md, A Kubernetes pool"
        findings = [Finding("pool-unfit", Severity.PROBLEM, sentence, remedy) for sentence in facts.problems]
        findings.append(
            Finding(
                "network-not-proven",
                Severity.ADVICE,
                "that the pool's network keeps projects apart was not tried",
                "let its admin confirm that its network plugin enforces network policies",
            )
        )
        return Audit(facts.scheduler, facts.cluster, tuple(findings), None, facts.array_size_max)

    def open_account(self, account: str, group: str) -> None:
        """See the port: its namespace is made, with all that confines it."""
        self._pool.require_space(account)

    def limit_groups(self, gpu_minutes: Mapping[str, int]) -> Mapping[str, SiteError]:
        """See the port. Kubernetes counts what runs, never what was used: there is nothing to set."""
        return {}

    def close_account(self, account: str) -> None:
        """See the port: every Job of the namespace is suspended for good."""
        require_namespace(account)
        path = f"/apis/batch/v1/namespaces/{account}/jobs"
        wish = {"metadata": {"annotations": {CANCELLED: utcnow().isoformat(timespec="seconds")}}}
        try:
            for page in self._pool.api().pages(path, labelSelector=SELECTOR):
                for job in page.get("items") or ():
                    if not _is_over(job):
                        self._pool.deactivate(account, job["metadata"]["uid"])
                        self._pool.api().patch(f"{path}/{job['metadata']['name']}", {**wish, "spec": {"suspend": True}})
        except NotFound:
            return

    def wipe(self, account: str) -> None:
        """See the port: the namespace goes, with all that lies in it; what is not booked yet holds it back."""
        require_namespace(account)
        path = f"/api/v1/namespaces/{account}"
        end = time.monotonic() + GONE_S_MAX
        try:
            self._pool.api().delete(path, {"uid": self._pool.api().get(path)["metadata"]["uid"]})
            while time.monotonic() < end:
                self._pool.api().get(path)
                time.sleep(LOOK_S)
        except NotFound:
            self._pool.forget_space(account)
            return
        raise Unreachable(f"the namespace {account} is still going: something in it is not booked yet")

    def close(self) -> None:
        """See the port."""
        self._pool.close()


def _is_over(job: Json) -> bool:
    """Say whether a Job ended, was cancelled, or never was one. A suspended one might be let go again."""
    marks = job["metadata"].get("annotations") or {}
    conditions = (job.get("status") or {}).get("conditions") or ()
    ended = any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)
    return ended or CANCELLED in marks or TOMBSTONE in marks
