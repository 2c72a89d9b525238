"""The command `award import`: a cohort's awards from a CSV file, all or none."""

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import Row, connect
from cli.exits import Exit, Failure
from cli.options import Json
from cli.output import as_json, note, one_line, say
from cli.units import hours_text

app = typer.Typer()
FILE_BYTES_MAX = 2 * 1024 * 1024
TEMPLATE = """\
organisation,full_name,siret,foreign_country,foreign_id,kind,size,naf,departement,project,lead,lead_full_name,\
lead_email,hours,from,to,confidentiality,nature,act_reference,act_on,declared_on,declaration
acme,Acme SAS,73282932000074,,,company,pme,62.01Z,75,acme-vision,ines,Inès Martin,\
ines@acme.example,100,2027-01-01,2027-06-30,internal,none,CP 2026-101,2026-11-18,2026-11-02,GED 2026/17
nordlicht,Nordlicht GmbH,,DE,DE811569869,company,eti,,,nordlicht-sprache,lena,Lena Vogel,\
lena@nordlicht.example,250.5,2027-01-01,2027-06-30,public,none,CP 2026-101,2026-11-18,2026-11-03,GED 2026/18
"""


@app.command("import")
def import_awards(
    file: Annotated[Path | None, typer.Argument(metavar="FILE.csv", help="UTF-8, with a header.")] = None,
    *,
    of_programme: Annotated[str | None, typer.Option("--programme", help="Whose awards they are.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print a file to begin with.")] = False,
    in_json: Json = False,
) -> None:
    """Grant a cohort's awards from a CSV file, with new organisations, projects and leads: all or none.

    declared_on and declaration say that a company declared it had no State aid; one that had some is entered before,
    by `aid declare`. The same file again within 24 hours gets the first answer and grants nothing twice.

    \b
    Example:
      idf-compute award import --template > cohort.csv
      idf-compute award import cohort.csv --programme pack-ia-2026 --dry-run
    """
    if template:
        say(as_json({"template": TEMPLATE}) if in_json else TEMPLATE.rstrip("\n"))
        return
    if file is None or of_programme is None:
        raise Failure(Exit.USAGE, "a file and --programme are needed", "idf-compute award import --help")
    text = _read(file)
    body = {"programme": of_programme, "csv": text, "dry_run": dry_run}
    key = None if dry_run else f"import-{sha256(f'{of_programme} {text}'.encode()).hexdigest()}"
    try:
        made = connect().post("/v1/awards/import", body, key=key)
    except Failure as failure:
        if not in_json and failure.problem and failure.problem.get("rows"):
            _reasons(failure.problem["rows"])
        raise
    if in_json:
        say(as_json(made))
    else:
        _made(made)


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Failure(Exit.USAGE, f"cannot read {file}: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise Failure(Exit.USAGE, f"{file} is larger than 2 MiB", "split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Failure(Exit.USAGE, f"{file} is not UTF-8", "save it as CSV UTF-8, or convert it with iconv") from None


def _reasons(rows: list[Row]) -> None:
    """Print every reason why rows are refused, whole: a table would cut them at a terminal's width."""
    for row in rows:
        where = f"line {row['line']}" + (f", {one_line(row['column'])}" if row["column"] else "")
        say(f"{where}: {one_line(row['rule'])}")
        if row["remedy"]:
            say(f"  {one_line(row['remedy'])}")


def _made(made: Row) -> None:
    would = "would be" if made["dry_run"] else "are"
    say(f"{made['rows']} awards {would} granted in {one_line(made['programme'])}: {hours_text(made['amount_credits'])}")
    for kind in ("organisations", "projects", "persons"):
        say(f"  {kind:<14}{_some(made[kind])}")
    say(f"  {'left to award':<14}{hours_text(made['left_credits'])}")
    if made["dry_run"]:
        note("nothing was written; leave --dry-run out to do it")


def _some(names: list[Any]) -> str:
    """Write how many are new, and the first of them."""
    if not names:
        return "none is new"
    more = f", … {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} new: {', '.join(map(one_line, names[:5]))}{more}"
