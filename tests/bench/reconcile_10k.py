"""One cycle over 10,000 open jobs on one site: remote commands and seconds of our own CPU."""

import resource
from unittest.mock import patch

from harness import Figure, at_most, progress
from site_of_bench import bench_site

from adapters.slurm.ssh import SshConnection
from broker.dispatch import dispatch
from broker.reconcile import reconcile

JOBS = 10_000
ROUNDS = 5


def measure() -> list[Figure]:
    with bench_site(max_jobs=JOBS + 5000) as site:
        site.close_queue()
        progress(f"holding {JOBS} jobs")
        site.hold_jobs(JOBS)
        desk = site.desk()
        sent = 0
        while sent < JOBS:
            sent += dispatch(desk)
            progress(f"sent {sent} of {JOBS}")
        reconcile(desk)  # the first look brings every job its reason; the cycles after it are the rule
        commands: list[float] = []
        cpu_s: list[float] = []
        asked = SshConnection.ask
        for _ in range(ROUNDS):
            calls = 0

            def counted(*arguments, **named):  # type: ignore[no-untyped-def]
                nonlocal calls
                calls += 1
                return asked(*arguments, **named)

            with patch.object(SshConnection, "ask", counted):
                before = _cpu_s()
                reconcile(desk)
                cpu_s.append(_cpu_s() - before)
            commands.append(calls)
            progress(f"{calls} commands, {cpu_s[-1]:.2f} s of CPU")
    return [
        at_most("reconcile_commands", "commands", commands, bar=2),
        at_most("reconcile_cpu_s", "s", cpu_s, bar=2),
    ]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
