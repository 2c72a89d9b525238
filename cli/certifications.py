"""The operator's commands on certifications: what proves that a site's service may compute on sensitive data."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.client import Row, connect, part
from cli.options import Json, sites_known
from cli.output import Column, as_json, listed, one_line, say
from cli.units import day, first_day, last_day

app = typer.Typer()
certification = typer.Typer()
app.add_typer(certification, name="certification", help="What proves that a site may compute on sensitive data.")


class Scheme(StrEnum):
    """What a service is certified for."""

    SECNUMCLOUD = "secnumcloud"
    HDS = "hds"
    ISO_27001 = "iso-27001"


class Scope(StrEnum):
    """What of the service is certified."""

    COMPUTING = "computing"
    STORAGE = "storage"


CertificationId = Annotated[str, typer.Argument(metavar="CERTIFICATION", help="As `certification list` shows it.")]


@certification.command("add")
def add_certification(
    site: Annotated[str, typer.Argument(metavar="SITE", autocompletion=sites_known)],
    scheme: Annotated[Scheme, typer.Argument(metavar="SCHEME", help="secnumcloud, hds or iso-27001.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Of the scheme: 3.2, 2, 2022.")],
    *,
    service: Annotated[str, typer.Option(help="What was certified, in the certificate's words.")],
    scope: Annotated[list[Scope], typer.Option(help="computing, storage; may be repeated.")],
    document: Annotated[str, typer.Option(help="Where the certificate is kept.")],
    start: Annotated[str, typer.Option("--from", help="First day, in Paris.")],
    end: Annotated[str, typer.Option("--to", help="Last day, included.")],
    in_json: Json = False,
) -> None:
    """Enter a certification of a site's service; it counts once another operator confirmed it.

    \b
    Example:
      idf-compute certification add ovh-pool secnumcloud 3.2 --service "Hosted Private Cloud" \\
        --scope computing --scope storage --document "GED 2026/44" --from 2025-06-01 --to 2028-05-31
    """
    body: Row = {"site": site, "scheme": scheme.value, "version": version, "service": service, "document": document}
    body |= {"scope": [each.value for each in scope], "start_on": str(day(start)), "end_on": str(day(end))}
    _told(connect().post("/v1/certifications", body), in_json=in_json)


@certification.command("confirm")
def confirm_certification(id_: CertificationId, in_json: Json = False) -> None:
    """Confirm a certification that another operator entered, after a look at the certificate.

    \b
    Example:
      idf-compute certification confirm crt-06h0e3kz72pj7gd4
    """
    _told(connect().post(f"/v1/certifications/{part(id_)}/confirm"), in_json=in_json)


@certification.command("withdraw")
def withdraw_certification(
    id_: CertificationId,
    reason: Annotated[str, typer.Option(help="Why it counts no longer.")],
    in_json: Json = False,
) -> None:
    """Let a certification count no longer, for good. Jobs that wait at the broker go on waiting.

    \b
    Example:
      idf-compute certification withdraw crt-06h0e3kz72pj7gd4 --reason "suspended by the certifier"
    """
    _told(connect().post(f"/v1/certifications/{part(id_)}/withdraw", {"reason": reason}), in_json=in_json)


@certification.command("list")
def list_certifications(
    site: Annotated[str | None, typer.Option(help="Of this site only.", autocompletion=sites_known)] = None,
    in_json: Json = False,
) -> None:
    """List certifications of sites' services, and whether they count.

    \b
    Example:
      idf-compute certification list --site ovh-pool
    """
    columns = (
        Column("ID"), Column("SITE"), Column("SERVICE", shrinks=True, spare=2), Column("SCHEME"), Column("VERSION"),
        Column("SCOPE", spare=1), Column("FROM", spare=3), Column("TO"), Column("STATE"),
    )  # fmt: skip
    items, _ = connect().pages("/v1/certifications", {"site": site})
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda c: [
            c["id"], c["site"], c["service"], c["scheme"], c["version"], ", ".join(c["scope"]),
            str(first_day(c["start_at"])), str(last_day(c["end_at"])), c["state"],
        ],
    )  # fmt: skip


_NEXT = {"entered": "; it counts once another operator confirms it"}


def _told(answer: Row, *, in_json: bool) -> None:
    what = f"{answer['scheme']} {answer['version']} of {answer['service']} at {answer['site']}"
    sentence = f"certification {one_line(answer['id'])}, {one_line(what)}: {one_line(answer['state'])}"
    say(as_json(answer) if in_json else f"{sentence}{_NEXT.get(answer['state'], '')}")
