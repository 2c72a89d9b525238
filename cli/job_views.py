"""What the commands about submitted jobs do. They import no Typer, so that the short way to them is short."""

import sys
from typing import Any

from cli.client import Client, Row, connect, part, path_of, task_of
from cli.exits import Exit, Failure, has_ended
from cli.output import Column, as_json, listed, note, one_line, say
from cli.units import duration_text, euros_text, hours_text, job_size_text, moment, moment_text, tasks_text

STATES = (
    *("held", "dispatching", "queued", "running", "succeeded", "failed", "cancelled", "timed_out"),
    *("out_of_memory", "node_failed", "preempted", "lost"),
)
COLUMNS = (
    Column("ID"),
    Column("NAME", shrinks=True),
    Column("PROJECT", spare=2, shrinks=True),
    Column("STATE"),
    Column("GPUS"),
    Column("SITE", spare=3, shrinks=True),
    Column("SUBMITTED", spare=4),
    Column("RAN", right=True),
    Column("CHARGE", right=True, spare=1),
)
TASK_COLUMNS = (
    Column("TASK", right=True),
    Column("STATE"),
    Column("EXIT", right=True, spare=2),
    Column("RAN", right=True),
    Column("CHARGE", right=True, spare=1),
    Column("REASON", shrinks=True),
)
LISTED_MAX = 10_000


def jobs(project: str | None, state: str | None, limit: int, every: bool, in_json: bool) -> None:
    """Print the newest jobs, at most `limit`."""
    if state is not None and state not in STATES:
        raise Failure(Exit.USAGE, f"there is no state {state!r}", f"one of: {', '.join(STATES)}")
    bound = LISTED_MAX if every else limit
    items, more = connect().pages("/v1/jobs", {"project": project, "state": state}, bound)
    listed(items, in_json=in_json, columns=COLUMNS, rows=_row)
    if not items and not in_json:
        note("no jobs; submit one with: idf-compute submit --try SCRIPT")
    if more:
        note(f"the newest {bound:,} are shown; more with --all or --limit")


def _row(job: Row) -> list[Any]:
    from cli.follow import ran_s

    ran = ran_s(job)
    charge = job["charged_credits"]
    submitted = moment(job["created_at"]).astimezone().strftime("%Y-%m-%d %H:%M")
    times = [
        submitted,
        None if ran is None else duration_text(ran),
        None if charge is None else hours_text(charge),
    ]
    state, size = job["state"], job_size_text(job)
    if job["array"]:
        ended = job["tasks"] - job["tasks_waiting"] - job["tasks_running"]
        state, size = f"{state} {ended}/{job['tasks']}", f"{size}, {job['tasks']} tasks"
    return [job["id"], job["name"], job["project"], state, size, job["site"], *times]


def show(job: str, tasks: bool, in_json: bool) -> None:
    """Print all about one job, or one task of an array; with `tasks` the tasks of an array too."""
    client, (_, task) = connect(), task_of(job)
    if tasks and task is not None:
        raise Failure(Exit.USAGE, f"{one_line(job)} is one task already", "leave --tasks out")
    if tasks and in_json:
        say(as_json(_tasks(client, job)))
        return
    seen = client.get(path_of(job))
    if in_json:
        say(as_json(seen))
    elif task is not None:
        _show_task(job, seen)
    else:
        _show_job(seen, _site_events(client, seen))
        if tasks:
            say("")
            listed(_tasks(client, job), in_json=False, columns=TASK_COLUMNS, rows=_task_row)


def _tasks(client: Client, job: str) -> list[Row]:
    return client.pages(f"/v1/jobs/{part(job)}/tasks", limit=LISTED_MAX)[0]


def _task_row(task: Row) -> list[Any]:
    from cli.follow import ran_s

    ran, charge = ran_s(task), task["charged_credits"]
    code = task["exit_code"]
    times = [None if ran is None else duration_text(ran), None if charge is None else hours_text(charge)]
    return [str(task["task"]), task["state"], None if code is None else str(code), *times, task["reason"]]


def _show_task(job: str, task: Row) -> None:
    state = task["state"]
    if task["cancel_requested_at"] and not has_ended(state):
        state = f"{state}, to be cancelled since {moment_text(task['cancel_requested_at'])}"
    charge = task["charged_credits"]
    facts = [
        ("task", job),
        ("state", state),
        ("reason", task["reason"]),
        ("exit code", task["exit_code"]),
        ("started", moment_text(task["started_at"])),
        ("ended", moment_text(task["ended_at"])),
        ("GPU-hours", "nothing charged yet" if charge is None else f"{hours_text(charge)} charged"),
    ]
    _say_facts(facts)
    _attempts(task)
    _say_hidden(task)


def _say_facts(facts: list[tuple[str, Any]]) -> None:
    for name, value in facts:
        if value is not None:
            say(f"{name:<10} {one_line(value)}")


def _say_hidden(seen: Row) -> None:
    if seen["hidden"]:
        say(f"\nnot shown to a project's coach: {one_line(', '.join(seen['hidden']))}")


def _site_events(client: Client, seen: Row) -> list[Row]:
    """Give what the site said of a job; nothing where there is nothing to ask, or the reader may not."""
    if not seen["site_job_id"] or seen["hidden"]:
        return []
    try:
        told = client.get(f"/v1/jobs/{part(seen['id'])}/site-events")
    except Failure:  # who sees all projects reads no engineer's events
        return []
    items: list[Row] = told["items"]
    return items


def _show_job(seen: Row, said: list[Row]) -> None:
    _say_facts([*_facts(seen), *_money(seen)])
    _timeline(seen, said)
    _attempts(seen)
    _refunds(seen)
    for notice in seen["notices"]:
        say(f"\nnotice: {one_line(notice)}")
    _say_hidden(seen)


def _facts(job: Row) -> list[tuple[str, object]]:
    where = f"{job['site']} (job {job['site_job_id']})" if job["site_job_id"] else f"{job['site']} (not sent yet)"
    state = job["state"]
    if job["cancel_requested_at"] and not has_ended(state):
        state = f"{state}, to be cancelled since {moment_text(job['cancel_requested_at'])}"
    nodes = f" on {job['nodes']} nodes" if job["nodes"] > 1 else ""
    return [
        ("job", job["id"]),
        ("name", job["name"]),
        ("state", state),
        ("tasks", _tasks_fact(job)),
        ("waits for" if not job["started_at"] and not has_ended(job["state"]) else "reason", job["reason"]),
        ("exit code", job["exit_code"]),
        ("person", job["person"]),
        ("project", f"{job['project']}, award {job['award']}"),
        ("site", where),
        ("GPUs", f"{job_size_text(job)}{nodes}, at most {duration_text(job['time_limit_s'])}"),
        ("folder", job.get("snapshot")),
        ("runs in", _tools(job)),
        ("after", ", ".join(f"{one['job']} ({one['kind']}, {one['state']})" for one in job.get("after", [])) or None),
        ("begins", _not_before(job)),
        ("starts", _expected(job)),
        ("signal", f"{job['signal']}, {job['signal_s']} s before the time limit" if job.get("signal") else None),
        ("runs", f"at most {1 + job['requeues']}, held for each" if job.get("requeues") else None),
    ]


def _tasks_fact(job: Row) -> str | None:
    if not job["array"]:
        return None
    states = ", ".join(f"{count} {state}" for state, count in job["tasks_by_state"].items())
    return f"{tasks_text(job)}: {states}"


def _tools(job: Row) -> str | None:
    """Say what is put around a job's program."""
    named = [f"environment {job['named_environment']}"] if job.get("named_environment") else []
    named += [f"module {name}" for name in job.get("modules", [])]
    named += [f"image {job['container']}"] if job.get("container") else []
    return ", ".join(named) or None


def _not_before(job: Row) -> str | None:
    begins = job.get("begin_at")
    return f"not before {moment_text(begins)}" if begins and not job["started_at"] else None


def _expected(job: Row) -> str | None:
    """Say when a job that waits at a site is expected to start, or why nobody knows."""
    if job["state"] != "queued":
        return None
    if job.get("expected_start_at"):
        return f"about {moment_text(job['expected_start_at'])}, as its scheduler reckons"
    return f"unknown: {job['expected_start_unknown']}" if job.get("expected_start_unknown") else None


def _money(job: Row) -> list[tuple[str, object]]:
    held, charge = hours_text(job["held_credits"]), job["charged_credits"]
    if charge is None and job["array"]:
        return [("GPU-hours", f"{held} held; a task that has ended is charged, and gives back its rest (--tasks)")]
    if charge is None:
        return [("GPU-hours", f"{held} held, nothing charged yet")]
    hours = f"{held} held -> {hours_text(charge)} charged, settled {moment_text(job['settled_at'])}"
    if job["refunded_credits"]:
        hours += f", {hours_text(job['refunded_credits'])} given back"
    return [("GPU-hours", hours), ("value", _worth(job["worth"]))]


def _worth(worth: Row) -> str:
    """Word a value in euros and what of it is left for the company to pay (in French: reste à charge)."""
    if worth["value_micro_euros"] is None:
        return f"unknown: {worth['unknown_reason']}"
    company, partner = worth["company_micro_euros"], worth["partner_micro_euros"]
    partners = f", partners {euros_text(partner)}" if partner else ""
    return f"{euros_text(worth['value_micro_euros'])}, of which the company pays {euros_text(company)}{partners}"


def _timeline(job: Row, said: list[Row]) -> None:
    """Draw each move with the time spent in the state that it led to, and between them what the site said."""
    events, left = job["events"], [*said]
    if events:
        say("\ntimeline")
    for event, following in zip(events, [*events[1:], None], strict=True):
        while left and moment(left[0]["at"]) < moment(event["at"]):
            _say_of_site(left.pop(0))
        lasted = ""
        if following is not None:
            lasted = duration_text(int((moment(following["at"]) - moment(event["at"])).total_seconds()))
        mark = "o" if following else ("*" if has_ended(event["state"]) else ">")
        at = moment_text(event["at"])
        say(f"  {at}  {mark} {one_line(event['state']):<13} {lasted:>10}  {one_line(event['cause'] or '')}".rstrip())
    for each in left:
        _say_of_site(each)


def _say_of_site(said: Row) -> None:
    mark, times = "!" if said["warning"] else "-", f" ({said['count']} times)" if said["count"] > 1 else ""
    say(f"  {moment_text(said['at'])}  {mark} {one_line(said['reason'])}: {one_line(said['message'])}{times}")


def _attempts(job: Row) -> None:
    if job["usage"]:
        say("\nattempts")
    for number, usage in enumerate(job["usage"], start=1):
        say(
            f"  {number}. {one_line(usage['state'])}: {job_size_text(usage)} for {duration_text(usage['elapsed_s'])}, "
            f"weight {usage['weight_thousandths'] / 1000:g}{_counted_as(usage)}"
            f" -> {hours_text(usage['charged_credits'])}, {euros_text(usage['value_micro_euros'])}"
        )


def _counted_as(usage: Row) -> str:
    """Say what an attempt counts as where that is more than its GPUs."""
    rate, weight = usage["rate_credits_per_s"], usage["weight_thousandths"]
    return f", counted as {-(-rate * 1000 // weight) / 1000:g} GPUs" if rate > usage["gpus"] * weight > 0 else ""


def _refunds(job: Row) -> None:
    if job["refunds"]:
        say("\nrefunds")
    for refund in job["refunds"]:
        given = f"{hours_text(refund['amount_credits'])}, {euros_text(refund['value_micro_euros'])}"
        why = f"{one_line(refund['reason'])}, {one_line(refund['evidence'])}"
        say(f"  {moment_text(refund['decided_at'])}  {given}: {why}")


def logs(job: str, keep_on: bool, raw: bool, offset: int, in_json: bool) -> int:
    """Print a job's log, and with `keep_on` go on to its end and give its outcome."""
    if raw and sys.stdout.isatty():
        raise Failure(
            Exit.USAGE,
            "--raw does not write to a terminal",
            "send it to a file: idf-compute logs --raw ID > log",
        )
    if in_json and (raw or keep_on):
        raise Failure(Exit.USAGE, "--json goes with neither --raw nor --follow")
    from cli import follow

    client = connect()
    if keep_on:
        return follow.follow(client, job, offset, raw=raw)
    if in_json:
        say(as_json(follow.whole_log(client, job, offset)))
    else:
        follow.print_log(client, job, offset, raw=raw)
    return Exit.OK


def cancel(ids: list[str], in_json: bool) -> int:
    """Ask for the end of each; a failure of one does not spare the others, and decides the exit code."""
    from cli.output import complain

    client, answers, worst = connect(), [], Exit.OK
    for job in dict.fromkeys(ids):
        try:
            answer = {"id": job, **client.post(f"{path_of(job)}/cancel")}
        except Failure as failure:
            complain(failure, in_json=in_json)
            worst = failure.exit_code
            continue
        answers.append(answer)
        if not in_json:
            say(_cancelled(answer))
    if in_json:
        say(as_json(answers))
    return worst


def _cancelled(job: Row) -> str:
    what = "task" if "task" in job else "job"
    if job["state"] == "cancelled":
        return f"{what} {one_line(job['id'])} is cancelled"
    if has_ended(job["state"]):
        return f"{what} {one_line(job['id'])} had ended already: {one_line(job['state'])}"
    return f"{what} {one_line(job['id'])} is {one_line(job['state'])} and will be cancelled"
