"""What each check of an identifier lets through and what it catches."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identifiers import (
    COUNTRIES,
    DEPARTEMENTS,
    LA_POSTE,
    REGION_DEPARTEMENTS,
    IdentifierWrong,
    checked_departement,
    checked_email,
    checked_foreign,
    checked_naf,
    checked_siren,
    checked_siret,
    is_in_region,
    luhn_holds,
)

digits = partial(st.text, alphabet="0123456789")


def completed(number: str) -> str:
    """Append the one digit that makes Luhn hold."""
    return next(number + last for last in "0123456789" if luhn_holds(number + last))


sirens = digits(min_size=8, max_size=8).map(completed).filter(lambda siren: int(siren) > 0)
sirets = st.builds(lambda siren, nic: completed(siren + nic), sirens, digits(min_size=4, max_size=4))


@given(digits(min_size=1, max_size=20))
def test_exactly_one_last_digit_makes_luhn_hold(number: str) -> None:
    assert sum(luhn_holds(number + last) for last in "0123456789") == 1


@given(sirets, st.integers(0, 13), st.integers(1, 9))
def test_luhn_catches_every_change_of_a_single_digit(siret: str, place: int, by: int) -> None:
    assert luhn_holds(siret)
    wrong = siret[:place] + str((int(siret[place]) + by) % 10) + siret[place + 1 :]
    assert not luhn_holds(wrong)
    if not wrong.startswith(LA_POSTE):
        with pytest.raises(IdentifierWrong):
            checked_siret(wrong)


@given(sirets, st.integers(0, 12))
def test_luhn_catches_every_swap_of_neighbours_but_0_with_9(siret: str, place: int) -> None:
    pair = siret[place : place + 2]
    swapped = siret[:place] + pair[::-1] + siret[place + 2 :]
    assert luhn_holds(swapped) == (pair in ("09", "90") or pair[0] == pair[1])


@given(sirets, st.lists(st.sampled_from([" ", ".", "-", "\u00a0", "\u202f"]), min_size=14, max_size=14))
def test_separators_do_not_matter(siret: str, between: list[str]) -> None:
    typed = "".join(digit + separator for digit, separator in zip(siret, between, strict=True))
    assert checked_siret(typed) == siret
    assert checked_siren(typed[:18]) == siret[:9]


@given(digits(min_size=4, max_size=4))
def test_la_poste_has_a_rule_of_its_own(nic: str) -> None:
    """Of ten numbers that differ in the last digit two have a sum of digits that five divides, and one passes Luhn."""
    passed = set()
    for last in "0123456789":
        siret = LA_POSTE + nic + last
        if luhn_holds(siret) or sum(map(int, siret)) % 5 == 0:
            passed.add(checked_siret(siret))
            continue
        with pytest.raises(IdentifierWrong, match="La Poste"):
            checked_siret(siret)
    assert len(passed) in (2, 3)


def test_real_numbers() -> None:
    """The head office of La Poste, an office of its whose SIRET fails Luhn, and the number that forms show."""
    for siret in ("35600000000048", "35600000009075", "73282932000074"):
        assert checked_siret(siret) == siret


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7328293200007", "has 13 digits: it has 14 digits"),
        ("732829320000740", "has 15 digits"),
        ("", "something else than digits"),
        ("73282932O00074", "something else than digits: it has 14 digits, the nine of the SIREN and five"),
        ("٧٣٢٨٢٩٣٢٠٠٠٠٧٤", "something else than digits"),
        ("73282932000075", "SIRET 73282932000075 fails its check digit (Luhn)"),
        ("73282933000073", "SIREN 732829330 fails its check digit (Luhn)"),
        ("00000000000000", "SIREN 000000000 fails"),
    ],
)
def test_a_refused_siret_is_told_why(text: str, words: str) -> None:
    with pytest.raises(IdentifierWrong) as caught:
        checked_siret(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_siren_of_the_wrong_length() -> None:
    with pytest.raises(IdentifierWrong, match="has 14 digits: it has nine digits"):
        checked_siren("73282932000074")


@given(digits(min_size=4, max_size=4), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
def test_naf_codes_have_one_form(number: str, letter: str) -> None:
    form = f"{number[:2]}.{number[2:]}{letter}"
    for typed in (form, form.lower(), f"{number}{letter}", f" {number}{letter.lower()} "):
        assert checked_naf(typed) == form


@pytest.mark.parametrize("text", ["", "62.01", "6201ZZ", "62-01Z", "6.201Z", "ABCDE", "٦٢٠١Z", "62.01É"])
def test_other_naf_codes_are_refused(text: str) -> None:
    with pytest.raises(IdentifierWrong, match="four digits and a letter"):
        checked_naf(text)


def test_departements() -> None:
    assert len(DEPARTEMENTS) == 102
    assert {code for code in DEPARTEMENTS if is_in_region(code)} == {"75", "77", "78", "91", "92", "93", "94", "95"}
    assert set(REGION_DEPARTEMENTS) <= DEPARTEMENTS
    assert [checked_departement(text) for text in ("01", "2a", " 2B ", "976")] == ["01", "2A", "2B", "976"]


@pytest.mark.parametrize("text", ["", "1", "00", "20", "96", "970", "977", "2C", "075", "Paris"])
def test_other_departements_are_refused(text: str) -> None:
    with pytest.raises(IdentifierWrong, match="2A and 2B in the place of 20"):
        checked_departement(text)


@given(st.sampled_from(sorted(COUNTRIES - {"FR"})), st.from_regex(r"[A-Z]{0,3}[0-9]{1,12}", fullmatch=True))
def test_foreign_identifiers_keep_their_form(country: str, number: str) -> None:
    assert checked_foreign(country.lower(), f" {number.lower()} ") == (country, number)


def test_a_foreign_identifiers_spaces_are_single() -> None:
    assert checked_foreign("DE", "hrb  42243") == ("DE", "HRB 42243")
    assert checked_foreign("CH", "CHE-123.456.789") == ("CH", "CHE-123.456.789")


@pytest.mark.parametrize(
    ("country", "number", "words"),
    [
        ("XX", "123", "no code of ISO 3166"),
        ("Germany", "123", "two letters"),
        ("FR", "73282932000074", "known by its SIRET"),
        ("DE", "", "at most 40"),
        ("DE", "HRB", "at least one of them a digit"),
        ("DE", "1" * 41, "at most 40"),
        ("DE", "1\x1b[2J", "letters A to Z"),
        ("DE", "=1+1", "letters A to Z"),
        ("DE", "-1", "letters A to Z"),
    ],
)
def test_other_foreign_identifiers_are_refused(country: str, number: str, words: str) -> None:
    with pytest.raises(IdentifierWrong) as caught:
        checked_foreign(country, number)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["a@b.fr", "ines.durand+idf@mail.example-1.fr", "o'neil@example.co.uk"])
def test_addresses_of_mail(text: str) -> None:
    assert checked_email(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "ines", "@example.fr", "ines@", "ines@example", "ines@@example.fr", "i nes@example.fr", ".i@example.fr"),
        *("i..n@example.fr", "ines@-example.fr", "ines@example.fr\nBcc: x@y.fr", "ines@example.fr,x@y.fr"),
        *("Ines <ines@example.fr>", "inès@example.fr", f"{'i' * 65}@example.fr", f"i@{'e' * 250}.fr", "i@1.2.3.4"),
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(IdentifierWrong, match=r"name@example\.fr"):
        checked_email(text)
