"""State aid as a manager types it, from the command line to the real service, on both engines."""

import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from aid_rules import EURO, HOUR, noon
from typed import Type, in_json, typing_at
from world import World, world

from broker import aid
from broker.models import Project
from broker.names import named
from broker.underuse import watch_awards
from quotas.aid import reduce
from quotas.amounts import day_start, paris_day
from quotas.awards import Actor, Papers, Subject, Terms, grant
from quotas.errors import AidAboveCeiling, AidUndeclared, AidValueUnknown
from quotas.ledger import Movement, account_id
from quotas.models import Award, Programme
from quotas.posting import move
from quotas.programmes import change_policy, policy_of
from quotas.rates import set_tariff
from storage.tables import utcnow

GOLDEN = Path(__file__).parent / "golden"
DAY = date(2026, 5, 4)
TODAY = paris_day(utcnow())


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        enter_aided_projects(made)
        yield made


@pytest.fixture
def typed(
    region: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Type]:
    with typing_at(region, tmp_path, monkeypatch, capfd) as run:
        yield run


def enter_aided_projects(region: World) -> None:
    """Two companies with a project each in a programme that pays half; Ines leads the first, Nemo looks on."""
    budget = {"start_on": "2020-01-01", "end_on": "2099-12-31", "credits": 10**13}
    shares = {"region_thousandths": 400, "company_thousandths": 500, "partner_thousandths": 100}
    programme = {"name": "pack-aide", "kind": "pack-ia", "full_name": "Pack IA 2026", "budgets": [budget]}
    region.post("marc", "/programmes", {**programme, "shares": [shares]})
    whose = {"siret": "73282932000074", "naf": "62.01Z", "full_name": "=Laiterie <b>Dupont</b> & Fils"}
    region.post("marc", "/organisations", {"name": "laiterie", **whose})
    region.post("marc", "/organisations", {"name": "milch", "foreign_country": "DE", "foreign_id": "HRB 42243"})
    for organisation, project in (("laiterie", "fromage"), ("milch", "sahne")):
        region.post("marc", "/projects", {"name": project, "organisation": organisation, "programme": "pack-aide"})
    region.post("marc", "/projects/fromage/members", {"person": "ines", "role": "lead"})
    region.post("marc", "/projects/fromage/members", {"person": "nemo", "role": "member"})


def enter_tariff(region: World, micro_euros: int = 3_000_000) -> None:
    with region.services.database.write() as session:
        set_tariff(
            session, region.get("marc", "/sites")["items"][0]["id"], "a100-80", noon(date(2026, 1, 2)), micro_euros
        )


def granted(region: World, project: str, hours: int, regime: str = "de-minimis", scheme: str | None = None) -> str:
    """Grant an award and count it as aid on a fixed day; return its id."""
    rules = region.services.settings.aid.rules()
    with region.services.database.write() as session:
        row = named(session, Project, project)
        programme = session.get_one(Programme, row.programme_id)
        subject = Subject(row.id, programme, row.confidentiality, row.nature)
        terms = Terms(hours * HOUR, date(2026, 5, 4), date(2026, 10, 31))
        papers = Papers(act_reference="CP 2026-101", act_on=date(2026, 4, 1))
        award = grant(session, subject, terms, Actor("psn-marc", is_manager=True), papers, noon(DAY))
        with_regime = policy_of(programme).model_copy(update={"regime": regime, "scheme": scheme})
        change_policy(session, programme, with_regime, entered_by=None)
        aid.count_grant(session, rules, award, award.proposed_credits, noon(DAY))
        return award.id


def declared(typed: Type, organisation: str = "laiterie", on: str = "2026-04-02") -> None:
    assert typed("marc", "aid", "declare", organisation, "--none", "--on", on, "--document", "GED 1").code == 0


def without_ids(text: str) -> str:
    """Put a fixed id and a fixed day in the place of what each run makes anew."""
    text = re.sub(r"\b(awd|aid|dec)-[0-9a-z]{16}\b", r"\1-0000000000000000", text)
    return text.replace(TODAY.isoformat(), "2026-05-04")


def test_a_company_declares_what_it_had(typed: Type, tmp_path: Path) -> None:
    file = tmp_path / "aids.toml"
    file.write_text(
        '[[aid]]\ngranted_on = 2025-03-10\ngiver = "Bpifrance"\neuros = 25000.50\nact = "DOS 1"\n'
        '[[aid]]\ngranted_on = 2024-06-01\ngiver = "Ville de Paris"\neuros = "2.35"\nact = "D 2"\n'
        'regime = "de-minimis-agriculture"\n'
        '[[aid]]\ngranted_on = 2024-06-01\ngiver = "ADEME"\neuros = 90000\nact = "A 3"\nregime = "exempted"\n'
    )
    ran = typed("marc", "aid", "declare", "laiterie", str(file), "--on", "2026-04-02", "--document", "GED 2026/17")
    assert ran.code == 0, ran.err
    assert re.fullmatch(r"laiterie declares 3 aids, 115002.85 € together, by dec-\w{16}\n", ran.out)
    shown = typed("alma", "aid", "show", "laiterie", "--on", "2026-05-04")
    assert shown.out == (
        "laiterie, single undertaking of laiterie\n"
        "de minimis aid of 2023-05-04 to 2026-05-04 (3 years; Regulation (EU) 2023/2831, art. 3(2))\n"
        "GRANTED     ORGANISATION  BY              ACT         EUROS\n"
        "2024-06-01  laiterie      Ville de Paris  D 2        2.35 €\n"
        "2025-03-10  laiterie      Bpifrance       DOS 1  25000.50 €\n"
        "  declared        25002.85 €\n"
        "  + counted here      0.00 €\n"
        "  = sum           25002.85 €\n"
        "  ceiling        300000.00 €\n"
        "  left           274997.15 €\n"
        "laiterie declared 3 aids on 2026-04-02 (GED 2026/17)\n"
    )
    assert shown.err == ""


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "has other than one [[aid]]"),
        ("aid = 3", "has other than one [[aid]]"),
        ("x = [", "is not valid TOML"),
        ('[[aid]]\ngiver = "B"\neuros = 1\nact = "A"\n', "aid 1: granted_on is missing"),
        ('[[aid]]\ngranted_on = "2025-03-10"\ngiver = "B"\neuros = 1\nact = "A"\n', "granted_on is no day"),
        ('[[aid]]\ngranted_on = 2025-03-10T10:00:00\ngiver = "B"\neuros = 1\nact = "A"\n', "granted_on is no day"),
        ('[[aid]]\ngranted_on = 2025-03-10\ngiver = "B"\neuros = 1\nact = "A"\nvalue = 1\n', "no field value"),
        ('[[aid]]\ngranted_on = 2025-03-10\ngiver = "B"\neuros = 1\nact = "A"\nregime = "x"\n', "no regime 'x'"),
        ('[[aid]]\ngranted_on = 2025-03-10\ngiver = "B"\neuros = 0.0000001\nact = "A"\n', "are not understood"),
        ('[[aid]]\ngranted_on = 2025-03-10\ngiver = "B"\neuros = -1\nact = "A"\n', "are not understood"),
        ('[[aid]]\ngranted_on = 2025-03-10\ngiver = "B"\neuros = 0\nact = "A"\n', "greater than 0"),
        ('[[aid]]\ngranted_on = 2026-04-03\ngiver = "B"\neuros = 1\nact = "A"\n', "is later than the declaration"),
        ('[[aid]]\ngranted_on = 2025-03-10\ngiver = "B\\u001b"\neuros = 1\nact = "A"\n', "control characters"),
    ],
)
def test_a_file_that_is_not_understood_is_one_sentence(
    typed: Type, tmp_path: Path, content: str, sentence: str
) -> None:
    file = tmp_path / "aids.toml"
    file.write_text(content)
    ran = typed("marc", "aid", "declare", "laiterie", str(file), "--on", "2026-04-02", "--document", "x")
    assert ran.code in (2, 3)
    assert sentence in ran.err
    assert "no declaration that is young enough" in typed("marc", "aid", "show", "laiterie").err


def test_a_declaration_names_aids_or_none_and_is_of_a_day_that_was(typed: Type) -> None:
    words = ("aid", "declare", "laiterie", "--on", "2026-04-02", "--document", "x")
    assert "give either FILE.toml or --none" in typed("marc", *words).err
    assert "give either FILE.toml or --none" in typed("marc", *words, "some.toml", "--none").err
    assert "No such file" in typed("marc", *words, "/nowhere.toml").err
    tomorrow = str(TODAY + timedelta(days=1))
    ran = typed("marc", "aid", "declare", "laiterie", "--none", "--on", tomorrow, "--document", "x")
    assert (ran.code, "a day to come" in ran.err) == (3, True)


def test_linked_organisations_are_one_undertaking(region: World, typed: Type) -> None:
    enter_tariff(region)
    declared(typed)
    declared(typed, "milch")
    granted(region, "sahne", 200_000)
    assert in_json(typed("marc", "aid", "show", "laiterie", "--json"))["counted_micro_euros"] == 0
    region.post(
        "marc",
        "/organisations/milch/links",
        {"other": "laiterie", "basis": "60 % of the shares", "from_on": "2026-05-04"},
    )
    shown = in_json(typed("marc", "aid", "show", "laiterie", "--json"))
    assert shown["undertaking"] == ["laiterie", "milch"]
    assert (shown["counted_micro_euros"], shown["left_micro_euros"]) == (150_000 * EURO, 150_000 * EURO)
    with pytest.raises(AidAboveCeiling, match=r"150000 € counted \+ 150000.75 € for this award"):
        granted(region, "fromage", 200_001)
    assert granted(region, "fromage", 200_000)


def test_what_an_award_is_worth_is_never_guessed(region: World, typed: Type) -> None:
    with pytest.raises(AidValueUnknown):
        granted(region, "fromage", 10)
    enter_tariff(region)
    with pytest.raises(AidUndeclared):
        granted(region, "fromage", 10)
    declared(typed)
    award_id = granted(region, "fromage", 10)
    assert in_json(typed("marc", "aid", "letter", award_id, "--json"))["value_micro_euros"] == 7_500_000


def test_the_dearest_tariff_and_the_largest_public_share_count(region: World, typed: Type) -> None:
    declared(typed)
    enter_tariff(region)
    with region.services.database.write() as session:
        set_tariff(session, "sit-other", "a100-80", noon(date(2026, 1, 2)), 5_000_000)
        set_tariff(session, "sit-other", "a100-80", noon(date(2026, 5, 5)), 9_000_000)
    later = {"region_thousandths": 700, "company_thousandths": 300, "partner_thousandths": 0}
    region.post("marc", "/programmes/pack-aide/shares", {"valid_from": str(TODAY + timedelta(days=1)), **later})
    award_id = granted(region, "fromage", 10)
    (line,) = in_json(typed("marc", "aid", "register", "--json"))
    assert (line["micro_euros_per_hour"], line["public_thousandths"]) == (2_500_000, 500)
    with region.services.database.write() as session:
        award = session.get_one(Award, award_id)
        award.end_at = day_start(TODAY + timedelta(days=30))
        assert aid.public_share(session, award) == 700, "a share that is known to come within the award"


def test_the_register_is_what_the_national_one_takes(region: World, typed: Type) -> None:
    enter_tariff(region, 2_999_999)
    declared(typed)
    declared(typed, "milch")
    first = granted(region, "fromage", 1000)
    granted(region, "sahne", 7, "exempted", "SA.111728")
    with region.services.database.write() as session:
        reduce(session, award_id=first, credits_=100 * HOUR, act_reference="+reprise, 1", act_on=TODAY)
    ran = typed("alma", "aid", "register")
    assert ran.code == 0
    assert without_ids(ran.out) == (GOLDEN / "aid_register.csv").read_text()
    lines = in_json(typed("olga", "aid", "register", "--format", "json"))
    assert [line["kind"] for line in lines] == ["grant", "grant", "reduction"]
    assert lines[2]["reduces_id"] == lines[0]["id"]
    yesterday = str(TODAY - timedelta(days=1))
    assert len(in_json(typed("marc", "aid", "register", "--to", yesterday, "--json"))) == 0
    assert len(in_json(typed("marc", "aid", "register", "--from", str(TODAY), "--json"))) == 3
    assert "lies before the first" in typed("marc", "aid", "register", "--from", str(TODAY), "--to", yesterday).err


def test_the_letter_tells_amount_regulation_act_and_duties(region: World, typed: Type, tmp_path: Path) -> None:
    enter_tariff(region)
    declared(typed)
    award_id = granted(region, "fromage", 12_345)
    with region.services.database.write() as session:
        reduce(session, award_id=award_id, credits_=45 * HOUR, act_reference="ntc-1", act_on=date(2026, 9, 1))
    file = tmp_path / "lettre.html"
    ran = typed("marc", "aid", "letter", award_id, "--out", str(file))
    assert (ran.code, ran.out) == (0, "")
    page = file.read_text()
    assert without_ids(page) == (GOLDEN / "aid_letter.html").read_text()
    assert typed("marc", "aid", "letter", award_id).out == page, "the same at any time"
    text = typed("marc", "aid", "letter", award_id, "--text").out
    assert without_ids(text) == (GOLDEN / "aid_letter.txt").read_text()


def test_what_goes_back_unused_is_aid_no_longer(region: World, typed: Type) -> None:
    enter_tariff(region)
    declared(typed)
    award_id = granted(region, "fromage", 100)
    rule = {"after_thousandths": 500, "used_below_thousandths": 300, "take_thousandths": 500}
    policy = {"kind": "pack-ia", "regime": "de-minimis", "notice_days": 15, "reclaim": [rule]}
    region.post("marc", "/programmes/pack-aide/policy", policy)
    watch_awards(region.services, noon(date(2026, 9, 1)))
    watch_awards(region.services, noon(date(2026, 9, 20)))
    lines = in_json(typed("marc", "aid", "register", "--json"))
    assert [(line["kind"], line["credits"]) for line in lines] == [("grant", 100 * HOUR), ("reduction", -50 * HOUR)]
    assert lines[1]["reduces_id"] == lines[0]["id"]
    assert lines[1]["act_reference"].startswith("rcl-")
    assert lines[1]["value_micro_euros"] * 2 == -lines[0]["value_micro_euros"]
    assert {line["award"] for line in lines} == {award_id}


@pytest.mark.parametrize(("uncounted", "lowered"), [(20, 40), (100, 0)])
def test_hours_that_are_no_aid_go_back_first(region: World, typed: Type, uncounted: int, lowered: int) -> None:
    """As of an award that was granted more while its programme gave no aid."""
    enter_tariff(region)
    declared(typed)
    award_id = granted(region, "fromage", 100)
    with region.services.database.write() as session:
        budget_id = session.get_one(Award, award_id).budget_id
        accounts = (account_id("programme", budget_id), account_id("available", award_id))
        move(session, Movement("supplement/x", "supplement", *accounts, uncounted * HOUR, award_id), utcnow())
    rule = {"after_thousandths": 500, "used_below_thousandths": 300, "take_thousandths": 500}
    policy = {"kind": "pack-ia", "regime": "de-minimis", "notice_days": 15, "reclaim": [rule]}
    region.post("marc", "/programmes/pack-aide/policy", policy)
    for day in (date(2026, 9, 1), date(2026, 9, 20)):
        watch_awards(region.services, noon(day))
    reductions = [line["credits"] for line in in_json(typed("marc", "aid", "register", "--json"))[1:]]
    assert reductions == ([-lowered * HOUR] if lowered else [])
    left = next(award for award in region.get("marc", "/awards")["items"] if award["id"] == award_id)
    assert left["available_credits"] == (100 + uncounted) * HOUR // 2


def test_the_letter_of_an_exempted_scheme(region: World, typed: Type) -> None:
    enter_tariff(region)
    award_id = granted(region, "sahne", 100, "exempted", "SA.111728")
    text = typed("marc", "aid", "letter", award_id, "--text").out
    assert "Notification d'une aide d'État relevant du régime exempté n° SA.111728" in text
    assert "règlement (UE) n° 651/2014" in text
    assert "DE HRB 42243" in text
    assert "2023/2831" not in text


def test_who_may_read_a_letter(region: World, typed: Type) -> None:
    enter_tariff(region)
    declared(typed)
    award_id = granted(region, "fromage", 10)
    for person in ("marc", "olga", "alma", "ines"):
        assert typed(person, "aid", "letter", award_id, "--text").code == 0, person
    assert (typed("nemo", "aid", "letter", award_id).code, typed("paul", "aid", "letter", award_id).code) == (6, 4)
    assert typed("paul", "aid", "letter", "awd-none").err == typed("paul", "aid", "letter", award_id).err.replace(
        award_id, "awd-none"
    )
    for words in (("show", "laiterie"), ("register",), ("rules",)):
        assert typed("ines", "aid", *words).code == 6, words
    ran = typed("alma", "aid", "declare", "laiterie", "--none", "--on", "2026-04-02", "--document", "x")
    assert ran.code == 6


def test_an_award_that_is_no_aid_has_no_letter(region: World, typed: Type) -> None:
    award_id = granted(region, "fromage", 10, "none")
    ran = typed("marc", "aid", "letter", award_id)
    assert (ran.code, "is in no register of State aid" in ran.err) == (4, True)


def test_the_rules_name_their_source(typed: Type) -> None:
    ran = typed("alma", "aid", "rules")
    assert ran.out.splitlines() == [
        "FROM        UNTIL           CEILING  YEARS  SOURCE",
        "2024-01-01  2030-12-31  300000.00 €      3  Regulation (EU) 2023/2831, art. 3(2)",
    ]
    assert "365 days" in ran.err
    assert "décret n° 2025-1361" in in_json(typed("alma", "aid", "rules", "--json"))["register_source"]
    no_ceiling = typed("alma", "aid", "show", "laiterie", "--on", "2031-01-01")
    assert "no de minimis ceiling is set for 2031-01-01" in no_ceiling.err
