"""What a job counts: the largest of GPUs, CPUs and memory, whole nodes, no GPU; and which rule is in force."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from quotas.charging import (
    GPUS_ONLY,
    Rule,
    Size,
    enter_rule,
    memory_text,
    rate_credits_per_s,
    rule_at,
    rules_by_id,
    sum_lines,
)
from quotas.errors import NotChargeable, SizeUnknown
from storage.database import Database

MAY = datetime(2026, 5, 1, tzinfo=UTC)
SHARES = Rule(cpus_per_gpu=10, memory_mib_per_gpu=90 * 1024)
NODES = replace(SHARES, gpus_per_node=4, cpus_per_node=40, memory_mib_per_node=360 * 1024)
CPUS = replace(SHARES, cpu_weight_thousandths=50)
CPU_NODES = Rule(cpus_per_node=40, memory_mib_per_node=160 * 1024, cpu_weight_thousandths=50)


@pytest.mark.parametrize(
    ("size", "rate"),
    [
        (Size(2, 20, 180 * 1024), 2 * 2000),
        (Size(2, 24, 180 * 1024), 4800),
        (Size(2, 1, 1), 2 * 2000),
        (Size(1, 11, 1), 2200),
        (Size(1, 10, 90 * 1024 + 1), 2001),
        (Size(1, 40, 360 * 1024), 8000),
        (Size(1, 20, 270 * 1024), 6000),
    ],
)
def test_the_largest_counts(size: Size, rate: int) -> None:
    assert rate_credits_per_s(SHARES, size, 2000) == rate


def test_gpus_only_counts_nothing_else() -> None:
    assert rate_credits_per_s(GPUS_ONLY, Size(3, 999, 999_999), 2000) == 6000
    assert rate_credits_per_s(GPUS_ONLY, Size(3), 2000) == 6000


def test_a_part_of_a_credit_is_rounded_up() -> None:
    assert rate_credits_per_s(Rule(cpus_per_gpu=3), Size(1, 4), 1000) == 1334


@pytest.mark.parametrize("rule", [replace(NODES, whole_nodes=True), NODES])
def test_whole_nodes_count_all_that_they_hold(rule: Rule) -> None:
    asked = Size(1, 2, 1024, nodes=2, exclusive=not rule.whole_nodes)
    assert rate_credits_per_s(rule, asked, 2000) == 8 * 2000
    assert rate_credits_per_s(rule, replace(asked, cpus=None, memory_mib=None), 2000) == 8 * 2000


def test_a_node_with_more_cpus_than_its_shares_counts_them() -> None:
    assert rate_credits_per_s(replace(NODES, cpus_per_node=64), Size(1, exclusive=True), 1000) == 6400
    assert rate_credits_per_s(NODES, Size(1, 50, 1, exclusive=True), 1000) == 5000, "what was given is never hidden"


def test_whole_nodes_without_figures_for_cpus_count_what_is_known() -> None:
    rule = Rule(gpus_per_node=4)
    assert rate_credits_per_s(rule, Size(1, exclusive=True), 1000) == 4000


@pytest.mark.parametrize(
    ("rule", "size", "words"),
    [
        (GPUS_ONLY, Size(1, exclusive=True), "how many GPUs a whole node has"),
        (NODES, Size(0, 8, exclusive=True), "cannot have whole nodes that hold GPUs"),
        (CPUS, Size(0, 8, exclusive=True), "how many CPUs a whole node has"),
        (GPUS_ONLY, Size(0, 8), "no rate for jobs without GPU"),
        (SHARES, Size(0, 8), "no rate for jobs without GPU"),
    ],
)
def test_what_has_no_price_is_refused(rule: Rule, size: Size, words: str) -> None:
    with pytest.raises(NotChargeable, match=words) as caught:
        rate_credits_per_s(rule, size, 1000)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("rule", "size", "what"),
    [
        (SHARES, Size(1, None, 1), "CPUs"),
        (SHARES, Size(1, 1, None), "memory"),
        (NODES, Size(1, 1, 1, nodes=None, exclusive=True), "nodes"),
        (CPUS, Size(0, None, 1), "CPUs"),
        (CPUS, Size(0, 1, None), "memory"),
    ],
)
def test_unknown_is_not_zero(rule: Rule, size: Size, what: str) -> None:
    with pytest.raises(SizeUnknown, match=f"counts {what}"):
        rate_credits_per_s(rule, size, 1000)


@pytest.mark.parametrize("size", [Size(-1), Size(1, -1), Size(1, 1, -1), Size(1, nodes=-1)])
def test_nothing_below_zero(size: Size) -> None:
    with pytest.raises(ValueError, match="never negative"):
        rate_credits_per_s(GPUS_ONLY, size, 1000)
    with pytest.raises(ValueError, match="never negative"):
        rate_credits_per_s(GPUS_ONLY, Size(1), -1)


@pytest.mark.parametrize(
    ("rule", "size", "rate"),
    [
        (Rule(cpu_weight_thousandths=50), Size(0, 8), 400),
        (CPUS, Size(0, 8, 72 * 1024), 400),
        (CPUS, Size(0, 1, 90 * 1024), 500),
        (CPU_NODES, Size(0, 1, exclusive=True, nodes=2), 80 * 50),
    ],
)
def test_without_gpu_cpus_count_or_the_memory_that_is_theirs(rule: Rule, size: Size, rate: int) -> None:
    assert rate_credits_per_s(rule, size, 50) == rate


def test_a_contract_counts_the_same_with_its_own_weight() -> None:
    size = Size(2, 24, 1)
    assert rate_credits_per_s(SHARES, size, 1500) * 2000 == rate_credits_per_s(SHARES, size, 2000) * 1500


def test_the_sum_in_words() -> None:
    assert sum_lines(SHARES, Size(2, 24, 200 * 1024), 2000, 3600, 60) == [
        "2 GPUs",
        "24 CPUs at 10 a GPU count as 2.4",
        "200 GiB of memory at 90 GiB a GPU count as 2.223",
        "2.4 × weight 2 × (3600 + 60) s = 4.88 h (4800 credits a second)",
    ]
    assert (
        sum_lines(NODES, Size(1, nodes=2, exclusive=True), 2500, 60, 0)[0]
        == "2 whole nodes of 4 GPUs, 40 CPUs, 360 GiB"
    )
    assert sum_lines(Rule(gpus_per_node=4), Size(1, exclusive=True), 2000, 60, 0)[:2] == [
        "1 whole node of 4 GPUs",
        "4 GPUs",
    ]
    assert sum_lines(CPUS, Size(0, 1, 1024), 50, 3600, 0) == [
        "1 CPU",
        "1 GiB of memory at 90 GiB for 10 CPUs count as 0.112",
        "1 × weight 0.05 × (3600 + 0) s = 0.05 h (50 credits a second)",
    ]
    assert sum_lines(CPU_NODES, Size(0, exclusive=True), 50, 60, 0)[0] == "1 whole node of 40 CPUs, 160 GiB"
    assert memory_text(1000) == "1000 MiB"


def test_the_rule_in_force_is_the_newest_of_its_partition(database: Database) -> None:
    with database.write() as session:
        first = enter_rule(session, "sit-1", Rule(partition="gpu", valid_from=MAY, cpus_per_gpu=10)).id
        later = enter_rule(
            session, "sit-1", Rule(partition="gpu", valid_from=MAY + timedelta(days=9), cpus_per_gpu=8)
        ).id
        site = enter_rule(session, "sit-1", Rule(valid_from=MAY, cpu_weight_thousandths=50)).id
    with database.rows() as connection:

        def at(partition: str | None, day: int, site_id: str = "sit-1") -> str | None:
            return rule_at(connection, site_id, partition, MAY + timedelta(days=day)).id

        assert [at("gpu", 0), at("gpu", 8), at("gpu", 9)] == [first, first, later]
        assert at("gpu", -1) is None
        assert at("cpu", 0) == at(None, 0) == site
        assert at("gpu", 0, "sit-2") is None
        assert rule_at(connection, "sit-2", None, MAY) == GPUS_ONLY
        known = rules_by_id(connection, [first, None, site, first])
        assert set(known) == {None, first, site}
        assert known[first] == rule_at(connection, "sit-1", "gpu", MAY)
        assert rules_by_id(connection, [None]) == {None: GPUS_ONLY}


def test_a_node_holds_its_gpus_shares_unless_more_is_said(database: Database) -> None:
    with database.write() as session:
        shares = enter_rule(session, "sit-1", Rule(cpus_per_gpu=10, memory_mib_per_gpu=1024, gpus_per_node=4))
        assert (shares.cpus_per_node, shares.memory_mib_per_node) == (40, 4096)
        more = Rule(partition="b", cpus_per_gpu=10, gpus_per_node=4, cpus_per_node=64, memory_mib_per_node=7)
        said = enter_rule(session, "sit-1", more)
        assert (said.cpus_per_node, said.memory_mib_per_node) == (64, 7)
        bare = enter_rule(session, "sit-1", Rule(partition="c", gpus_per_node=4))
        assert (bare.cpus_per_node, bare.memory_mib_per_node) == (None, None)
        cpus = Rule(partition="d", cpus_per_gpu=10, memory_mib_per_gpu=1024, cpus_per_node=40)
        assert enter_rule(session, "sit-1", cpus).memory_mib_per_node == 4096


@pytest.mark.parametrize("rule", [Rule(cpus_per_gpu=0), Rule(cpu_weight_thousandths=-1), Rule(whole_nodes=True)])
def test_the_database_refuses_rules_that_make_no_sense(database: Database, rule: Rule) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        enter_rule(session, "sit-1", rule)


def test_one_rule_for_a_partition_and_moment(database: Database) -> None:
    with database.write() as session:
        enter_rule(session, "sit-1", Rule(valid_from=MAY))
    with pytest.raises(IntegrityError), database.write() as session:
        enter_rule(session, "sit-1", Rule(valid_from=MAY))
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM charging_rule")).scalar_one() == 1
