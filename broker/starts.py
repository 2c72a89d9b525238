"""When jobs would start, by the schedulers' own estimates: asked for outside any transaction, kept for a minute.

A site that says nothing, or not in time, is no worse for it than unknown: it comes after those that are known.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from adapters.port import Forecast, JobSpec, Scheduler, SiteError

if TYPE_CHECKING:
    from broker.bootstrap import Adapters, Services
    from broker.submit import Plan

KEPT_S = 60
"""How long an estimate stands for jobs of the same size."""
KEPT_MAX = 1000
ASK_S_MAX = 5.0
"""How long an engineer waits for it."""
SAME = timedelta(minutes=1)
"""Estimates nearer to each other than this are no reason to prefer a site."""
LATE = datetime.max.replace(tzinfo=UTC)

Key = tuple[object, ...]
"""What an estimate depends on: the site and the job's size."""


class Estimates:
    """The estimates of this process, and the threads that ask for them."""

    def __init__(self, schedulers: "Adapters[Scheduler]") -> None:
        self._schedulers = schedulers
        self._lock = threading.Lock()
        self._kept: dict[Key, tuple[float, Future[Forecast]]] = {}
        self._pool = ThreadPoolExecutor(8, "expected-start")

    def of(self, plan: "Plan") -> Future[Forecast]:
        """Return the estimate for a plan, which may still be asked for."""
        key, now = _key(plan), time.monotonic()
        with self._lock:
            known = self._kept.get(key)
            if known is not None and now - known[0] < KEPT_S:
                return known[1]
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            asked = self._pool.submit(_ask, self._schedulers, plan)
            self._kept[key] = (now, asked)
            return asked

    def close(self) -> None:
        """Ask for nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def expected(services: "Services", plans: Sequence["Plan"]) -> list[Forecast]:
    """Return when each would start if it were submitted now; waits `ASK_S_MAX` at most for all together."""
    asked = [services.estimates.of(plan) for plan in plans]
    wait(asked, ASK_S_MAX)
    return [_said(one, plan) for one, plan in zip(asked, plans, strict=True)]


def _said(asked: "Future[Forecast]", plan: "Plan") -> Forecast:
    site = plan.placement.site.settings.name
    if not asked.done():
        return Forecast(None, f"site {site} did not answer within {ASK_S_MAX:g} s")
    return asked.result()


def _key(plan: "Plan") -> Key:
    placement, size = plan.placement, plan.placement.sized.size
    begin_at = plan.wanted.begin_at and int(plan.wanted.begin_at.timestamp()) // KEPT_S
    return (placement.site.id, placement.gpu_class, plan.time_limit_s, begin_at, size, placement.account)


def _ask(schedulers: "Adapters[Scheduler]", plan: "Plan") -> Forecast:
    """Ask the site; whatever goes wrong is a reason why it is unknown."""
    placement = plan.placement
    settings, sized = placement.site.settings, placement.sized
    if placement.account is None:
        return Forecast(None, f"the project has no account at site {settings.name} yet")
    spec = JobSpec(
        name="idf-expected-start",
        account=placement.account,
        gpus=plan.wanted.gpus,
        gpu_type=settings.gpu_types[placement.gpu_class] if plan.wanted.gpus else "",
        time_limit_s=plan.time_limit_s,
        arguments=("true",),
        nodes=plan.wanted.nodes,
        cpus_per_gpu=sized.cpus_per_gpu,
        cpus=None if plan.wanted.gpus else sized.cpus,
        memory_mib=sized.memory_mib,
        exclusive=sized.size.exclusive,
        partition=settings.partition,
        begin=plan.wanted.begin_at,
    )
    try:
        return schedulers.at(placement.site.id, settings).expected_start(spec)
    except SiteError as error:
        return Forecast(None, f"site {settings.name}: {error.reason}")
    except Exception as error:  # noqa: BLE001 - an estimate is never a reason to refuse a job
        return Forecast(None, f"site {settings.name} could not be asked: {type(error).__name__}")
