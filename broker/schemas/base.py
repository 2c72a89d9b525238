"""What all bodies share. Amounts are integer credits, sizes bytes, durations seconds, times UTC."""

import re
from datetime import date, datetime
from typing import Annotated, Generic, Literal, TypeVar
from unicodedata import category

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

T = TypeVar("T")

SCRIPT_BYTES_MAX = 1024 * 1024
ARGUMENT_BYTES_MAX = 128 * 1024
ENVIRONMENT_BYTES_MAX = 64 * 1024
GPUS_MAX = 4096
CPUS_MAX = 1024 * 1024
TIME_LIMIT_S_MAX = 30 * 24 * 3600


def _is_plain_text(value: str) -> str:
    """Refuse control characters and half surrogates, which no name needs and every log suffers from."""
    if any(category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("must not hold control characters, such as a newline or an escape")
    return value


def _has_no_nul(value: str) -> str:
    if "\0" in value or any(category(character) == "Cs" for character in value):
        raise ValueError("must be valid text without NUL characters")
    return value


SLUG_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
Slug = Annotated[str, StringConstraints(pattern=SLUG_PATTERN)]
"""A name that is typed: lower case letters, digits and hyphens, at most 40."""
Label = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_is_plain_text)]
"""A name that is only shown."""
ActReference = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_is_plain_text)]
"""The reference of an act of the Region, on an award."""
Sentences = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_is_plain_text)]
"""A reason, a remark: a few sentences in one line."""
Text = Annotated[str, AfterValidator(_has_no_nul)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
"""An opaque id of ours."""
GpuClassName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,39}$")]
_IMAGE_REFERENCE = (
    r"(docker|oras)://[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)+(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?"
    r"@sha256:[0-9a-f]{64}"
)
_IMAGE_PATH = r"/?[A-Za-z0-9_][A-Za-z0-9._+@-]*(/[A-Za-z0-9_][A-Za-z0-9._+@-]*)*"


def _is_image(value: str) -> str:
    if re.fullmatch(_IMAGE_REFERENCE, value) or re.fullmatch(_IMAGE_PATH, value):
        return value
    raise ValueError("must be the path of an image at the site, or docker://name@sha256:digest (or oras://)")


ModuleName = Annotated[
    str,
    StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*){0,7}$"),
]
"""An environment module of a site, such as `cuda/12.4`."""
Image = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_is_image)]
"""An Apptainer image: a path at the site, or a reference that names its very bytes."""
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Day = Annotated[date, Field(ge=date(1970, 1, 1), le=date(9000, 12, 31))]
"""A calendar day in Europe/Paris, within what both databases and Python can reckon with."""
Credits = Annotated[int, Field(gt=0, le=2**53)]
Role = Literal["engineer", "manager", "operator", "auditor"]
Confidentiality = Literal["public", "internal", "confidential"]
Nature = Literal["none", "personal", "health"]


class Schema(BaseModel):
    """The base of all bodies: an unknown field is refused, since a misspelt limit must not pass unseen."""

    model_config = ConfigDict(extra="forbid")


class RowFault(BaseModel):
    """One reason why a row of a file is refused, and what would pass; line 1 is the header."""

    line: int
    column: str | None
    """None: the row as a whole."""
    rule: str
    remedy: str | None = None


class SiteChoice(BaseModel):
    """A site as it was weighed for a job: what the job would come to there, or the rule that refuses it."""

    site: str
    kind: str
    chosen: bool = False
    gpu_class: str | None = None
    contract_kind: str | None = None
    """`allocated`: free hours; `purchased`: bought ones."""
    held_credits: int | None = None
    price_micro_euros: int | None = None
    """What the whole hold is worth at today's tariff; None where none is known, or the site refuses."""
    expected_start_at: datetime | None = None
    """By the scheduler's own estimate."""
    expected_start_unknown: str | None = None
    """Why there is no estimate."""
    code: str | None = None
    """Of the rule that refuses it; None where nothing does."""
    detail: str | None = None
    remedy: str | None = None


class Problem(BaseModel):
    """RFC 9457 problem details: which rule refused it (`code`) and what would make it pass (`remedy`)."""

    type: str = Field(examples=["urn:idf-compute:problem:award-too-small"])
    title: str
    status: int
    code: str
    detail: str
    remedy: str | None = None
    rows: list[RowFault] | None = None
    """Of a file that was refused: all that is wrong with its rows."""
    sites: list[SiteChoice] | None = None
    """Of a dry run that no site would take: each site's own reason."""


class Page(BaseModel, Generic[T]):
    """One page of a list; `next_cursor` is None on the last."""

    items: list[T]
    next_cursor: str | None = None
