"""What the tests against a real cluster share: specs with fresh names, and waiting."""

import itertools
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.port import JobSpec, Known, Sent

_RUN = secrets.token_hex(3)
_NUMBERS = itertools.count(1)


def fresh(word: str = "idf") -> str:
    """A name that no other test, run or process has used."""
    return f"{word}-{_RUN}-{next(_NUMBERS)}"


def spec(account: str, script: str | bytes = "true\n", **changes: Any) -> JobSpec:
    """A small job of one minute."""
    data = script.encode() if isinstance(script, str) else script
    fields: dict[str, Any] = {"gpus": 1, "gpu_type": "a100", "time_limit_s": 60, "script": data}
    return JobSpec(name=changes.pop("name", None) or fresh(), account=account, **{**fields, **changes})


def recently() -> datetime:
    """A time before anything that the test sends."""
    return datetime.now(UTC) - timedelta(seconds=5)


def known(job: JobSpec, site_job_id: str) -> Known:
    return Known(job.name, job.account, site_job_id, recently() - timedelta(minutes=4))


def sent(job: JobSpec, batch: str) -> Sent:
    return Sent(job.name, job.account, batch, recently())


def wait_for(what: Callable[[], Any], limit_s: float = 30.0, every_s: float = 0.2) -> Any:
    """Return the first true answer, or fail."""
    end = time.monotonic() + limit_s
    while not (answer := what()):
        assert time.monotonic() < end, f"not within {limit_s} s"
        time.sleep(every_s)
    return answer
