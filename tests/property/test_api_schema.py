"""Whatever is sent to any operation: no fault of ours, and an answer as the OpenAPI document promises it."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import update
from world import World, world

from broker.models import Person

EXAMPLES_MAX = 25
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EVERY_ROLE = ["engineer", "manager", "operator", "auditor"]


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        with made.services.database.write() as session:
            session.execute(update(Person).where(Person.name == "ines").values(roles=EVERY_ROLE))  # type: ignore[arg-type]
        made.submit()
        yield made
        assert made.faults() == []


def test_every_operation_answers_as_promised(region: World) -> None:
    """All operations are tried before the first fault is told."""
    document = schemathesis.openapi.from_asgi("/v1/openapi.json", region.client.app)
    faults = []
    for found in document.get_all_operations():
        operation = found.ok()
        try:
            _try(region, operation.as_strategy())
        except Exception as failure:  # noqa: BLE001 - a fault of the broker's is raised through the ASGI transport as it is
            faults.append(f"{operation.label}: {failure!r} {failure}")
    assert faults == [], "\n".join(faults)


def _try(region: World, cases: SearchStrategy[Case]) -> None:
    @given(cases)
    @settings(
        max_examples=EXAMPLES_MAX,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    def answers_as_promised(case: Case) -> None:
        headers = {"Authorization": f"Bearer {region.tokens['ines']}", "Idempotency-Key": str(uuid4())}
        case.headers = {**(case.headers or {}), **headers}
        case.call_and_validate(checks=CHECKS)

    answers_as_promised()
