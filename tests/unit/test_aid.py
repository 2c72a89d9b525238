"""State aid on both engines: declarations, the rolling sum, linked organisations, reductions, two grants at once."""

import threading
from dataclasses import replace
from datetime import date, timedelta

import pytest
from aid_rules import EURO, HOUR, NOTHING, RULES, entered_award, had, noon, wanted
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from quotas.aid import AidWanted, DeclaredAid, aids_of, count, declare, declared_aids, lines_of, reduce
from quotas.errors import (
    AidAboveCeiling,
    AidCeilingUnknown,
    AidDeclarationRefused,
    AidIncomplete,
    AidReductionTooLarge,
    AidUndeclared,
    AidValueUnknown,
    QuotaError,
)
from quotas.models import AidDeclared, AidLine
from storage.database import Database

DAY = date(2026, 5, 4)
LONG_AGO = date(2024, 1, 2)
TODAY = date(2026, 6, 1)


def declared(database: Database, *aids: DeclaredAid, organisation_id: str = "org-acme", on: date = LONG_AGO) -> str:
    with database.write() as session:
        return declare(
            session,
            organisation_id=organisation_id,
            declared_on=on,
            document="GED 2026/17",
            aids=aids or NOTHING,
            today=TODAY,
        ).id


def award(database: Database) -> str:
    with database.write() as session:
        return entered_award(session)


def counted(database: Database, asked: AidWanted) -> AidLine | None:
    with database.write() as session:
        return count(session, asked, RULES)


def sum_of(database: Database, *organisations: str) -> int:
    with database.read() as session:
        return sum(aid.value_micro_euros for aid in aids_of(session, organisations or ["org-acme"], RULES))


def test_a_grant_is_counted_with_all_that_made_its_value(database: Database) -> None:
    declared(database)
    award_id = award(database)
    line = counted(database, wanted(award_id, DAY, 100, micro_euros_per_hour=2_350_000, public_thousandths=500))
    assert line is not None
    with database.read() as session:
        (stored,) = lines_of(session, award_id)
    assert stored.value_micro_euros == 117_500_000
    assert (stored.credits, stored.micro_euros_per_hour, stored.public_thousandths) == (100 * HOUR, 2_350_000, 500)
    assert (stored.act_reference, stored.act_on, stored.granted_at) == ("CP 2026-101", DAY, noon(DAY))
    assert (stored.kind, stored.regime, stored.scheme, stored.reduces_id) == ("grant", "de-minimis", None, None)


def test_no_grant_without_a_declaration_before_it(database: Database) -> None:
    award_id = award(database)
    with pytest.raises(AidUndeclared, match="no declaration of its aids before this grant") as refused:
        counted(database, wanted(award_id, DAY, 1))
    assert refused.value.remedy is not None
    assert "idf-compute aid declare" in refused.value.remedy
    declared(database, on=DAY + timedelta(days=1))
    with pytest.raises(AidUndeclared, match="before this grant"):
        counted(database, wanted(award_id, DAY, 1))
    declared(database, on=DAY)
    assert counted(database, wanted(award_id, DAY, 1)) is not None, "on the same day is before"


def test_an_old_declaration_no_longer_counts(database: Database) -> None:
    declared(database, on=DAY - timedelta(days=365))
    year = replace(RULES, declaration_days=365)
    award_id = award(database)
    with database.write() as session:
        assert count(session, wanted(award_id, DAY, 1), year) is not None
    day_later = DAY + timedelta(days=1)
    with (
        pytest.raises(AidUndeclared, match="is of 2025-05-04, more than 365 days before 2026-05-05"),
        database.write() as session,
    ):
        count(session, wanted(award_id, day_later, 1), year)


@pytest.mark.parametrize(
    ("changes", "refusal", "sentence"),
    [
        ({"act_reference": None}, AidIncomplete, "its reference or its day is missing"),
        ({"act_reference": ""}, AidIncomplete, "its reference or its day is missing"),
        ({"act_on": None}, AidIncomplete, "its reference or its day is missing"),
        ({"act_on": DAY + timedelta(days=1)}, AidIncomplete, "the act CP 2026-101 is of 2026-05-05, after the day"),
        ({"regime": "exempted"}, AidIncomplete, "known by its number"),
        ({"micro_euros_per_hour": None}, AidValueUnknown, "no tariff is known"),
        ({"granted_at": noon(date(2031, 1, 1))}, AidCeilingUnknown, "no de minimis ceiling is set for 2031-01-01"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_guessed(
    database: Database, changes: dict[str, object], refusal: type[QuotaError], sentence: str
) -> None:
    declared(database)
    award_id = award(database)
    with pytest.raises(refusal, match=sentence) as refused:
        counted(database, wanted(award_id, DAY, 1, **changes))
    assert refused.value.remedy
    with database.read() as session:
        assert lines_of(session, award_id) == []


def test_an_exempted_scheme_is_in_the_register_and_adds_up_to_no_ceiling(database: Database) -> None:
    award_id = award(database)
    exempted = wanted(award_id, DAY, 400_000, regime="exempted", scheme="SA.111728")
    line = counted(database, exempted)
    assert line is not None
    assert (line.regime, line.scheme, line.value_micro_euros) == ("exempted", "SA.111728", 400_000 * EURO)
    assert sum_of(database) == 0
    declared(database)
    de_minimis = counted(database, wanted(award_id, DAY, 300_000, scheme="SA.1"))
    assert de_minimis is not None
    assert de_minimis.scheme is None, "a de minimis aid has no scheme"


def test_the_regime_none_is_no_aid_and_has_no_line(database: Database) -> None:
    award_id = award(database)
    assert counted(database, wanted(award_id, DAY, 1, regime="none", micro_euros_per_hour=None, act_on=None)) is None
    with database.read() as session:
        assert lines_of(session, award_id) == []


def test_above_the_ceiling_the_refusal_shows_the_sum_and_the_most_that_would_pass(database: Database) -> None:
    declared(database, replace(had(LONG_AGO, 0), value_micro_euros=120_000_500_000))
    counted(database, wanted(award(database), DAY, 150_000))
    asked = wanted(award(database), DAY, 40_000, micro_euros_per_hour=2_000_000, public_thousandths=500)
    with pytest.raises(AidAboveCeiling) as refused:
        counted(database, asked)
    assert refused.value.detail == (
        "120000.50 € declared + 150000 € counted + 40000 € for this award = 310000.50 € > 300000 €, the ceiling of "
        "Regulation (EU) 2023/2831, art. 3(2) over 3 years (2023-05-04 to 2026-05-04); this award is worth "
        "40000 h × 2 € × 50 % paid by the public"
    )
    assert refused.value.remedy == (
        "grant at most 29999.5 h (29999.50 €); all of it from 2027-01-03 on, if nothing else is granted until then"
    )
    assert sum_of(database) == 270_000_500_000


def test_the_amount_that_a_refusal_names_passes_and_one_step_more_does_not(database: Database) -> None:
    declared(database, had(LONG_AGO, 299_000))
    award_id = award(database)
    odd = {"micro_euros_per_hour": 2_345_678, "public_thousandths": 333}
    with pytest.raises(AidAboveCeiling) as refused:
        counted(database, wanted(award_id, DAY, 90_000, **odd))
    named = int(str(refused.value.remedy).split()[3].replace(".", "")) * HOUR // 1000
    assert str(refused.value.remedy).startswith("grant at most 1280.228 h (999.999883 €)")
    assert "× 33.3 % paid by the public" in refused.value.detail
    with pytest.raises(AidAboveCeiling):
        counted(database, wanted(award_id, DAY, 1, credits=named + HOUR // 1000, **odd))
    assert counted(database, wanted(award_id, DAY, 1, credits=named, **odd)) is not None


def test_exactly_the_ceiling_passes_and_then_nothing(database: Database) -> None:
    declared(database)
    assert counted(database, wanted(award(database), DAY, 300_000)) is not None
    with pytest.raises(AidAboveCeiling) as refused:
        counted(database, wanted(award(database), DAY, 1, credits=4))
    assert refused.value.remedy is not None
    assert refused.value.remedy.startswith("nothing more can be granted on this day; all of it from 2029-05-05 on")
    free = counted(database, wanted(award(database), DAY, 1, public_thousandths=0))
    assert free is not None
    assert free.value_micro_euros == 0, "what the company pays itself is no aid"


def test_an_award_above_the_ceiling_by_itself_never_passes(database: Database) -> None:
    declared(database)
    with pytest.raises(AidAboveCeiling) as refused:
        counted(database, wanted(award(database), DAY, 300_001))
    assert refused.value.remedy == "grant at most 300000 h (300000 €)"


def test_three_years_later_to_the_day_it_still_counts_and_the_day_after_it_does_not(database: Database) -> None:
    declared(database)
    counted(database, wanted(award(database), date(2024, 2, 29), 300_000))
    for day in (date(2026, 5, 4), date(2027, 2, 28)):
        with pytest.raises(AidAboveCeiling):
            counted(database, wanted(award(database), day, 1))
    assert counted(database, wanted(award(database), date(2027, 3, 1), 300_000)) is not None


def test_a_grant_entered_late_may_not_overfill_a_window_that_ends_later(database: Database) -> None:
    declared(database)
    counted(database, wanted(award(database), date(2026, 5, 4), 200_000))
    with pytest.raises(AidAboveCeiling, match=r"\(2023-05-04 to 2026-05-04\)"):
        counted(database, wanted(award(database), date(2025, 1, 1), 150_000))
    assert counted(database, wanted(award(database), date(2025, 1, 1), 100_000)) is not None


def test_linked_organisations_count_together(database: Database) -> None:
    declared(database)
    declared(database, had(date(2025, 1, 1), 50_000), organisation_id="org-mother", on=DAY)
    counted(database, wanted(award(database), DAY, 200_000, organisation_id="org-sister", undertaking=["org-sister"],
                             regime="exempted", scheme="SA.1"))  # fmt: skip
    declared(database, organisation_id="org-sister")
    counted(database, wanted(award(database), DAY, 200_000, organisation_id="org-sister", undertaking=["org-sister"]))
    together = ["org-acme", "org-mother", "org-sister"]
    with pytest.raises(AidAboveCeiling, match=r"50000 € declared \+ 200000 € counted \+ 50001 €"):
        counted(database, wanted(award(database), DAY, 50_001, undertaking=together))
    assert counted(database, wanted(award(database), DAY, 50_000, undertaking=together)) is not None
    assert counted(database, wanted(award(database), DAY, 250_000)) is not None, "alone, acme has room"


def test_the_newest_declaration_stands_whole(database: Database) -> None:
    declared(database, had(LONG_AGO, 100_000), had(LONG_AGO, 20_000), on=date(2025, 1, 1))
    declared(database, had(LONG_AGO, 30_000), on=date(2026, 1, 1))
    declared(database, had(LONG_AGO, 7), on=date(2025, 6, 1))
    assert sum_of(database) == 30_000 * EURO, "the newest by its own day, not by the day it was entered"
    again = declared(database, had(LONG_AGO, 31_000), on=date(2026, 1, 1))
    assert sum_of(database) == 31_000 * EURO, "a mistake is answered by a further one of the same day"
    with database.read() as session:
        assert [aid.number for aid in declared_aids(session, again)] == [1]
        assert len(session.exec(select(AidDeclared)).all()) == 5, "and the others are kept"


def test_only_aids_under_the_general_ceiling_add_up(database: Database) -> None:
    regimes = ("de-minimis", "de-minimis-agriculture", "de-minimis-fishery", "de-minimis-sgei", "exempted")
    declared(database, *(had(LONG_AGO, 10**number, regime=regime) for number, regime in enumerate(regimes)))
    assert sum_of(database) == 111 * EURO


def test_our_own_line_that_the_company_declares_too_counts_once(database: Database) -> None:
    declared(database)
    counted(database, wanted(award(database), date(2025, 3, 3), 1000, micro_euros_per_hour=1_234_567))
    ours = {"giver": "région  île-de-france", "act_reference": "cp 2026-101"}
    same = replace(had(date(2025, 3, 3), 0, **ours), value_micro_euros=1234_560_000)
    declared(database, same, on=DAY)
    assert sum_of(database) == 1_234_567_000, "the same to the cent"
    for other in (
        replace(same, value_micro_euros=1234_550_000),
        replace(same, giver="Ville de Paris"),
        replace(same, act_reference="CP 2026-102"),
        replace(same, granted_on=date(2025, 3, 4)),
    ):
        declared(database, other, on=DAY)
        assert sum_of(database) == 1_234_567_000 + other.value_micro_euros


def test_a_declaration_that_contradicts_itself_is_refused(database: Database) -> None:
    with pytest.raises(AidDeclarationRefused, match="the aid BPI-7 of 2026-05-05 is later than the declaration"):
        declared(database, had(DAY + timedelta(days=1), 5), on=DAY)
    with pytest.raises(AidDeclarationRefused, match="a day to come"):
        declared(database, on=TODAY + timedelta(days=1))
    assert sum_of(database) == 0


def test_reductions_lower_the_newest_lines_first_on_the_day_of_each(database: Database) -> None:
    declared(database)
    award_id = award(database)
    counted(database, wanted(award_id, date(2024, 3, 3), 100_000))
    counted(database, wanted(award_id, DAY, 50_000, kind="supplement", micro_euros_per_hour=1_333_333))
    with database.write() as session:
        made = reduce(session, award_id=award_id, credits_=20_000 * HOUR, act_reference="reprise 1", act_on=DAY)
        assert [(line.credits, line.value_micro_euros) for line in made] == [(-20_000 * HOUR, -26_666_660_000)]
    with database.write() as session:
        made = reduce(session, award_id=award_id, credits_=60_000 * HOUR, act_reference="reprise 2", act_on=DAY)
    assert [(line.credits // HOUR, line.value_micro_euros, line.granted_at) for line in made] == [
        (-30_000, -39_999_990_000, noon(DAY)),
        (-30_000, -30_000_000_000, noon(date(2024, 3, 3))),
    ]
    assert sum_of(database) == 70_000 * EURO
    assert counted(database, wanted(award(database), date(2027, 3, 3), 230_000)) is not None
    with pytest.raises(AidAboveCeiling):
        counted(database, wanted(award(database), date(2027, 3, 3), 1, credits=4))
    last = counted(database, wanted(award(database), date(2027, 3, 4), 70_000))
    assert last is not None, "the reduced line left with its reduction: nothing is taken off twice"


def test_a_reduction_of_parts_of_a_micro_euro_leaves_nothing_behind(database: Database) -> None:
    declared(database)
    award_id = award(database)
    counted(database, wanted(award_id, DAY, 1, credits=1000, micro_euros_per_hour=10_007))
    for amount in (333, 333, 334):
        with database.write() as session:
            reduce(session, award_id=award_id, credits_=amount, act_reference="r", act_on=DAY)
    assert sum_of(database) == 0


def test_no_more_is_taken_back_than_was_counted(database: Database) -> None:
    declared(database)
    award_id = award(database)
    with database.write() as session:
        assert reduce(session, award_id=award_id, credits_=5, act_reference="r", act_on=DAY) == [], "no line, no aid"
    counted(database, wanted(award_id, DAY, 10))
    with pytest.raises(AidReductionTooLarge, match=r"11 h were to be taken back, the award's aid counts 10 h"):
        with database.write() as session:
            reduce(session, award_id=award_id, credits_=11 * HOUR, act_reference="r", act_on=DAY)


@pytest.mark.parametrize(
    "changes",
    [
        {"value_micro_euros": -1},
        {"kind": "reduction"},
        {"regime": "none"},
        {"kind": "gift"},
        {"scheme": "SA.1"},
        {"public_thousandths": 1001},
        {"micro_euros_per_hour": -1},
    ],
)
def test_the_tables_themselves_refuse_what_the_rules_forbid(database: Database, changes: dict[str, object]) -> None:
    declared(database)
    counted(database, wanted(award(database), DAY, 10))
    with pytest.raises(IntegrityError):
        with database.write() as session:
            session.execute(update(AidLine).values(**changes))


def test_a_declared_aid_is_worth_something(database: Database) -> None:
    declaration_id = declared(database, had(LONG_AGO, 5))
    row = {
        "declaration_id": declaration_id, "number": 2, "granted_on": DAY, "giver": "x", "value_micro_euros": 0,
        "act_reference": "x", "regime": "de-minimis",
    }  # fmt: skip
    with pytest.raises(IntegrityError):
        with database.write() as session:
            session.execute(insert(AidDeclared), [row])


@pytest.mark.parametrize("number", range(3))
def test_of_two_grants_at_one_moment_exactly_one_passes(database: Database, number: int) -> None:
    together = ["org-acme", "org-sister"]
    for organisation_id in together:
        declared(database, organisation_id=organisation_id)
    awards = [award(database) for _ in together]
    ready = threading.Barrier(2)
    outcomes: list[object] = []

    def grant(award_id: str, organisation_id: str) -> None:
        asked = wanted(award_id, DAY, 200_000, organisation_id=organisation_id, undertaking=together)
        ready.wait()
        try:
            outcomes.append(counted(database, asked))
        except AidAboveCeiling as refused:
            outcomes.append(refused)

    threads = [threading.Thread(target=grant, args=pair) for pair in zip(awards, together, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AidAboveCeiling", "AidLine"]
    assert sum_of(database, *together) == 200_000 * EURO
