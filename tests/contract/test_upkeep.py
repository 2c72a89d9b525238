"""What the upkeep of every site promises, asked of the one in memory and of a real Slurm."""

from collections.abc import Iterator
from typing import Protocol

import pytest
from clusters.slurm.cluster import SlurmCluster

from adapters.errors import Rejected, SiteError, Unreachable
from adapters.fake_upkeep import FakeUpkeep
from adapters.slurm import SlurmSettings, SlurmUpkeep, SshSettings
from adapters.upkeep import Expected, Upkeep


class Ground(Protocol):
    """A site's upkeep, with what is needed to see what it did."""

    upkeep: Upkeep
    pool: tuple[str, ...]
    cluster: str

    def groups(self, account: str) -> list[str]: ...

    def limit(self, group: str) -> int | None: ...

    def leave(self, account: str) -> None: ...

    def left(self, account: str) -> bool: ...

    def away(self) -> Upkeep: ...


class FakeGround:
    """In memory."""

    pool, cluster = ("idf004", "idf005", "idf006"), "fake"

    def __init__(self) -> None:
        self.upkeep = self.fake = FakeUpkeep(pool=frozenset(self.pool))

    def groups(self, account: str) -> list[str]:
        return [self.fake.open[account]] if account in self.fake.open else []

    def limit(self, group: str) -> int | None:
        return self.fake.limits.get(group)

    def leave(self, account: str) -> None:
        self.fake.left_over[account] = ["kept"]

    def left(self, account: str) -> bool:
        return account in self.fake.left_over

    def away(self) -> Upkeep:
        return FakeUpkeep(away=True)


class SlurmGround:
    """On a real cluster Slurm's own commands and the account's home tell."""

    def __init__(self, cluster: SlurmCluster) -> None:
        self.on, self.pool, self.cluster = cluster, cluster.pool, cluster.name
        self.upkeep = self._at(cluster.ssh_port)

    def _at(self, port: int) -> SlurmUpkeep:
        ssh = SshSettings(
            host=self.on.host, port=port, user=self.on.login,
            identity_file=self.on.identity_file, known_host=self.on.known_host,
        )  # fmt: skip
        return SlurmUpkeep(SlurmSettings(cluster=self.on.name, ssh=ssh), proof_s_max=90)

    def _said(self, *argv: str) -> str:
        done = self.on.run(argv)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def groups(self, account: str) -> list[str]:
        return self._said("sacctmgr", "-nP", "show", "associations", f"user={account}", "format=account").split()

    def limit(self, group: str) -> int | None:
        shown = self._said("sacctmgr", "-nP", "show", "associations", f"account={group}", "format=user,grptresmins")
        found = [line.partition("gres/gpu=")[2] for line in shown.splitlines() if line.startswith("|")]
        return int(found[0]) if found and found[0] else None

    def leave(self, account: str) -> None:
        self._said("install", "-o", account, "/etc/hostname", f"/srv/home/{account}/kept")

    def left(self, account: str) -> bool:
        return "kept" in self._said("ls", "-A", f"/srv/home/{account}")

    def away(self) -> Upkeep:
        return self._at(1)


@pytest.fixture(params=["fake", pytest.param("slurm", marks=[pytest.mark.cluster, pytest.mark.timeout(300)])])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    if request.param == "fake":
        yield FakeGround()
        return
    cluster: SlurmCluster = request.getfixturevalue("slurm_cluster")
    if cluster.isolation == "shared":
        pytest.skip(f"this cluster has one account for all: {cluster.reason}")
    made = SlurmGround(cluster)
    yield made
    made.upkeep.close_account(made.pool[2])
    made.upkeep.wipe(made.pool[2])
    made.upkeep.close()


def expected(ground: Ground, free: tuple[str, ...]) -> Expected:
    return Expected(True, ground.pool, free, ["a100"], None, 86_400)


def test_an_account_is_open_on_one_group_at_a_time(ground: Ground) -> None:
    account = ground.pool[2]
    for group in ("idf-prj-a", "idf-prj-a", "idf-prj-b"):
        ground.upkeep.open_account(account, group)
        assert ground.groups(account) == [group]


def test_a_closed_account_is_open_on_none_and_may_be_closed_again(ground: Ground) -> None:
    account = ground.pool[2]
    ground.upkeep.open_account(account, "idf-prj-a")
    ground.upkeep.close_account(account)
    assert ground.groups(account) == []
    ground.upkeep.close_account(account)


def test_only_a_closed_account_is_wiped_and_may_be_again(ground: Ground) -> None:
    account = ground.pool[2]
    ground.upkeep.open_account(account, "idf-prj-a")
    ground.leave(account)
    with pytest.raises(Unreachable, match="still open"):
        ground.upkeep.wipe(account)
    assert ground.left(account)
    ground.upkeep.close_account(account)
    assert ground.left(account), "closing takes access, not data"
    ground.upkeep.wipe(account)
    assert not ground.left(account)
    ground.upkeep.wipe(account)


def test_an_account_that_is_not_of_the_pool_is_refused(ground: Ground) -> None:
    for ask in (lambda: ground.upkeep.open_account("root", "idf-prj-a"), lambda: ground.upkeep.close_account("root")):
        with pytest.raises(Unreachable, match="no account of this site"):
            ask()
    with pytest.raises(Unreachable, match="no account of this site"):
        ground.upkeep.wipe("root")


def test_limits_are_set_one_by_one_and_refused_one_by_one(ground: Ground) -> None:
    ground.upkeep.open_account(ground.pool[2], "idf-prj-c")
    assert ground.upkeep.limit_groups({}) == {}
    refused = ground.upkeep.limit_groups({"idf-prj-c": 17, "idf-prj-nobody": 5})
    assert {group: type(error) for group, error in refused.items()} == {"idf-prj-nobody": Rejected}
    assert ground.limit("idf-prj-c") == 17
    assert ground.upkeep.limit_groups({"idf-prj-c": 0}) == {}
    assert ground.limit("idf-prj-c") == 0


def test_an_audit_proves_with_two_accounts_and_leaves_them_closed(ground: Ground) -> None:
    audit = ground.upkeep.audit(expected(ground, ground.pool))
    assert (audit.proven, audit.cluster, audit.problems) == (True, ground.cluster, ())
    assert audit.scheduler
    assert audit.array_size_max == 1001, "Slurm's own default"
    assert [ground.groups(account) for account in ground.pool] == [[], [], []]


def test_an_audit_with_one_free_account_proves_nothing(ground: Ground) -> None:
    audit = ground.upkeep.audit(expected(ground, ground.pool[:1]))
    assert audit.proven is None
    assert [finding.code for finding in audit.problems] == ["isolation-not-proven"]


def test_a_site_that_is_away_is_unreachable(ground: Ground) -> None:
    away = ground.away()
    with pytest.raises(Unreachable):
        away.audit(expected(ground, ()))
    for ask in (away.close_account, away.wipe, lambda account: away.open_account(account, "idf-prj-a")):
        with pytest.raises(SiteError):
            ask(ground.pool[0])
    assert isinstance(away.limit_groups({"idf-prj-a": 1})["idf-prj-a"], SiteError)
    away.close()
