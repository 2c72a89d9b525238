"""A charging rule, for all rules and sizes: monotone, linear in the weight but for rounding, never free."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from quotas.charging import Rule, Size, counted, rate_credits_per_s

figure = st.integers(1, 1_000)
maybe = st.none() | figure
rules = st.builds(
    Rule,
    cpus_per_gpu=maybe,
    memory_mib_per_gpu=maybe,
    gpus_per_node=figure,
    cpus_per_node=maybe,
    memory_mib_per_node=maybe,
    whole_nodes=st.booleans(),
)
cpu_rules = st.builds(
    Rule, cpus_per_gpu=maybe, memory_mib_per_gpu=maybe, cpus_per_node=figure, cpu_weight_thousandths=figure
)
amounts = st.integers(1, 10_000)
sizes = st.builds(Size, gpus=amounts, cpus=amounts, memory_mib=amounts, nodes=amounts, exclusive=st.booleans())
weights = st.integers(1, 10_000)


def grown(size: Size, by: tuple[int, int, int, int]) -> Size:
    return replace(
        size,
        gpus=size.gpus + by[0],
        cpus=(size.cpus or 0) + by[1],
        memory_mib=(size.memory_mib or 0) + by[2],
        nodes=(size.nodes or 0) + by[3],
    )


growth = st.tuples(*[st.integers(0, 1_000)] * 4)


@given(rules, sizes, growth, weights)
def test_more_of_anything_never_costs_less(
    rule: Rule, size: Size, more: tuple[int, int, int, int], weight: int
) -> None:
    rate = rate_credits_per_s(rule, size, weight)
    assert rate <= rate_credits_per_s(rule, grown(size, more), weight)
    assert rate <= rate_credits_per_s(rule, replace(size, exclusive=True), weight)
    assert rate <= rate_credits_per_s(rule, size, weight + 1)


@given(cpu_rules, sizes, growth, weights)
def test_nor_without_gpu(rule: Rule, size: Size, more: tuple[int, int, int, int], weight: int) -> None:
    without, larger = replace(size, gpus=0), replace(grown(size, more), gpus=0)
    assert 0 < rate_credits_per_s(rule, without, weight) <= rate_credits_per_s(rule, larger, weight)
    assert rate_credits_per_s(rule, without, weight) >= (size.cpus or 0) * weight


@given(rules, sizes, weights)
def test_it_is_the_largest_rounded_up_to_the_credit(rule: Rule, size: Size, weight: int) -> None:
    assume(not (rule.whole_nodes or size.exclusive))
    exact = [
        size.gpus * weight,
        (size.cpus or 0) * weight / (rule.cpus_per_gpu or 10**12),
        (size.memory_mib or 0) * weight / (rule.memory_mib_per_gpu or 10**12),
    ]
    rate = rate_credits_per_s(rule, size, weight)
    assert max(exact) <= rate < max(exact) + 1 + 1e-6
    assert rate == max(part.credits_per_s for part in counted(rule, size, weight))


@given(rules, sizes, weights, st.integers(1, 50))
def test_another_weight_is_the_same_sum_but_for_less_than_a_credit(
    rule: Rule, size: Size, weight: int, times: int
) -> None:
    assert 0 <= rate_credits_per_s(rule, size, weight) * times - rate_credits_per_s(rule, size, weight * times) < times


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_smallest_job_is_not_free(exclusive: bool) -> None:
    rule = Rule(cpus_per_gpu=1_000, memory_mib_per_gpu=10**9, cpus_per_node=1, cpu_weight_thousandths=1)
    assert rate_credits_per_s(rule, Size(0, 1, 1, exclusive=exclusive), 1) == 1
