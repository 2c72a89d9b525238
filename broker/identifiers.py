"""How organisations and places are known: SIRET, SIREN, NAF, département, foreign identifiers; and addresses of mail.

Pure checks of form. Whether a number was ever given to anybody is for its register to say. A refusal is one
sentence, which names the rule and what would pass, and never guesses what was meant.
"""

import re
from typing import NamedTuple

SIREN_DIGITS = 9
SIRET_DIGITS = 14
LA_POSTE = "356000000"
EMAIL_LENGTH_MAX = 254
"""RFC 5321, 4.5.3.1.3, less the two angle brackets."""

REGION_DEPARTEMENTS = {
    "75": "Paris",
    "77": "Seine-et-Marne",
    "78": "Yvelines",
    "91": "Essonne",
    "92": "Hauts-de-Seine",
    "93": "Seine-Saint-Denis",
    "94": "Val-de-Marne",
    "95": "Val-d'Oise",
}
"""The eight départements of the Île-de-France Region."""
DEPARTEMENTS = frozenset(
    [
        *(f"{number:02}" for number in range(1, 96) if number != 20),
        *("2A", "2B", "971", "972", "973", "974", "975", "976"),
    ]
)
"""Codes of INSEE's code officiel géographique; 975 (Saint-Pierre-et-Miquelon) is a collectivity that has one too."""

_COUNTRIES = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO
    FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE
    JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO
    MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW
    PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM
    TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_COUNTRIES.split())
"""ISO 3166-1 alpha-2."""

_SEPARATORS = re.compile(r"[ .\u00a0\u202f-]")
"""What people put between digits; the two wide code points are the no-break spaces of French typography."""
_NAF = re.compile(r"([0-9]{2})\.?([0-9]{2})([A-Z])")
_FOREIGN = re.compile(r"[A-Z0-9](?:[A-Z0-9 ./-]{0,38}[A-Z0-9])?")
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])")


class IdentifierWrong(ValueError):
    """An identifier does not have the form that its register gives; the sentence says what would pass."""


class ForeignIdentifier(NamedTuple):
    """What an organisation abroad is known by: a VAT number, a trade register's entry, as its country writes it."""

    country: str
    number: str


def luhn_holds(digits: str) -> bool:
    """Say whether the Luhn sum of a row of digits is a multiple of ten (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, character in enumerate(reversed(digits)):
        digit = int(character) * (1 + place % 2)
        total += digit - 9 if digit > 9 else digit
    return total % 10 == 0


def checked_siren(text: str) -> str:
    """Return a SIREN, the number of a company, as nine digits without separators.

    Raises:
        IdentifierWrong: it has other than nine digits, or fails Luhn.
    """
    siren = _digits("SIREN", text, SIREN_DIGITS, "nine digits")
    if not luhn_holds(siren) or not int(siren):  # noughts pass Luhn and are nobody's
        raise IdentifierWrong(
            f"the SIREN {siren} fails its check digit (Luhn), so at least one digit is wrong: "
            "copy the nine digits from the company's entry at annuaire-entreprises.data.gouv.fr"
        )
    return siren


def checked_siret(text: str) -> str:
    """Return a SIRET, the number of an establishment, as 14 digits without separators.

    Both the 14 digits and the SIREN, their first nine, pass Luhn. La Poste (SIREN 356000000) has more establishments
    than Luhn leaves numbers for: one of its SIRETs that fails Luhn passes where the sum of its digits is a multiple of
    five. Source: INSEE's own check, github.com/InseeFrLab/validinsee, "Règles de validation".

    Raises:
        IdentifierWrong: it has other than 14 digits, or it or its SIREN fails Luhn.
    """
    siret = _digits("SIRET", text, SIRET_DIGITS, "14 digits, the nine of the SIREN and five for the establishment")
    checked_siren(siret[:SIREN_DIGITS])
    if luhn_holds(siret):
        return siret
    if not siret.startswith(LA_POSTE):
        raise IdentifierWrong(
            f"the SIRET {siret} fails its check digit (Luhn), so at least one digit is wrong: "
            "copy the 14 digits from the establishment's entry at annuaire-entreprises.data.gouv.fr"
        )
    if sum(map(int, siret)) % 5:
        raise IdentifierWrong(
            f"the SIRET {siret} of La Poste passes neither Luhn nor the rule for La Poste alone: "
            "its digits must sum up to a multiple of five"
        )
    return siret


def _digits(name: str, text: str, wanted: int, form: str) -> str:
    """Return the digits of an identifier without what stands between them."""
    bare = _SEPARATORS.sub("", text)
    if not (bare.isascii() and bare.isdigit()):
        raise IdentifierWrong(f"the {name} holds something else than digits: it has {form}")
    if len(bare) != wanted:
        raise IdentifierWrong(f"the {name} {bare[:40]} has {len(bare)} digits: it has {form}")
    return bare


def checked_naf(text: str) -> str:
    """Return a NAF code (INSEE, nomenclature d'activités française) in INSEE's form: `62.01Z`.

    Raises:
        IdentifierWrong: it is not four digits and a letter.
    """
    match = _NAF.fullmatch(text.strip().upper())
    if match is None:
        raise IdentifierWrong("a NAF code has four digits and a letter, such as 62.01Z or 6201Z")
    return f"{match[1]}.{match[2]}{match[3]}"


def checked_departement(text: str) -> str:
    """Return the code of a département: two characters, overseas three.

    Raises:
        IdentifierWrong: there is none of that code.
    """
    code = text.strip().upper()
    if code not in DEPARTEMENTS:
        raise IdentifierWrong("a département is one of 01 to 95, with 2A and 2B in the place of 20, or of 971 to 976")
    return code


def is_in_region(departement: str) -> bool:
    """Say whether a département is one of Île-de-France's eight."""
    return departement in REGION_DEPARTEMENTS


def checked_foreign(country: str, number: str) -> ForeignIdentifier:
    """Return a foreign identifier in capitals, single spaces kept as its country writes them.

    Raises:
        IdentifierWrong: the country is none of ISO 3166 or is France, or the number holds odd characters.
    """
    code = country.strip().upper()
    if code not in COUNTRIES:
        raise IdentifierWrong("the country is no code of ISO 3166: give its two letters, such as DE, CA or KR")
    if code == "FR":
        raise IdentifierWrong("an organisation in France is known by its SIRET: give that, or no identifier yet")
    own = " ".join(number.upper().split())
    if not _FOREIGN.fullmatch(own) or not any(character.isdigit() for character in own):
        raise IdentifierWrong(
            "a foreign identifier has at most 40 letters A to Z, digits, spaces, points, hyphens and slashes, "
            "at least one of them a digit, such as DE811569869 or HRB 42243"
        )
    return ForeignIdentifier(code, own)


def checked_email(text: str) -> str:
    """Return an address of mail whose form is good; only a mail that arrives proves it.

    Narrower than RFC 5321: plain ASCII, no quotes and no comments, so that nothing in it can act on a mail's head.

    Raises:
        IdentifierWrong: the form is another.
    """
    local, _, domain = text.rpartition("@")
    good = len(text) <= EMAIL_LENGTH_MAX and len(local) <= 64
    if not (good and _LOCAL_PART.fullmatch(local) and _DOMAIN.fullmatch(domain)):
        raise IdentifierWrong("an address of mail has the form name@example.fr, in plain letters, without spaces")
    return text
