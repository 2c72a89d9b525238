"""The one composition root: settings in, services out. Nothing happens at import anywhere else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from adapters.port import Scheduler
from adapters.upkeep import Upkeep
from broker.letters import LogPostman, Postman
from broker.schemas import SiteIn
from broker.schemas.kubernetes import KubernetesIn, NodesIn
from broker.settings import Settings
from broker.starts import Estimates
from quotas.writer import LedgerWriter
from storage.database import Database

if TYPE_CHECKING:
    from adapters.k8s import K8sSettings
    from adapters.slurm import SlurmSettings


class Bell:
    """Wakes the workers of this process when there is something to send."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0

    def ring(self) -> None:
        """Wake everybody who waits."""
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def wait(self, heard: int, timeout_s: float) -> int:
        """Wait for a ring after the `heard`th, at most `timeout_s`; return how many there were."""
        with self._condition:
            self._condition.wait_for(lambda: self._rings > heard, timeout_s)
            return self._rings


Adapter = TypeVar("Adapter", bound=Scheduler | Upkeep)


class Adapters(Generic[Adapter]):
    """The adapters of one port in this process, one per site and settings, opened when first needed."""

    def __init__(self, make: Callable[[SiteIn], Adapter]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._open: dict[str, tuple[SiteIn, Adapter]] = {}

    def at(self, site_id: str, settings: SiteIn) -> Adapter:
        """Return the adapter of a site; changed settings get a new one."""
        with self._lock:
            known = self._open.get(site_id)
            if known is not None and known[0] == settings:
                return known[1]
            if known is not None:
                known[1].close()
            adapter = self._make(settings)
            self._open[site_id] = (settings, adapter)
            return adapter

    @contextmanager
    def apart(self, settings: SiteIn) -> Iterator[Adapter]:
        """Open one that nobody else uses, for settings that may not come to be the site's."""
        adapter = self._make(settings)
        try:
            yield adapter
        finally:
            adapter.close()

    def close(self) -> None:
        """Close all adapters."""
        with self._lock:
            for _, adapter in self._open.values():
                adapter.close()
            self._open.clear()


@dataclass(frozen=True, slots=True)
class Services:
    """What the parts of the broker work with."""

    settings: Settings
    database: Database
    writer: LedgerWriter
    schedulers: Adapters[Scheduler]
    upkeeps: Adapters[Upkeep]
    bell: Bell
    postman: Postman
    estimates: Estimates

    def close(self) -> None:
        """Commit what waits and let go of everything."""
        self.writer.close()
        self.estimates.close()
        self.schedulers.close()
        self.upkeeps.close()
        self.database.close()


def bootstrap(
    settings: Settings,
    make_scheduler: Callable[[SiteIn], Scheduler] | None = None,
    make_upkeep: Callable[[SiteIn], Upkeep] | None = None,
) -> Services:
    """Put the parts together; `make_scheduler` and `make_upkeep` let tests bring a site of their own."""
    database = Database(settings.full_database_url())
    schedulers = Adapters[Scheduler](make_scheduler or _scheduler)
    upkeeps = Adapters[Upkeep](make_upkeep or _upkeep)
    postman, estimates = postman_of(settings), Estimates(schedulers)
    return Services(settings, database, LedgerWriter(database), schedulers, upkeeps, Bell(), postman, estimates)


def postman_of(settings: Settings) -> Postman:
    """Return who takes the notices: the mail server if one is set, else the log."""
    if settings.smtp_host is None:
        return LogPostman()
    from broker.smtp import SmtpPostman

    return SmtpPostman(settings)


def _scheduler(site: SiteIn) -> Scheduler:
    if site.kubernetes is None:
        return _slurm(site)
    from adapters.k8s import K8sPool

    return K8sPool(_k8s_settings(site, site.kubernetes))


def _upkeep(site: SiteIn) -> Upkeep:
    if site.kubernetes is None:
        return _slurm_upkeep(site)
    from adapters.k8s import K8sUpkeep

    return K8sUpkeep(_k8s_settings(site, site.kubernetes))


def _k8s_settings(site: SiteIn, pool: KubernetesIn) -> "K8sSettings":
    from adapters.k8s import K8sSettings, Kueue, NodeClass, Scratch

    def nodes(given: NodesIn) -> NodeClass:
        tolerations = tuple(toleration.model_dump(exclude_none=True) for toleration in given.tolerations)
        return NodeClass(
            given.resource,
            given.labels,
            tolerations,
            time_sliced=given.time_sliced,
            gpus_per_node=given.gpus_per_node,
            cpus_per_node=given.cpus_per_node,
        )

    without = {"": nodes(pool.nodes_without_gpu)} if pool.nodes_without_gpu is not None else {}
    return K8sSettings(
        cluster=site.cluster,
        kubeconfig=Path(pool.kubeconfig),
        context=pool.context,
        image=pool.image,
        classes={name: nodes(given) for name, given in pool.nodes.items()} | without,
        kill_grace_s=site.kill_grace_s,
        nodes_grow=pool.nodes_grow,
        scratch=Scratch(pool.scratch.storage_class, pool.scratch.gib) if pool.scratch is not None else None,
        kueue=Kueue(pool.kueue.cluster_queue, pool.kueue.api) if pool.kueue is not None else None,
        egress=tuple(pool.egress),
        keep_s=pool.keep_days * 86400,
    )


def _slurm(site: SiteIn) -> Scheduler:
    from adapters.slurm import PyslurmSettings, RestSettings, SlurmPyslurm, SlurmRest, SlurmSsh

    if site.transport == "pyslurm" and site.pyslurm_command is not None:
        return SlurmPyslurm(PyslurmSettings(cluster=site.cluster, command=tuple(site.pyslurm_command)))
    settings = _slurm_settings(site)
    if site.transport == "rest" and site.rest_url is not None:
        return SlurmRest(settings, RestSettings(site.rest_url, Path(site.rest_ca_file) if site.rest_ca_file else None))
    return SlurmSsh(settings)


def _slurm_upkeep(site: SiteIn) -> Upkeep:
    """Keep a Slurm site in order through its gateway, whatever its jobs go by."""
    from adapters.slurm import SlurmUpkeep

    return SlurmUpkeep(_slurm_settings(site))


def _slurm_settings(site: SiteIn) -> "SlurmSettings":
    from adapters.slurm import SlurmSettings, SshSettings

    reached = site.ssh
    ssh = SshSettings(
        host=reached.host,
        port=reached.port,
        user=reached.login,
        identity_file=Path(reached.identity_file),
        known_host=reached.host_key,
    )
    return SlurmSettings(cluster=site.cluster, ssh=ssh)
