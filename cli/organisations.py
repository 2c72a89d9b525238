"""The programme manager's commands on organisations, and on what makes several of them one undertaking."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.client import Row, connect, part
from cli.options import Json
from cli.output import Column, as_json, listed, one_line, say
from cli.units import day

app = typer.Typer()
org = typer.Typer()
app.add_typer(org, name="org", help="Organisations that are helped.")


class Kind(StrEnum):
    """What an organisation is."""

    COMPANY = "company"
    LABORATORY = "laboratory"
    SCHOOL = "school"
    PUBLIC_BODY = "public-body"
    TEAM = "team"


class Size(StrEnum):
    """How large a company is, in French law's words: microentreprise, PME, ETI, grande entreprise."""

    MICRO = "micro"
    PME = "pme"
    ETI = "eti"
    GE = "ge"


class Fact(StrEnum):
    """A fact that may become unknown again."""

    FULL_NAME = "full-name"
    SIZE = "size"
    SIRET = "siret"
    FOREIGN = "foreign"
    NAF = "naf"
    DEPARTEMENT = "departement"


Name = Annotated[str, typer.Argument(metavar="NAME", help="Lower case letters, digits and hyphens.")]
Known = Annotated[str, typer.Argument(metavar="NAME")]
Other = Annotated[str, typer.Argument(metavar="OTHER")]
FullName = Annotated[str | None, typer.Option("--full-name", help="The name as it is shown.")]
OfSize = Annotated[Size | None, typer.Option("--size", help="Of a company, in French law's words.")]
Siret = Annotated[str | None, typer.Option(help="The establishment's SIRET, 14 digits.")]
ForeignCountry = Annotated[str | None, typer.Option("--foreign-country", metavar="CC", help="Two letters: DE, CA.")]
ForeignId = Annotated[str | None, typer.Option("--foreign-id", help="As that country writes it, such as a VAT number.")]
Naf = Annotated[str | None, typer.Option(help="NAF code: 62.01Z.")]
Departement = Annotated[str | None, typer.Option(help="Of the establishment: 75, 2A, 974.")]


def _facts(**values: Any) -> Row:
    """Give what was typed; what was not is not sent."""
    return {name: getattr(value, "value", value) for name, value in values.items() if value is not None}


@org.command("add")
def add_org(
    name: Name,
    full_name: FullName = None,
    kind: Annotated[Kind, typer.Option(help="What it is.")] = Kind.COMPANY,
    size: OfSize = None,
    siret: Siret = None,
    foreign_country: ForeignCountry = None,
    foreign_id: ForeignId = None,
    naf: Naf = None,
    departement: Departement = None,
    in_json: Json = False,
) -> None:
    """Add an organisation, known by a SIRET, by a foreign identifier, or by none yet.

    \b
    Example:
      idf-compute org add acme --size pme --siret 73282932000074 --naf 62.01Z --departement 91
      idf-compute org add passau --kind laboratory --foreign-country DE --foreign-id DE811335517
    """
    body = _facts(
        name=name, full_name=full_name, kind=kind, size=size, siret=siret, foreign_country=foreign_country,
        foreign_id=foreign_id, naf=naf, departement=departement,
    )  # fmt: skip
    _told(connect().post("/v1/organisations", body), "is added", in_json)


@org.command("set")
def set_org(
    name: Known,
    full_name: FullName = None,
    kind: Annotated[Kind | None, typer.Option(help="What it is.")] = None,
    size: OfSize = None,
    siret: Siret = None,
    foreign_country: ForeignCountry = None,
    foreign_id: ForeignId = None,
    naf: Naf = None,
    departement: Departement = None,
    clear: Annotated[list[Fact] | None, typer.Option("--clear", help="Make unknown; may be repeated.")] = None,
    in_json: Json = False,
) -> None:
    """Change what is known of an organisation; what is not named stays as it is.

    \b
    Example:
      idf-compute org set acme --siret 73282932000074 --departement 91
      idf-compute org set passau --clear foreign --siret 73282932000074
    """
    body = _facts(
        full_name=full_name, kind=kind, size=size, siret=siret, foreign_country=foreign_country,
        foreign_id=foreign_id, naf=naf, departement=departement,
    )  # fmt: skip
    cleared = [fact.value.replace("-", "_") for fact in clear or []]
    _told(connect().post(f"/v1/organisations/{part(name)}", {**body, "clear": cleared}), "is changed", in_json)


def _told(organisation: Row, what: str, in_json: bool) -> None:
    if in_json:
        say(as_json(organisation))
        return
    problem = organisation["identifier_problem"]
    say(f"organisation {one_line(organisation['name'])} {what}{f'; {one_line(problem)}' if problem else ''}")


@org.command("show")
def show_org(name: Known, in_json: Json = False) -> None:
    """Show an organisation, its links, and all that count as one undertaking with it.

    \b
    Example:
      idf-compute org show acme
    """
    seen = connect().get(f"/v1/organisations/{part(name)}")
    if in_json:
        say(as_json(seen))
        return
    for label, value in _shown(seen):
        if value is not None:
            say(f"{label:<12} {one_line(value)}")
    others = ", ".join(one_line(each) for each in seen["undertaking"] if each != seen["name"])
    say(f"{'undertaking':<12} {'one with ' + others if others else 'by itself'}")
    for link in seen["links"]:
        say(f"  {'linked with' if link['holds'] else 'not now with'} {_link_text(link)}")


def _shown(seen: Row) -> list[tuple[str, object]]:
    return [
        ("name", seen["name"]),
        ("full name", seen["full_name"]),
        ("kind", f"{seen['kind']}, size {seen['size'] or 'unknown'}"),
        ("identifier", _identifier(seen)),
        ("problem", seen["identifier_problem"] if seen["siret"] else None),
        ("NAF", seen["naf"]),
        ("département", _departement(seen)),
    ]


def _identifier(seen: Row) -> str:
    if seen["siret"]:
        return f"SIRET {seen['siret']}"
    return f"{seen['foreign_country']} {seen['foreign_id']}" if seen["foreign_id"] else "none yet"


def _departement(seen: Row) -> str | None:
    if seen["departement"] is None:
        return None
    return f"{seen['departement']} {seen['departement_name'] or '(outside Île-de-France)'}"


def _link_text(link: Row) -> str:
    until = f" to {link['to_on']}" if link["to_on"] else ""
    return f"{one_line(link['other'])} from {link['from_on']}{until}: {one_line(link['basis'])}"


@org.command("list")
def list_orgs(in_json: Json = False) -> None:
    """List organisations, with what is missing or wrong in their identifiers.

    \b
    Example:
      idf-compute org list
    """
    columns = (
        Column("NAME"), Column("FULL NAME", shrinks=True, spare=2), Column("KIND"), Column("SIZE", spare=1),
        Column("IDENTIFIER"), Column("DEPT", spare=3), Column("PROBLEM", shrinks=True),
    )  # fmt: skip
    items, _ = connect().pages("/v1/organisations")
    listed(
        items,
        in_json=in_json,
        columns=columns,
        rows=lambda o: [
            o["name"], o["full_name"], o["kind"], o["size"], _identifier(o), o["departement"],
            o["identifier_problem"] if o["siret"] else None,
        ],
    )  # fmt: skip


@org.command("link")
def link_orgs(
    name: Known,
    other: Other,
    basis: Annotated[str, typer.Option(help="What says so: a share of the capital, a declaration.")],
    start: Annotated[str | None, typer.Option("--from", help="First day, in Paris. [default: today]")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last day, included. [default: none is known]")] = None,
    in_json: Json = False,
) -> None:
    """Say that two organisations are one undertaking. Those of one SIREN are so by themselves.

    \b
    Example:
      idf-compute org link acme acme-robotics --basis "60 % of the shares" --from 2024-01-01
    """
    body = {"other": other, "basis": basis, **_days(from_on=start, to_on=end)}
    made = connect().post(f"/v1/organisations/{part(name)}/links", body)
    say(as_json(made) if in_json else f"{one_line(name)} is linked with {_link_text(made)}")


@org.command("unlink")
def unlink_orgs(
    name: Known,
    other: Other,
    on: Annotated[str | None, typer.Option(help="The last day, included. [default: yesterday]")] = None,
    in_json: Json = False,
) -> None:
    """End the link of two organisations. With the day before its first it never held.

    \b
    Example:
      idf-compute org unlink acme acme-robotics --on 2026-06-30
    """
    ended = connect().post(f"/v1/organisations/{part(name)}/links/end", {"other": other, **_days(on=on)})
    say(as_json(ended) if in_json else f"{one_line(name)} was linked with {_link_text(ended)}")


def _days(**typed: str | None) -> Row:
    return {name: str(day(text)) for name, text in typed.items() if text is not None}
