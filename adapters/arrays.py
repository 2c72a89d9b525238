"""Arrays in Slurm's own words, such as `0-15%4` or `1,3,5-9:2`: which tasks they name, and how many run at once.

Source: sbatch(1) of 22.05 to 26.05, option `--array`. Pure functions; what Slurm would not take is refused here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

INDEX_MAX = 4_000_000
"""The largest index that any Slurm can be told to allow: MaxArraySize is at most 4,000,001."""
TASKS_MAX = 100_000
"""More than any site allows at once; a bound on what is expanded."""
_RANGE = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7})(?::([0-9]{1,7}))?)?", re.ASCII)
_AT_ONCE = re.compile(r"[0-9]{1,7}", re.ASCII)
_WRITE = "write --array 0-15, --array 1,3,5-9:2 or --array 0-15%4"


class ArrayWrong(ValueError):
    """An array that cannot be; `remedy` says what would pass."""

    def __init__(self, detail: str, remedy: str = _WRITE) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Array:
    """The tasks of an array job."""

    tasks: tuple[int, ...]
    """Their indices, ascending, each once."""
    limit: int | None = None
    """How many of them may run at one time (`%4`); None: any number."""

    @property
    def at_once(self) -> int:
        """How many tasks run at one time at most."""
        return min(len(self.tasks), self.limit or len(self.tasks))


def parse_array(text: str) -> Array:
    """Read an array; indices that are named twice count once.

    Raises:
        ArrayWrong: Slurm would not take it, or it has more than `TASKS_MAX` tasks.
    """
    ranges, percent, limit = text.partition("%")
    if percent and (not _AT_ONCE.fullmatch(limit) or int(limit) == 0):
        raise ArrayWrong(f"the array {text!r} does not say how many tasks may run at once")
    tasks: set[int] = set()
    for part in ranges.split(","):
        some = _range(part, text)
        if len(tasks) + len(some) > TASKS_MAX:
            raise ArrayWrong(f"the array {text[:80]!r} names more than {TASKS_MAX} tasks", "submit several arrays")
        tasks.update(some)
    return Array(tuple(sorted(tasks)), int(limit) if percent else None)


def _range(part: str, text: str) -> range:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise ArrayWrong(f"the array {text!r} is not understood")
    first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
    if last < first or step == 0:
        raise ArrayWrong(f"the array {text!r} has a range that names nothing: {part}")
    if last > INDEX_MAX:
        raise ArrayWrong(f"the array {text!r} has an index above {INDEX_MAX}", "number the tasks from 0 on")
    return range(first, last + 1, step)


def array_words(tasks: Sequence[int], limit: int | None = None) -> str:
    """Write tasks (ascending) as Slurm takes them, ranges where there are any."""
    words = ",".join(_words(list(tasks)))
    return words if limit is None else f"{words}%{limit}"


def _words(tasks: list[int]) -> Iterator[str]:
    steps = [after - before for before, after in pairwise(tasks)]
    start = 0
    while start < len(tasks):
        end = start
        while end < len(steps) and steps[end] == steps[start]:
            end += 1
        if end - start >= 2:
            step = steps[start]
            yield f"{tasks[start]}-{tasks[end]}" + (f":{step}" if step > 1 else "")
            start = end + 1
        else:
            yield str(tasks[start])
            start += 1


def task_name(name: str, task: int | None) -> str:
    """Return what one task of an array is called: the job's name, or its id at a site, with `_7` behind it."""
    return name if task is None else f"{name}_{task}"
