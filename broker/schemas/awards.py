"""Awards from their request to their closure, changes of them, and what is left."""

from datetime import date, datetime
from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from broker.schemas.base import (
    ActReference,
    Credits,
    Day,
    Id,
    Schema,
    Sentences,
    Slug,
    Text,
)
from broker.schemas.underuse import ForecastOut
from quotas.award_life import AwardState, ChangeKind, ChangeState, InProduction, StoragePhase, Worked

IMPORT_BYTES_MAX = 2 * 1024 * 1024
"""Of the text of a file of awards; 2,000 rows of 16 full columns are less."""


class AwardIn(Schema):
    """The right of a project to consume credits; both dates are days in Europe/Paris, the end included."""

    project: Slug
    amount_credits: Credits
    start_on: Day
    end_on: Day
    purpose: Sentences | None = None
    continues: Id | None = None
    """An award of the same project that this one goes on from: data and members stay as they are."""
    act_reference: ActReference | None = None
    act_on: Day | None = None

    @model_validator(mode="after")
    def _ends_after_start(self) -> "AwardIn":
        if self.end_on < self.start_on:
            raise ValueError("end_on is before start_on")
        return self


class CommentIn(Schema):
    """A remark on an award."""

    text: Sentences


class ReasonIn(Schema):
    """Why a request is refused or taken back."""

    reason: Sentences


class ApproveIn(Schema):
    """On which terms an award is approved; what is left out stays as it is under review."""

    amount_credits: Credits | None = None
    start_on: Day | None = None
    end_on: Day | None = None
    act_reference: ActReference | None = None
    """The Region's decision."""
    act_on: Day | None = None


class SupplementIn(Schema):
    """More credits for an award."""

    amount_credits: Credits
    reason: Sentences


class ExtensionIn(Schema):
    """A later last day for an award, in Europe/Paris, included."""

    end_on: Day
    reason: Sentences


class TransferIn(Schema):
    """Credits of an award for another one of the same programme."""

    to_award: Id
    amount_credits: Credits
    reason: Sentences


class OutcomeIn(Schema):
    """The answers to the five questions at an award's closure."""

    worked: Worked
    """Did the proof of concept work?"""
    in_production: InProduction
    jobs_created: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """None: unknown."""
    benefit: Sentences
    """What did it bring in return?"""
    next_step: Sentences
    reason: Sentences = "its work is done"
    """Why it is closed early; of no account where it has ended."""


class ImportIn(Schema):
    """A cohort's awards as a CSV text, of a programme; all of them or none."""

    programme: Slug
    csv: Annotated[Text, Field(max_length=IMPORT_BYTES_MAX)]
    dry_run: bool = False


class ClassHours(BaseModel):
    """How long one GPU of a class could run on what is available, in seconds rounded down."""

    gpu_class: str
    weight_thousandths: int
    available_s: int


class StorageOut(BaseModel):
    """What may be done with an award's data now, and until when."""

    phase: StoragePhase
    writable_until: datetime
    export_from: datetime
    export_until: datetime


class AwardOut(BaseModel):
    """An award and its balances; total = available + held + consumed - overrun."""

    id: str
    project: str
    programme: str
    state: AwardState
    start_at: datetime
    end_at: datetime
    active: bool
    """Whether it is granted and this moment lies within its dates."""
    requested_credits: int
    proposed_credits: int
    awarded_credits: int | None
    """What was granted, without supplements; None: not granted."""
    final_credits: int | None
    """What it came to; None: not closed."""
    total_credits: int
    """Granted, supplements and transfers in, less transfers out, reclaimed and expired credits."""
    available_credits: int
    held_credits: int
    consumed_credits: int
    overrun_credits: int
    classes: list[ClassHours]
    storage: StorageOut | None
    """None: not granted, so there is no place for data."""
    purpose: str | None
    continues: str | None
    act_reference: str | None
    act_on: date | None
    requested_by: str | None
    """None: not known, as of awards from before requests were kept."""
    requested_at: datetime
    granted_at: datetime | None
    closed_at: datetime | None
    notices: list[str]
    """What its people should know now: that its end is near, until when data may be taken out."""


class AwardEventOut(BaseModel):
    """One step of an award's story; `person` is None where a date took it."""

    id: int
    at: datetime
    person: str | None
    kind: str
    text: str


class AwardChangeOut(BaseModel):
    """A change that was asked for, and what was decided."""

    id: str
    award: str
    project: str
    kind: ChangeKind
    state: ChangeState
    amount_credits: int | None
    end_at: datetime | None
    other_award: str | None
    reason: str
    asked_by: str | None
    asked_at: datetime
    decided_at: datetime | None
    approved_by: list[str]
    notices: list[str]


class OutcomeOut(BaseModel):
    """What came of an award, as its closure told."""

    worked: Worked
    in_production: InProduction
    jobs_created: int | None
    benefit: str
    next_step: str
    person: str | None
    at: datetime


class AwardDetail(AwardOut):
    """An award with its whole story."""

    approved_by: list[str]
    events: list[AwardEventOut]
    changes: list[AwardChangeOut]
    outcome: OutcomeOut | None


class ImportOut(BaseModel):
    """What an import made, or would make."""

    id: str
    """The programme's: where the awards are."""
    programme: str
    dry_run: bool
    rows: int
    organisations: list[str]
    """Names of those that are new; likewise below."""
    projects: list[str]
    persons: list[str]
    awards: list[str]
    """Ids; none in a dry run."""
    amount_credits: int
    left_credits: int
    """What the programme's budgets that they draw from have left then."""


class QuotaOut(BaseModel):
    """What is left, award by award, for the projects the caller may see."""

    awards: list[AwardOut]
    forecasts: list[ForecastOut]
    """Of those that are granted and have not ended."""
