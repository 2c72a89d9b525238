"""The letter that tells a company of its aid, in French: the same words as a page and as text, the same at any time.

A company must be told the amount and the character of a de minimis aid, with express reference to the Regulation
(Regulation (EU) 2023/2831, art. 7(4)). The page is put together from elements, so that every text is escaped.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from unicodedata import category
from xml.etree.ElementTree import Element, SubElement, tostring

from broker.aid_settings import AidSettings
from broker.models import Organisation, Project
from quotas.aid_arithmetic import leaves_on
from quotas.amounts import CREDITS_PER_HOUR, paris_day
from quotas.models import AidLine, Award

MONTHS = (
    "janvier", "février", "mars", "avril", "mai", "juin",
    "juillet", "août", "septembre", "octobre", "novembre", "décembre",
)  # fmt: skip
KINDS = {"grant": "attribution", "supplement": "supplément", "transfer": "transfert reçu", "reduction": "reprise"}
DE_MINIMIS = (
    "règlement (UE) 2023/2831 de la Commission du 13 décembre 2023 relatif à l'application des articles 107 et 108 "
    "du traité sur le fonctionnement de l'Union européenne aux aides de minimis (JO L, 2023/2831, 15.12.2023)"
)
EXEMPTION = (
    "règlement (UE) n° 651/2014 de la Commission du 17 juin 2014 déclarant certaines catégories d'aides compatibles "
    "avec le marché intérieur en application des articles 107 et 108 du traité (JO L 187 du 26.6.2014, p. 1)"
)
REGISTERED = (
    "Cette aide sera inscrite au registre national des aides de minimis, la plateforme des aides d'État "
    "(décret n° 2025-1361 du 26 décembre 2025)."
)
STYLE = """
@page { size: A4; margin: 18mm 20mm }
body { font: 10.5pt/1.4 "Liberation Sans", Arial, sans-serif; color: #111; max-width: 170mm; margin: 0 auto }
address { font-style: normal }
header { display: flex; justify-content: space-between; gap: 20mm; margin-bottom: 8mm }
h1 { font-size: 13pt; margin: 0 0 4mm } h2 { font-size: 10.5pt; margin: 5mm 0 1mm }
p, ul { margin: 0 0 2.5mm } ul { padding-left: 5mm }
table { width: 100%; border-collapse: collapse; margin: 2mm 0 3mm; font-size: 9.5pt }
th, td { border-bottom: 0.3pt solid #888; padding: 1mm 1.5mm; text-align: left; vertical-align: top }
.figure { text-align: right } td.figure, td:first-child { white-space: nowrap }
.total td { font-weight: bold; border-bottom: none }
footer { margin-top: 8mm; text-align: right }
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a letter is about: an award with at least one line of the register."""

    award: Award
    lines: Sequence[AidLine]
    organisation: Organisation
    project: Project
    programme_name: str

    @property
    def value_micro_euros(self) -> int:
        """What the award is worth as aid, its reductions taken off."""
        return sum(line.value_micro_euros for line in self.lines)

    @property
    def first(self) -> AidLine:
        """The line of the grant itself."""
        return self.lines[0]


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter in its parts, each of them plain text."""

    sender: Sequence[str]
    addressee: Sequence[str]
    title: str
    paragraphs: Sequence[str]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: str
    duties: Sequence[str]
    notice: str | None
    closing: Sequence[str]


def letter(subject: Subject, settings: AidSettings) -> Letter:
    """Word the letter of an award."""
    return Letter(
        sender=(settings.authority, f"SIREN {_grouped(settings.authority_siren)}"),
        addressee=tuple(_addressee(subject.organisation)),
        title=_title(subject.first),
        paragraphs=tuple(_paragraphs(subject, settings)),
        header=("Date d'octroi", "Nature", "Acte", "Heures GPU normalisées × valeur × part publique", "Montant"),
        rows=[_row(line) for line in subject.lines],
        total=euros(subject.value_micro_euros),
        duties=tuple(_duties(subject, settings)),
        notice=REGISTERED if subject.first.regime == "de-minimis" else None,
        closing=(f"Pour {_the(settings.authority)},", "le service chargé du dispositif"),
    )


def _addressee(organisation: Organisation) -> Iterator[str]:
    yield organisation.full_name or organisation.name
    if organisation.siret:
        yield f"SIRET {_grouped(organisation.siret[:9])} {organisation.siret[9:]}"
    elif organisation.foreign_id:
        yield f"{organisation.foreign_country} {organisation.foreign_id}"


def _title(line: AidLine) -> str:
    if line.regime == "exempted":
        return f"Notification d'une aide d'État relevant du régime exempté n° {line.scheme}"
    return "Notification d'une aide de minimis"


def _paragraphs(subject: Subject, settings: AidSettings) -> Iterator[str]:
    award, line = subject.award, subject.first
    yield "Madame, Monsieur,"
    yield (
        f"Par l'acte {line.act_reference} du {day(line.act_on)}, {_the(settings.authority)} vous a accordé, au titre "
        f"du dispositif « {subject.programme_name} », pour votre projet « {subject.project.name} », l'attribution "
        f"{award.id} : des heures de calcul utilisables du {day(paris_day(award.start_at))} au "
        f"{day(paris_day(award.end_at - timedelta(microseconds=1)))}."
    )
    yield (
        f"Cette attribution constitue une aide d'un montant de {euros(subject.value_micro_euros)}, exprimé en "
        "équivalent-subvention brut, avant impôt. La part que votre organisation paie elle-même n'y est pas comprise."
    )
    if line.regime == "exempted":
        yield (
            f"Cette aide est accordée sur la base du régime exempté n° {line.scheme}, pris en application du "
            f"{EXEMPTION}. Elle ne s'impute pas sur le plafond des aides de minimis."
        )
    else:
        yield (
            f"Cette aide présente le caractère d'une aide de minimis. Elle est accordée en application du {DE_MINIMIS}."
        )
        ceiling = settings.rules().ceiling_on(paris_day(line.granted_at))
        if ceiling is not None:
            yield (
                "Le total des aides de minimis accordées par tous les financeurs publics à une même entreprise unique, "
                f"entreprises liées comprises, ne peut excéder {euros(ceiling.ceiling_micro_euros)} sur toute période "
                f"de {ceiling.years} ans ; chaque aide compte à la date de son octroi."
            )


def _duties(subject: Subject, settings: AidSettings) -> Iterator[str]:
    granted_on = paris_day(subject.first.granted_at)
    last = max(paris_day(line.granted_at) for line in subject.lines)
    ceiling = settings.rules().ceiling_on(granted_on)
    keep_until = date(last.year + settings.keep_years, 12, 31)
    yield (
        f"conserver cette lettre pendant {settings.keep_years} ans, jusqu'au {day(keep_until)}, et la présenter à "
        "toute demande d'un service de contrôle ;"
    )
    if subject.first.regime == "exempted":
        yield "déclarer cette aide lors de toute demande d'une autre aide portant sur les mêmes coûts admissibles ;"
    elif ceiling is not None:
        until = leaves_on(last, ceiling.years) - timedelta(days=1)
        yield (
            "déclarer cette aide, avec celles des entreprises qui vous sont liées, avant l'octroi de toute nouvelle "
            f"aide de minimis, par quelque financeur que ce soit, jusqu'au {day(until)} inclus ;"
        )
    yield "nous signaler tout changement des liens entre votre entreprise et d'autres (fusion, acquisition, scission)."


def _row(line: AidLine) -> tuple[str, ...]:
    act = f"{line.act_reference} du {day(line.act_on)}"
    counted = f"{hours(line.credits)} × {exact_euros(line.micro_euros_per_hour)}/h × {percent(line.public_thousandths)}"
    return day(paris_day(line.granted_at)), KINDS[line.kind], act, counted, euros(line.value_micro_euros)


def as_text(words: Letter) -> str:
    """Give the letter as plain text, lines ended by a newline."""
    lines = [*words.sender, "", *words.addressee, "", words.title, ""]
    for paragraph in words.paragraphs:
        lines += [paragraph, ""]
    lines += [f"- {' ; '.join(row)}" for row in words.rows]
    lines += [f"- total : {words.total}", "", "Il vous appartient de :"]
    lines += [f"- {duty}" for duty in words.duties]
    lines += ["", words.notice] if words.notice else []
    return "\n".join([*lines, "", *words.closing, ""])


def as_page(words: Letter) -> str:
    """Give the letter as a page that needs nothing else, runs nothing, and prints on one sheet of A4."""
    page = Element("html", lang="fr")
    _head(SubElement(page, "head"), words.title)
    body = SubElement(page, "body")
    top = SubElement(body, "header")
    for party in (words.sender, words.addressee):
        _lines(SubElement(top, "address"), party)
    _text(body, "h1", words.title)
    for paragraph in words.paragraphs:
        _text(body, "p", paragraph)
    _table(body, words)
    _text(body, "h2", "Il vous appartient de :")
    duties = SubElement(body, "ul")
    for duty in words.duties:
        _text(duties, "li", duty)
    if words.notice:
        _text(body, "p", words.notice)
    _lines(SubElement(body, "footer"), words.closing)
    return "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html") + "\n"


def _head(head: Element, title: str) -> None:
    digest = b64encode(sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": policy})
    _text(head, "title", title)
    SubElement(head, "style").text = STYLE


def _table(body: Element, words: Letter) -> None:
    table = SubElement(body, "table")
    for cells, kind in ((words.header, "th"), *((row, "td") for row in words.rows)):
        line = SubElement(table, "tr")
        for number, cell in enumerate(cells):
            _text(line, kind, cell, **({"class": "figure"} if number in (3, 4) else {}))
    total = SubElement(table, "tr", {"class": "total"})
    _text(total, "td", "Total", colspan="4")
    _text(total, "td", words.total, **{"class": "figure"})


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = _shown(text)


def _lines(parent: Element, lines: Sequence[str]) -> None:
    for line in lines:
        _text(parent, "div", line)


def _shown(text: str) -> str:
    """Make visible what would act on the reading of a text, such as a mark that turns its direction."""
    return "".join(f"<U+{ord(c):04X}>" if category(c).startswith("C") else c for c in text)


def day(value: date) -> str:
    """Write a day in French: `1er janvier 2026`."""
    return f"{'1er' if value.day == 1 else value.day} {MONTHS[value.month - 1]} {value.year}"


def euros(micro_euros: int) -> str:
    """Write euros in French, to the cent, towards zero: `12 345,67 €` (with no-break spaces)."""
    sign = "-" if micro_euros < 0 else ""
    whole, cents = divmod(abs(micro_euros) // 10_000, 100)
    return f"{sign}{whole:,},{cents:02} €".replace(",", "\u00a0", f"{whole:,}".count(",")).replace(" €", "\u00a0€")


def exact_euros(micro_euros: int) -> str:
    """Write a price in euros in French, with two to six decimals."""
    whole, rest = divmod(micro_euros, 1_000_000)
    return f"{whole},{f'{rest:06}'.rstrip('0').ljust(2, '0')}\u00a0€"


def percent(thousandths: int) -> str:
    """Write a share in French: `33,3 %`."""
    whole, rest = divmod(thousandths, 10)
    return f"{whole},{rest}\u00a0%" if rest else f"{whole}\u00a0%"


def hours(credits_: int) -> str:
    """Write normalised GPU-hours in French, to the thousandth, towards zero: `1 234,5 h`."""
    sign = "-" if credits_ < 0 else ""
    whole, rest = divmod(abs(credits_) * 1000 // CREDITS_PER_HOUR, 1000)
    decimals = f",{rest:03}".rstrip("0") if rest else ""
    return f"{sign}{whole:,}".replace(",", "\u00a0") + f"{decimals}\u00a0h"


def _grouped(digits: str) -> str:
    return " ".join(digits[start : start + 3] for start in range(0, len(digits), 3))


def _the(authority: str) -> str:
    return f"la {authority}" if authority.startswith("Région") else authority
