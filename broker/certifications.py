"""Which services may compute on which data: a pure judgement over the proofs that a site's services have.

SecNumCloud, HDS and ISO 27001 qualify a service, not a site: each proof has a service, a version, a scope and an end
date, and an ended one no longer counts (docs/mission.md). A proof counts once a second operator confirmed it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from broker.errors import PlacementRefused

Needs = Mapping[str, Mapping[str, str]]
"""A value of an axis of the data class → the schemes of which one is needed, and of each the oldest version."""

NEEDS: dict[str, dict[str, str]] = {
    "confidential": {"secnumcloud": "3.2"},
    "personal": {"iso-27001": "2022", "secnumcloud": "3.2", "hds": "2"},
    "health": {"hds": "2"},
}
"""What is asked for unless the deployment says otherwise. HDS: its hosts had to hold version 2 by 16 May 2026, and
ISO 27001:2013 ended on 31 October 2025."""
TITLES = {"secnumcloud": "SecNumCloud", "hds": "HDS", "iso-27001": "ISO 27001"}


class DataClass(NamedTuple):
    """Both axes of what a project computes on."""

    confidentiality: str
    nature: str


@dataclass(frozen=True, slots=True)
class Proof:
    """A certification of a service of a site."""

    service: str
    scheme: str
    version: str
    scope: Collection[str]
    start_at: datetime
    end_at: datetime
    confirmed: bool


def is_sensitive(data: DataClass, needs: Needs) -> bool:
    """Say whether data of this class goes to certified services only."""
    return any(needs.get(value) for value in data)


def proven_until(
    site: str, data: DataClass, proofs: Sequence[Proof], needs: Needs, now: datetime, until: datetime
) -> datetime | None:
    """Return until when a site may compute on such data; None where it needs no certification.

    Args:
        site: its name.
        data: what the project computes on; each axis may need a proof of its own.
        proofs: what the site has.
        needs: what is asked for.
        now: a proof must have begun.
        until: a proof must not end before the job would.

    Raises:
        PlacementRefused: says what each proof of the right scheme lacks.
    """
    ends = [_end(site, value, proofs, needs[value], now, until) for value in data if needs.get(value)]
    return min(ends) if ends else None


def _end(
    site: str, value: str, proofs: Sequence[Proof], accepted: Mapping[str, str], now: datetime, until: datetime
) -> datetime:
    """Return until when the data of one axis is proven to be in good hands: the latest end of a proof that counts."""
    right = [proof for proof in proofs if proof.scheme in accepted]
    faults = [(proof, _fault(proof, accepted[proof.scheme], now, until)) for proof in right]
    good = [proof.end_at for proof, fault in faults if fault is None]
    if good:
        return max(good)
    schemes = " or ".join(f"{TITLES.get(scheme, scheme)} {version}" for scheme, version in accepted.items())
    has = "; ".join(f"{TITLES.get(proof.scheme, proof.scheme)} of {proof.service} {fault}" for proof, fault in faults)
    raise PlacementRefused(
        f"{value} data is computed on by a service with {schemes} only, and site {site} has {has or 'none'}",
        "choose another site, or an operator enters the proof: idf-compute certification add",
    )


def _fault(proof: Proof, version: str, now: datetime, until: datetime) -> str | None:
    """Say why a proof does not count; None when it does."""
    begins, ends = (f"{moment:%Y-%m-%d %H:%M} UTC" for moment in (proof.start_at, proof.end_at))
    faults = (
        ("computing" not in proof.scope, f"covers {', '.join(sorted(proof.scope))} only"),
        (_numbers(proof.version) < _numbers(version), f"is of version {proof.version}"),
        (not proof.confirmed, "waits for a second operator's confirmation"),
        (proof.end_at <= now, f"ended {ends}"),
        (proof.start_at > now, f"begins {begins}"),
        (proof.end_at < until, f"ends {ends}, before the job's time limit would"),
    )
    return next((sentence for is_so, sentence in faults if is_so), None)


def _numbers(version: str) -> tuple[int, ...]:
    """Read a version of dotted numbers, so that 3.10 is newer than 3.2, and 2.0 is no older than 2."""
    numbers = [int(number) for number in version.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
