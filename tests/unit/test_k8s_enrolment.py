"""What enrolment says of a pool's clock."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from adapters.k8s.enrolment import _skew


@pytest.mark.parametrize("off_s", [-3600, -60, 60, 3600])
def test_a_clock_that_is_off_is_a_problem_with_its_number(off_s: int) -> None:
    (problem,) = _skew(format_datetime(datetime.now(UTC) + timedelta(seconds=off_s)))
    assert problem.startswith("the API server's clock is ")
    said_s = int(problem.removeprefix("the API server's clock is ").split()[0])
    assert abs(said_s - abs(off_s)) <= 2


def test_a_clock_that_is_right_is_none() -> None:
    assert list(_skew(format_datetime(datetime.now(UTC)))) == []


@pytest.mark.parametrize("date", [None, "", "soon"])
def test_a_server_that_tells_no_time_is_said_so(date: str | None) -> None:
    assert list(_skew(date)) == ["the API server does not tell its time: its clock cannot be compared"]
