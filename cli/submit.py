"""The command `submit`: a script or a command, with a folder, to be run on GPUs somewhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli import job_options, request
from cli.client import Client, Row, connect, part
from cli.exits import Exit, Failure
from cli.options import Json, classes_known, jobs_known, projects_known, sites_known
from cli.output import Column, as_json, note, one_line, say, table
from cli.sbatch import Directives, parse
from cli.units import (
    duration_s,
    duration_text,
    euros_text,
    hours_text,
    job_size_text,
    memory_mib,
    moment_text,
    tasks_text,
)

TRY = {"gpus": 1, "nodes": 1, "time_limit_s": 600, "smallest_gpu": True}
app = typer.Typer()


@app.command(context_settings={"allow_interspersed_args": False})
def submit(
    context: typer.Context,
    *,
    words: Annotated[list[str], typer.Argument(metavar="SCRIPT | -- COMMAND [ARGS]")],
    project: Annotated[
        str | None,
        typer.Option("--project", "-p", help="Who pays; needed if you are in several.", autocompletion=projects_known),
    ] = None,
    award: Annotated[str | None, typer.Option(help="Which award pays; else the one that ends first.")] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", "-G", min=0, help="In all, over all nodes; 0: none. [default: 1]")
    ] = None,
    gpu_class: Annotated[
        str | None,
        typer.Option(help="Kind of GPU; needed where several are possible.", autocompletion=classes_known),
    ] = None,
    time: Annotated[str | None, typer.Option("--time", "-t", help="At most: 90m, 2h, 1d, HH:MM:SS, D-HH.")] = None,
    nodes: Annotated[int | None, typer.Option("--nodes", "-N", min=1, help="[default: 1]")] = None,
    cpus_per_gpu: Annotated[int | None, typer.Option(min=1)] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="In all, of a job without GPU (--gpus 0).")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(min=1, help="Instead of --gpus.")] = None,
    exclusive: Annotated[bool, typer.Option("--exclusive", help="Whole nodes; they are charged whole.")] = False,
    mem: Annotated[str | None, typer.Option(help="Memory per node: 4G, 512M.")] = None,
    array: Annotated[
        str | None, typer.Option("--array", "-a", help="Run a task for each number: 0-15, 1,3,5-9:2; %4: four at once.")
    ] = None,
    mem_per_gpu: Annotated[str | None, typer.Option(help="Instead of --mem.")] = None,
    name: Annotated[str | None, typer.Option("--name", "-J", help="[default: the script's name]")] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="A variable for the job, or an environment of `env list`."),
    ] = None,
    module: Annotated[list[str] | None, typer.Option(help="An environment module to load; may be repeated.")] = None,
    container: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Run in this Apptainer image: a path, or docker://…@sha256:…")
    ] = None,
    after: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Start after this job succeeded.", autocompletion=jobs_known)
    ] = None,
    after_any: Annotated[list[str] | None, typer.Option(metavar="ID", help="… after it ended, however.")] = None,
    after_failed: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="… after it ended without success.")
    ] = None,
    begin: Annotated[str | None, typer.Option(help="Not before: +2h, 22:30, 2026-12-31T08:00.")] = None,
    signal: Annotated[
        str | None, typer.Option(metavar="SIGNAL[@SECONDS]", help="Before the time limit, to save: USR1@120.")
    ] = None,
    signal_before: Annotated[
        int | None, typer.Option(metavar="SECONDS", min=1, max=65535, help="The same with USR1.")
    ] = None,
    requeue: Annotated[
        bool | None,
        typer.Option("--requeue/--no-requeue", help="Run again after a failed node. [default: as the site does]"),
    ] = None,
    site: Annotated[str | None, typer.Option(autocompletion=sites_known, help="Run here or nowhere.")] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="Send this folder; the job starts in it.")] = None,
    attempt: Annotated[bool, typer.Option("--try", help="Ten minutes on one GPU of the smallest kind.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit with the outcome.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show the log; exit with the outcome.")] = False,
    het_group: Annotated[str | None, typer.Option(hidden=True)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; submit nothing.")] = False,
    in_json: Json = False,
) -> int:
    """Submit a script or a command to run on GPUs. A script's #SBATCH lines are taken over where they can be.

    Options stand before SCRIPT; what stands after it goes to the script.

    \b
    Example:
      idf-compute submit --try train.sbatch
      idf-compute submit --gpus 4 --gpu-class h100-80 --time 12h train.sh --epochs 3
      idf-compute submit --dir . --follow -- python train.py
      idf-compute submit --gpus 0 --cpus 16 --mem 32G --dry-run prepare.sh
      idf-compute submit --array 0-15%4 --time 1h sweep.sh
      idf-compute submit --after 01JD3X8N5E --signal-before 120 --env pytorch train.sh
    """
    if in_json and follow:
        raise Failure(Exit.USAGE, "--follow prints the log, not JSON", "use --wait --json")
    _check_one_part(het_group, words)
    variables, named = job_options.environment_fields(env or [])
    given = {
        "project": project, "award": award, "gpus": gpus, "gpus_per_node": gpus_per_node, "gpu_class": gpu_class,
        "nodes": nodes, "time_limit_s": duration_s(time) if time else None, "cpus_per_gpu": cpus_per_gpu,
        "cpus": cpus, "exclusive": exclusive or None, "name": name, "site": site, "array": array,
        "memory_mib": memory_mib(mem) if mem else None,
        "memory_per_gpu_mib": memory_mib(mem_per_gpu) if mem_per_gpu else None,
        "environment": variables or None, "named_environment": named, "modules": module or None, "container": container,
        "after": job_options.after_fields(after or [], after_any or [], after_failed or []) or None,
        "begin_at": job_options.begin_at(begin) if begin else None, "requeue": requeue,
        **_signal(signal, signal_before),
    }  # fmt: skip
    body: Row = {field: value for field, value in given.items() if value is not None}
    if attempt:
        body = _tried(body)
    script = None if _is_command(context.obj, words) else Path(words[0])
    text = None if script is None else request.read_script(script)
    client = connect()
    body = _described(client, body, script, text, words, attempt=attempt)
    if follow and "array" in body:
        raise Failure(Exit.USAGE, "each task of an array has its own log", "--wait, then: idf-compute logs ID_0")
    _warn_of_options(context, words if script else [])
    if folder is not None:
        from cli.upload import send_folder

        body["snapshot"] = send_folder(client, folder, dry_run=dry_run)
    if dry_run:
        return _plan(client, body, in_json=in_json)
    return _submitted(client, body, wait=wait, follow=follow, in_json=in_json)


def _is_command(typed: Any, words: list[str]) -> bool:
    """Say whether `--` stood right before the first word, which only the words as typed can tell."""
    before = typed[: len(typed) - len(words)] if isinstance(typed, list) else []
    return bool(before) and before[-1] == "--"


def _check_one_part(het_group: str | None, words: list[str]) -> None:
    """Refuse a heterogeneous job by name."""
    if het_group is not None or words[0] == ":":
        what = "--het-group" if het_group is not None else "parts after ':'"
        raise Failure(
            Exit.REFUSED,
            f"a heterogeneous job ({what}) is not taken",
            "submit its parts as jobs, the later with --after",
        )


def _signal(signal: str | None, before_s: int | None) -> Row:
    if signal is not None and before_s is not None:
        raise Failure(Exit.USAGE, "--signal and --signal-before say the same", "write --signal USR1@120 alone")
    if signal is not None:
        name, before_s = job_options.signal_of(signal)
        return {"signal": name, "signal_s": before_s}
    return {} if before_s is None else {"signal": "USR1", "signal_s": before_s}


def _tried(body: Row) -> Row:
    """Apply --try. Raises Failure if the same was asked for otherwise."""
    fields = ("gpus", "gpus_per_node", "gpu_class", "nodes", "time_limit_s", "cpus", "exclusive", "array")
    asked = [field for field in fields if field in body]
    if asked:
        sentence = "--try goes without --gpus, --gpu-class, --nodes, --time, --cpus, --exclusive and --array"
        raise Failure(Exit.USAGE, sentence, "leave out one side")
    return {**body, **TRY}


def _described(
    client: Client, given: Row, script: Path | None, text: str | None, words: list[str], *, attempt: bool
) -> Row:
    """Give the body of the request: what was typed, and what the script's #SBATCH lines add to it."""
    if script is None or text is None:
        return {"name": _label(Path(words[0]).name), "gpus": 1, **request.with_gpus_in_all(given), "arguments": words}
    directives = parse(text)
    if attempt:
        note("--try: ten minutes on one GPU of the smallest kind, whatever the script asks for")
        named = tuple(found for found in directives.taken if found.option.name in ("job-name", "export"))
        directives = Directives(name=directives.name, taken=named, dropped=directives.dropped)
    sites = client.pages("/v1/sites")[0] if request.needs_sites(directives, given) else []
    fields = request.merged(directives, given, sites)
    for line in request.remarks(directives, given, script):
        note(one_line(line))
    return {"name": _label(script.name), **fields, "script": text, "arguments": words[1:]}


def _label(name: str) -> str | None:
    return name[:200] if name.isprintable() and name else None


def _warn_of_options(context: typer.Context, words: list[str]) -> None:
    """Say so when an option of ours stands after the script, and thus goes to it."""
    ours = {option for parameter in context.command.params for option in parameter.opts}
    for word in words[1:]:
        if word.startswith("--") and word.split("=", 1)[0] in ours:
            note(f"{one_line(word)} stands after the script and goes to it; options of submit stand before it")


def _plan(client: Client, body: Row, *, in_json: bool) -> int:
    try:
        plan = client.post("/v1/jobs/plan", body)
    except Failure as refused:
        if not in_json and refused.problem is not None:
            _sites(refused.problem.get("sites"))
        raise
    if in_json:
        say(as_json(plan))
        return Exit.OK
    left = plan["available_credits"] - plan["held_credits"]
    tasks = f"{tasks_text(plan)} of " if plan["array"] else ""
    limit = duration_text(plan["time_limit_s"])
    say(f"would run {tasks}{job_size_text(plan)} at {one_line(plan['site'])} for at most {limit}")
    say(
        f"would hold {hours_text(plan['held_credits'])} of award {one_line(plan['award'])} of project "
        f"{one_line(plan['project'])}, leaving {hours_text(left)}"
    )
    for number, line in enumerate(plan["sum"]):
        say(f"{'' if number else 'counted:':<9} {one_line(line)}")
    say(f"{_expected(plan)}")
    _sites(plan["sites"])
    for notice in plan["notices"]:
        note(f"notice: {one_line(notice)}")
    return Exit.OK


def _sites(weighed: Any) -> None:
    """Print the sites that were weighed: what the job would come to at each, or why it is refused there."""
    if not isinstance(weighed, list) or not weighed:
        return
    columns = (
        Column("SITE"), Column("KIND", spare=3), Column("CLASS", spare=1), Column("HOURS", spare=2),
        Column("HOLDS", right=True), Column("WORTH", right=True, spare=4), Column("STARTS"), Column("VERDICT"),
    )  # fmt: skip
    table(columns, [[_or(site, name) for name in ("site", "kind", "gpu_class")] + _offered(site) for site in weighed])
    for site in weighed:
        if site["code"] is not None:
            remedy = f"; {one_line(site['remedy'])}" if site["remedy"] else ""
            say(f"{one_line(site['site'])}: {one_line(site['detail'])}{remedy}")


def _or(site: Row, name: str) -> str | None:
    return None if site[name] is None else str(site[name])


_HOURS = {"allocated": "free", "purchased": "bought"}


def _offered(site: Row) -> list[str | None]:
    """Give the cells on hours, hold, worth, start and verdict."""
    if site["code"] is not None:
        return [None, None, None, None, f"refused: {site['code']}"]
    worth, start = site["price_micro_euros"], site["expected_start_at"]
    return [
        _HOURS.get(site["contract_kind"], site["contract_kind"]),
        hours_text(site["held_credits"]),
        None if worth is None else euros_text(worth),
        "unknown" if start is None else moment_text(start),
        "chosen" if site["chosen"] else "possible",
    ]


def _expected(plan: Row) -> str:
    """Say when the job would start, by the scheduler's own estimate."""
    if plan["expected_start_at"] is None:
        return f"would start: unknown, {one_line(plan['expected_start_unknown'])}"
    return f"would start about {moment_text(plan['expected_start_at'])}, as its scheduler reckons now"


def _submitted(client: Client, body: Row, *, wait: bool, follow: bool, in_json: bool) -> int:
    job = client.post("/v1/jobs", body)
    if not in_json:
        _announce(job, quiet_stdout=follow)
    if follow:
        from cli.follow import follow as follow_log

        return follow_log(client, job["id"])
    if wait:
        return _waited(client, job, in_json=in_json)
    if in_json:
        say(as_json(job))
    return Exit.OK


def _announce(job: Row, *, quiet_stdout: bool) -> None:
    """Say which job it is: on stdout, unless that carries the log."""
    tasks = f"{tasks_text(job)} of " if job["array"] else ""
    what = f"{tasks}{job_size_text(job)} at {one_line(job['site'])}"
    bounds = f"at most {duration_text(job['time_limit_s'])}, {hours_text(job['held_credits'])} held"
    (note if quiet_stdout else say)(f"job {one_line(job['id'])}: {what}, {bounds}")
    for notice in job["notices"]:
        note(f"notice: {one_line(notice)}")


def _waited(client: Client, job: Row, *, in_json: bool) -> int:
    from cli import follow

    ended = follow.wait(client, job["id"])
    if in_json:
        say(as_json(ended or client.get(f"/v1/jobs/{part(job['id'])}")))
    return follow.interrupted(job["id"]) if ended is None else follow.outcome(ended)
