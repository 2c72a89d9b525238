"""A project's namespace from its making to its removal, which waits for what is not booked yet."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from integration.slurm_jobs import fresh, spec, wait_for
from integration.test_kubernetes_jobs import ended, has_run, send

from adapters.k8s import K8sPool, K8sUpkeep, upkeep
from adapters.port import AttemptState, Unreachable
from adapters.upkeep import Expected, Severity

if TYPE_CHECKING:
    from clusters.kubernetes.pool import KubernetesPool

pytestmark = pytest.mark.kubernetes
EXPECTED = Expected(True, [], [], ["v100"], None, 3600)


@pytest.fixture
def site(k8s_site: "Callable[..., K8sPool]") -> K8sPool:
    return k8s_site()


@pytest.fixture
def kept(site: K8sPool) -> Iterator[K8sUpkeep]:
    made = K8sUpkeep(site._settings)
    yield made
    made.close()


def exists(pool: "KubernetesPool", name: str) -> bool:
    return any(space.metadata.name == name for space in pool.core().list_namespace().items)


def test_a_namespace_is_opened_closed_and_wiped_once_all_is_booked(
    site: K8sPool, kept: K8sUpkeep, real_node: "KubernetesPool", monkeypatch: pytest.MonkeyPatch
) -> None:
    account = fresh("idf-leaving")
    kept.open_account(account, "idf-group")
    kept.open_account(account, "idf-group")
    policies = real_node.core().read_namespace(account).metadata.labels
    assert policies["pod-security.kubernetes.io/enforce"] == "restricted"
    job = send(site, spec(account, "sleep 100\n"))
    wait_for(lambda: has_run(site, job), limit_s=60)
    kept.close_account(account)
    assert ended(site, job).state is AttemptState.CANCELLED
    monkeypatch.setattr(upkeep, "GONE_S_MAX", 2.0)
    with pytest.raises(Unreachable, match="not booked"):
        kept.wipe(account)
    assert ended(site, job).elapsed_s > 0, "what it used is still told"
    site.forget([job])
    wait_for(lambda: not exists(real_node, account), limit_s=60)
    kept.wipe(account)
    kept.close_account(account)


def test_an_audit_finds_a_fit_pool_fit_and_says_what_it_did_not_try(kept: K8sUpkeep) -> None:
    audit = kept.audit(EXPECTED)
    assert not audit.problems
    assert [(finding.code, finding.severity) for finding in audit.findings] == [("network-not-proven", Severity.ADVICE)]
    assert audit.proven is None


def test_there_is_no_cumulative_limit_to_set(kept: K8sUpkeep) -> None:
    assert kept.limit_groups({"idf-group": 5}) == {}
