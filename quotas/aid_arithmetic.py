"""The arithmetic of State aid: what an award is worth, which days a window of years holds, what is left. Pure.

The rules are those of Regulation (EU) 2023/2831 (OJ L, 2023/2831, 15.12.2023): the total per single undertaking
"over any period of 3 years" (art. 3(2)), counted when the right is given (art. 3(3)), gross (art. 3(5)); where a
new aid would pass the ceiling, none of it is covered (art. 3(7)).
"""

from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from quotas.amounts import CREDITS_PER_HOUR, euros_text

COUNTED_REGIMES = frozenset({"de-minimis", "de-minimis-agriculture", "de-minimis-fishery"})
"""What adds up to the general ceiling. Aid for services of general economic interest has its own (art. 5)."""

_DIVISOR = CREDITS_PER_HOUR * 1000


@dataclass(frozen=True, slots=True)
class AidCeiling:
    """How much de minimis aid one undertaking may have over so many years, on the days that a rule covers."""

    valid_from: date
    valid_until: date | None
    """The rule's last day, None while no end is known."""
    ceiling_micro_euros: int
    years: int
    source: str

    def covers(self, day: date) -> bool:
        """Say whether the rule holds on a day."""
        return self.valid_from <= day and (self.valid_until is None or day <= self.valid_until)


@dataclass(frozen=True, slots=True)
class AidRules:
    """The rules of a deployment; they are settings with their source (broker.settings)."""

    ceilings: tuple[AidCeiling, ...]
    authority: str
    """Who grants here, as companies name it in their declarations."""
    declaration_days: int
    """How old a declaration may be on the day of a grant."""

    def ceiling_on(self, day: date) -> AidCeiling | None:
        """Return the ceiling that holds on a day; the one that began last where two do."""
        found = [ceiling for ceiling in self.ceilings if ceiling.covers(day)]
        return max(found, key=lambda ceiling: ceiling.valid_from, default=None)


@dataclass(frozen=True, slots=True)
class CountedAid:
    """One de minimis aid of an undertaking, declared by it or counted here, net of its reductions."""

    granted_on: date
    organisation_id: str
    value_micro_euros: int
    reference: str
    giver: str | None
    """None for a line of ours."""
    id: str
    """The line's, or the declaration's and a number."""

    @property
    def is_declared(self) -> bool:
        """Whether the company named it, rather than this ledger."""
        return self.giver is not None


@dataclass(frozen=True, slots=True)
class AidSum:
    """What one window of years holds, against its ceiling."""

    ceiling: AidCeiling
    from_on: date
    to_on: date
    aids: tuple[CountedAid, ...]
    declared_micro_euros: int
    counted_micro_euros: int

    @property
    def total_micro_euros(self) -> int:
        """Declared and counted together."""
        return self.declared_micro_euros + self.counted_micro_euros

    @property
    def left_micro_euros(self) -> int:
        """What may still be granted; below zero where declarations alone pass the ceiling."""
        return self.ceiling.ceiling_micro_euros - self.total_micro_euros

    def words(self, value_micro_euros: int) -> str:
        """Show the sum with a further aid: declared + counted + this = sum > ceiling, and the window."""
        amounts = (self.declared_micro_euros, self.counted_micro_euros, value_micro_euros)
        declared, counted, this = map(euros_text, amounts)
        total = self.total_micro_euros + value_micro_euros
        sign = ">" if total > self.ceiling.ceiling_micro_euros else "<="
        ceiling = euros_text(self.ceiling.ceiling_micro_euros)
        return (
            f"{declared} declared + {counted} counted + {this} for this award = {euros_text(total)} {sign} {ceiling}, "
            f"the ceiling of {self.ceiling.source} over {self.ceiling.years} years ({self.from_on} to {self.to_on})"
        )


def aid_value(credits_: int, micro_euros_per_hour: int, public_thousandths: int) -> int:
    """Return what credits are worth as aid, in micro-euros rounded down (docs/rules.md).

    credits / 3,600,000 × micro-euros per normalised GPU-hour × the public share: what the company pays is no aid.
    """
    return credits_ * micro_euros_per_hour * public_thousandths // _DIVISOR


def largest_credits(room_micro_euros: int, micro_euros_per_hour: int, public_thousandths: int) -> int | None:
    """Return the most credits whose value as aid fits; None where no amount has a value."""
    rate = micro_euros_per_hour * public_thousandths
    if rate == 0:
        return None
    return max(0, ((room_micro_euros + 1) * _DIVISOR - 1) // rate)


def reference_rate(tariffs: Mapping[tuple[str, str], int], weights: Mapping[str, int]) -> int | None:
    """Return micro-euros per normalised GPU-hour: the dearest of all tariffs, since an award may be used anywhere.

    `tariffs` are micro-euros per GPU-hour by site and GPU class, `weights` thousandths by class, both of one day.
    A class without a weight is left out: no job can run on it. None where nothing is known; never guessed.
    """
    rates = [tariff * 1000 // weights[name] for (_, name), tariff in tariffs.items() if name in weights]
    return max(rates, default=None)


def window_start(day: date, years: int) -> date:
    """Return the first day of the window of years that ends with a day, both of them in it.

    The same date so many years before, or the last day of that month where it has no such date: as the Walloon
    State-aid authority counts it (30 January 2021 to 30 January 2024), and as periods in years are counted from an
    event (Regulation 1182/71, art. 3). It is the stricter reading: an aid of the anniversary still meets the first.
    """
    year = day.year - years
    return date(year, day.month, min(day.day, monthrange(year, day.month)[1]))


def leaves_on(day: date, years: int) -> date:
    """Return the first day whose window no longer holds an aid granted on a day."""
    year = day.year + years
    after = date(year, day.month, min(day.day, monthrange(year, day.month)[1])) + timedelta(days=1)
    while window_start(after, years) <= day:  # 28 February, when the anniversary's month has a 29th
        after += timedelta(days=1)
    return after


def sum_on(aids: Iterable[CountedAid], ceiling: AidCeiling, day: date) -> AidSum:
    """Sum up the aids of the window that ends with a day."""
    from_on = window_start(day, ceiling.years)
    held = tuple(sorted((a for a in aids if from_on <= a.granted_on <= day), key=lambda a: (a.granted_on, a.id)))
    return AidSum(
        ceiling=ceiling,
        from_on=from_on,
        to_on=day,
        aids=held,
        declared_micro_euros=sum(aid.value_micro_euros for aid in held if aid.is_declared),
        counted_micro_euros=sum(aid.value_micro_euros for aid in held if not aid.is_declared),
    )


def tightest(aids: Sequence[CountedAid], rules: AidRules, day: date) -> AidSum | None:
    """Return the window with the least room among all that hold a day; None where no ceiling is set for it.

    For an aid that is entered late, a window that ends with a later aid may be the fuller one.
    """
    own = rules.ceiling_on(day)
    if own is None:
        return None
    sums = [sum_on(aids, own, day)]
    for end in sorted({aid.granted_on for aid in aids if aid.granted_on > day}):
        ceiling = rules.ceiling_on(end) or own
        if window_start(end, ceiling.years) <= day:
            sums.append(sum_on(aids, ceiling, end))
    return min(sums, key=lambda found: found.left_micro_euros)


def first_fitting_day(aids: Sequence[CountedAid], rules: AidRules, day: date, value_micro_euros: int) -> date | None:
    """Return the first later day on which an aid would pass if nothing else were granted; None if none is known."""
    ceiling = rules.ceiling_on(day)
    if ceiling is None:
        return None
    for end in sorted({leaves_on(aid.granted_on, ceiling.years) for aid in aids}):
        found = tightest(aids, rules, end) if end > day else None
        if found is not None and found.left_micro_euros >= value_micro_euros:
            return end
    return None
