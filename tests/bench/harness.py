"""What every bench shares: figures with their bars, medians of both sides taken in turn, the lines and the JSON."""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path("build/bench")


@dataclass(frozen=True)
class Figure:
    """A measured figure. A bar on a ratio or on our own value, to be reached from above or below."""

    figure: str
    unit: str
    ours: float
    raw: float | None
    ratio: float | None
    bar: float
    holds: bool

    def line(self) -> str:
        raw = "-" if self.raw is None else f"{self.raw:.4g}"
        ratio = "-" if self.ratio is None else f"{self.ratio:.3f}"
        verdict = "holds" if self.holds else "MISSED"
        return (
            f"{self.figure:<20} ours {self.ours:.4g} {self.unit}  raw {raw}  ratio {ratio}  bar {self.bar:g}  {verdict}"
        )


def at_least(figure: str, unit: str, ours: Sequence[float], raw: Sequence[float], bar: float) -> Figure:
    """A rate that must reach a share of the raw one; the ratio is the median of the rounds' ratios."""
    ratio = statistics.median(o / r for o, r in zip(ours, raw, strict=True))
    return Figure(figure, unit, statistics.median(ours), statistics.median(raw), ratio, bar, ratio >= bar)


def at_most_times(figure: str, unit: str, ours: Sequence[float], raw: Sequence[float], bar: float) -> Figure:
    """A time that must stay below a multiple of the raw one."""
    ratio = statistics.median(o / r for o, r in zip(ours, raw, strict=True))
    return Figure(figure, unit, statistics.median(ours), statistics.median(raw), ratio, bar, ratio <= bar)


def at_most_more(figure: str, unit: str, ours: Sequence[float], raw: Sequence[float], bar: float) -> Figure:
    """A time that may pass the raw one by at most `bar`; the ratio is shown and not judged."""
    more = statistics.median(o - r for o, r in zip(ours, raw, strict=True))
    mine, theirs = statistics.median(ours), statistics.median(raw)
    return Figure(figure, unit, mine, theirs, mine / theirs, bar, more <= bar)


def at_most(figure: str, unit: str, ours: Sequence[float], bar: float) -> Figure:
    """A value with a bar of its own."""
    value = statistics.median(ours)
    return Figure(figure, unit, value, None, None, bar, value <= bar)


def in_turn(rounds: int, ours: Callable[[], float], raw: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Measure both sides in turn, after one round of each that is not counted."""
    ours(), raw()
    pairs = []
    for number in range(rounds):
        pairs.append((ours(), raw()))
        progress(f"round {number + 1}/{rounds}: ours {pairs[-1][0]:.4g}, raw {pairs[-1][1]:.4g}")
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def progress(sentence: str) -> None:
    """Say on standard error how far it is."""
    print(f"   {sentence}", file=sys.stderr, flush=True)


def write(bench: str, figures: Sequence[Figure]) -> None:
    """Print a bench's lines and keep them as JSON."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{bench}.json").write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    for figure in figures:
        print(figure.line(), flush=True)
