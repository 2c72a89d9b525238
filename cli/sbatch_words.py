"""Read the #SBATCH lines of a script as sbatch reads them, word by word. Pure functions over text.

The grammar is that of Slurm's sbatch: lines that begin with `#SBATCH`, before the first line that is neither
blank nor a comment; words parted by blanks; single and double quotes; a backslash keeps the next character;
an unquoted `#` ends the line; options may be cut short as long as they stay unique.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from cli.exits import Exit, Failure
from cli.sbatch_options import BY_SHORT, OPTIONS, Option, Takes

_BLANK = " \t\n\v\f\r"
_HET = re.compile(r"hetjob|packjob", re.IGNORECASE)


class Found(NamedTuple):
    """An option as it stood in the script."""

    line: int
    option: Option
    value: str

    def __str__(self) -> str:
        return f"--{self.option.name}={self.value}" if self.value else f"--{self.option.name}"


def _words(script: str) -> list[tuple[int, str]]:
    """Give the words of all #SBATCH lines with their line numbers."""
    words: list[tuple[int, str]] = []
    for number, line in enumerate(script.split("\n"), start=1):
        if line.startswith("#SBATCH"):
            if _HET.search(line):
                raise wrong(number, "a heterogeneous job (hetjob) cannot be taken over", "submit its parts as jobs")
            words += [(number, word) for word in split(line.removeprefix("#SBATCH"), number)]
        elif line.startswith(("#PBS", "#BSUB", "#SLURM")):
            raise wrong(number, f"{line.split()[0]} lines are not read here", "write the line with #SBATCH")
        elif line.strip(_BLANK) and not line.lstrip(_BLANK).startswith("#"):
            break
    return words


def split(rest: str, number: int = 0) -> list[str]:
    """Split what follows `#SBATCH` into words, by sbatch's rules. Raises Failure: a quote never closed.

    As there, a backslash outside quotes does not keep a blank, and an empty word ends the line.
    """
    words: list[str] = []
    word: str | None = None
    quote, escaped = "", False
    for character in rest:
        if character in _BLANK and not quote:
            if word == "":
                return words
            words, word, escaped = [*words, word] if word else words, None, False
            continue
        if character == "#" and not quote and not escaped:
            break
        word = word or ""
        if escaped or (quote and character not in ("\\", quote)):
            word, escaped = word + character, False
        elif character == "\\":
            escaped = True
        elif character in "\"'":
            quote = "" if quote else character
        else:
            word += character
    if quote:
        raise wrong(number, f"the quote {quote} is never closed", "close it")
    return [*words, word] if word else words


def found_in(script: str) -> Iterator[Found]:
    """Give the options of a script in their order, read as getopt_long does. Raises Failure."""
    rest = list(reversed(_words(script)))
    while rest:
        number, word = rest.pop()
        if word == "--":
            return
        if word.startswith("--"):
            name, joined, value = word[2:].partition("=")
            option = _by_name(number, name)
            yield Found(number, option, _value(number, option, value if joined else None, rest))
        elif word.startswith("-") and len(word) > 1:
            yield from _shorts(number, word[1:], rest)
        else:
            raise wrong(number, f"{word!r} is no option", "quote values that hold blanks")


def _shorts(number: int, letters: str, rest: list[tuple[int, str]]) -> Iterator[Found]:
    while letters:
        option = BY_SHORT.get(letters[0])
        if option is None:
            raise wrong(number, f"the option -{letters[0]} is unknown", "delete it")
        letters = letters[1:]
        if option.takes is Takes.FLAG:
            yield Found(number, option, "")
            continue
        yield Found(number, option, _value(number, option, letters or None, rest))
        return


def _by_name(number: int, name: str) -> Option:
    """Find an option by its name or by a beginning that only it has."""
    if name in OPTIONS:
        return OPTIONS[name]
    meant = [option for option in OPTIONS.values() if name and option.name.startswith(name)]
    if len(meant) != 1:
        raise wrong(number, f"the option --{name} is unknown", "delete it, or write its whole name")
    return meant[0]


def _value(number: int, option: Option, joined: str | None, rest: list[tuple[int, str]]) -> str:
    if option.takes is Takes.FLAG and joined is not None:
        raise wrong(number, f"--{option.name} takes no value", "delete the value")
    if joined is not None or option.takes is not Takes.VALUE:
        return joined or ""
    if not rest:
        raise wrong(number, f"--{option.name} has no value", "give it one")
    return rest.pop()[1]


def wrong(number: int, sentence: str, remedy: str) -> Failure:
    """Give the refusal of a line."""
    return Failure(Exit.REFUSED, f"line {number}: {sentence}", remedy)
