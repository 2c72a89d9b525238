"""What leads and managers type about awards, from the command line to the real service."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typed import Type, in_json, typing_at
from world import World, world

from cli.award_file import TEMPLATE
from cli.exits import Exit
from quotas.amounts import PARIS
from storage.tables import utcnow

TODAY = utcnow().astimezone(PARIS).date()
DAYS = ("--from", str(TODAY), "--to", str(TODAY + timedelta(days=120)))
ANSWERS = (
    "--worked", "partly", "--in-production", "planned", "--jobs-created", "unknown",
    "--benefit", "a third less scrap", "--next-step", "a pilot line",
)  # fmt: skip


@pytest.fixture
def region(database_url: str, tmp_path: Path) -> Iterator[World]:
    with world(database_url, tmp_path) as made:
        made.post("marc", "/projects", {"name": "lumen", "organisation": "acme", "programme": "pack-ia-2026"})
        made.post("marc", "/projects/lumen/members", {"person": "nemo", "role": "lead"})
        yield made
        assert made.faults() == []


@pytest.fixture
def typed(
    region: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Type]:
    with typing_at(region, tmp_path, monkeypatch, capfd) as run:
        yield run


def granted(typed: Type, hours: str = "50h") -> str:
    return str(in_json(typed("marc", "award", "grant", "lumen", hours, *DAYS, "--json"))["id"])


def test_from_a_request_to_the_first_job_in_three_commands(typed: Type, region: World) -> None:
    asked = typed("nemo", "award", "request", "lumen", "50h", *DAYS, "--purpose", "defects on film")
    assert asked.code == 0
    award_id = asked.out.split()[1].rstrip(":")
    approved = typed("marc", "award", "approve", award_id)
    assert approved.code == 0
    submitted = typed("nemo", "submit", "--gpus", "1", "--time", "1h", "--", "hostname")
    assert submitted.code == 0, submitted.err
    region.step()
    assert region.get("nemo", "/jobs")["items"][0]["state"] == "queued"
    assert asked.out.endswith(f"requested; a manager decides: idf-compute award approve {award_id}\n")
    assert approved.out == f"award {award_id}: 50 h, from {DAYS[1]}, until {DAYS[3]}, active\n"


def test_a_review_in_words(typed: Type) -> None:
    award_id = in_json(typed("nemo", "award", "request", "lumen", "50h", *DAYS, "--json"))["id"]
    assert typed("marc", "award", "comment", award_id, "which data?\x1b[2J").code == Exit.USAGE
    assert "in_review" in typed("marc", "award", "comment", award_id, "which data?").out
    queue = typed("marc", "award", "list", "--state", "in_review").out.splitlines()
    assert queue[0].split()[-1] == "AGE"
    assert queue[1].split()[:3] == [award_id, "lumen", "in_review"]
    assert queue[1].endswith("0 h")
    assert len(queue) == 2
    papers = ("--act", "CP 2026-114", "--act-on", "2026-11-20")
    assert typed("marc", "award", "approve", award_id, "--hours", "40h", "--to", DAYS[3], *papers).code == 0
    shown = typed("nemo", "award", "show", award_id)
    assert "requested     50 h by nemo" in shown.out
    assert "awarded       40 h" in shown.out
    assert "act           CP 2026-114 of 2026-11-20" in shown.out
    assert "data          writable; writable until" in shown.out
    steps = [line.split()[3] for line in typed("nemo", "award", "events", award_id).out.splitlines()[1:]]
    assert steps == ["requested", "commented", "granted"]
    again = typed("marc", "award", "refuse", award_id, "--reason", "too late")
    assert (again.code, "is granted: it cannot be refused" in again.err) == (Exit.REFUSED, True)


def test_requests_that_come_to_nothing(typed: Type) -> None:
    one, other = (in_json(typed("nemo", "award", "request", "lumen", "5h", *DAYS, "--json"))["id"] for _ in range(2))
    assert "refused" in typed("marc", "award", "refuse", one, "--reason", "the cohort is full").out
    assert in_json(typed("nemo", "award", "withdraw", other, "--json"))["state"] == "withdrawn"
    assert typed("ines", "award", "show", one).code == Exit.NOT_FOUND
    assert typed("ines", "award", "request", "lumen", "5h", *DAYS).code == Exit.NOT_FOUND
    assert typed("ines", "award", "request", "vision", "5h", *DAYS).code == Exit.FORBIDDEN


def test_changes_in_words(typed: Type) -> None:
    award_id, other = granted(typed), granted(typed)
    asked = typed("nemo", "award", "supplement", award_id, "10h", "--reason", "twice the data")
    change_id = asked.out.split()[1]
    assert asked.out.endswith(f"requested; a manager decides: idf-compute award approve {change_id}\n")
    queue = typed("marc", "award", "changes", "--state", "requested").out.splitlines()
    assert queue[1].split()[:7] == [change_id, award_id, "lumen", "supplement", "requested", "10", "h"]
    assert typed("marc", "award", "approve", change_id, "--hours", "5h").code == Exit.USAGE
    assert typed("marc", "award", "approve", change_id).out == f"supplement {change_id} of award {award_id}: granted\n"
    later = str(TODAY + timedelta(days=150))
    extended = typed("marc", "award", "extend", award_id, "--to", later, "--reason", "late data")
    assert extended.out.splitlines()[0].endswith("granted")
    assert "keep the deadline" in extended.out
    assert typed("nemo", "award", "transfer", award_id, other, "20h", "--reason", "they need it").code == 0
    closing = in_json(typed("nemo", "award", "close", other, *ANSWERS, "--json"))
    assert [change["kind"] for change in closing["changes"]] == ["transfer", "closure"]
    listed = typed("nemo", "award", "changes").out
    assert f"20 h to {other}" in listed
    assert f"until {later}" in listed
    transfer_id = closing["changes"][0]["id"]
    assert "refused" in typed("marc", "award", "refuse", transfer_id, "--reason", "keep it").out
    assert "withdrawn" in typed("nemo", "award", "withdraw", closing["changes"][1]["id"]).out
    shown = typed("marc", "award", "show", award_id).out
    assert "60 h of 60 h" in shown


def test_a_closure_in_words(typed: Type) -> None:
    award_id = granted(typed)
    assert typed("marc", "award", "close", award_id, *ANSWERS[:5], "many", *ANSWERS[6:]).code == Exit.USAGE
    shown = typed("marc", "award", "close", award_id, *ANSWERS)
    assert ", closed, approved by marc" in shown.out.splitlines()[0]
    assert "jobs created  unknown" in shown.out
    assert "final         0 h" in shown.out
    following = typed(
        "nemo", "award", "continue", award_id, "20h", "--from", DAYS[3], "--to", str(TODAY + timedelta(days=200))
    )
    assert following.code == 0
    further = following.out.split()[1].rstrip(":")
    assert f"goes on from  {award_id}" in typed("nemo", "award", "show", further).out


def test_the_end_in_words(typed: Type) -> None:
    soon = in_json(
        typed(
            "marc", "award", "grant", "lumen", "5h", "--from", DAYS[1], "--to", str(TODAY + timedelta(days=1)), "--json"
        )
    )["id"]
    assert f"{soon} (lumen): it ends tomorrow" in typed("nemo", "award", "list").out
    assert "it ends tomorrow" in typed("nemo", "quota").out
    assert "it ends tomorrow" in typed("nemo", "submit", "--time", "10", "--", "hostname").err
    assert "it ends tomorrow" in typed("nemo", "award", "show", soon).err


def test_an_import_in_words(typed: Type, tmp_path: Path) -> None:
    template = typed("marc", "award", "import", "--template")
    assert template.out == TEMPLATE
    assert in_json(typed("marc", "award", "import", "--template", "--json")) == {"template": TEMPLATE}
    file = tmp_path / "cohort.csv"
    file.write_text(
        template.out.replace("acme", "orga").replace("ines", "zoe").replace("73282932000074", "7328293200007")
    )
    words = ("award", "import", str(file), "--programme", "pack-ia-2026")
    bad = typed("marc", *words)
    assert bad.code == Exit.REFUSED
    assert "siret" in bad.out
    assert "1 of 2 rows are refused, so none is entered" in bad.err
    assert typed("marc", *words, "--json").code == Exit.REFUSED
    file.write_text("\ufeff" + template.out.replace("acme", "orga").replace("ines", "zoe"))
    dry = typed("marc", *words, "--dry-run")
    assert dry.out.startswith(
        "2 awards would be granted in pack-ia-2026: 350.5 h\n  organisations 2 new: nordlicht, orga"
    )
    first = typed("marc", *words)
    assert first.out.startswith("2 awards are granted in pack-ia-2026: 350.5 h")
    assert typed("marc", *words).out == first.out, "the same file again is the same request"
    assert len(in_json(typed("marc", *words, "--json"))["awards"]) == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "cannot read"), (b"\xff\xfe", "is not UTF-8"), (b"x" * (2**21 + 1), "larger than 2 MiB")],
)
def test_files_that_cannot_be_sent(typed: Type, tmp_path: Path, content: bytes | None, sentence: str) -> None:
    file = tmp_path / "cohort.csv"
    if content is not None:
        file.write_bytes(content)
    ran = typed("marc", "award", "import", str(file), "--programme", "pack-ia-2026")
    assert (ran.code, sentence in ran.err) == (Exit.USAGE, True)
    assert typed("marc", "award", "import", str(file)).code == Exit.USAGE


def test_many_new_names_are_shortened() -> None:
    from cli.award_file import _some

    assert _some([]) == "none is new"
    assert _some([f"n{number}" for number in range(7)]) == "7 new: n0, n1, n2, n3, n4, … 2 more"
