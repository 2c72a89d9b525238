"""The short way to the commands that people and scripts repeat: their plain forms, understood without Typer.

Importing Typer and letting it read the words of `idf-compute jobs` takes longer than all the rest (README.md
has figures). What is not understood here, help and mistakes included, is left to Typer; a test holds the
forms below equal to what Typer knows.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple


class Form(NamedTuple):
    """A command: where its work is done, what stands for each parameter, and their defaults in order."""

    module: str
    values: dict[str, str]
    flags: dict[str, str]
    defaults: dict[str, Any]
    positional: str | None = None


_PROJECT = {"--project": "project", "-p": "project"}
_JSON = {"--json": "in_json"}
FORMS = {
    "jobs": Form(
        "job_views",
        {**_PROJECT, "--state": "state", "-s": "state", "--limit": "limit", "-n": "limit"},
        {"--all": "every", "-a": "every", **_JSON},
        {"project": None, "state": None, "limit": 50, "every": False, "in_json": False},
    ),
    "show": Form(
        "job_views", {}, {"--tasks": "tasks", **_JSON}, {"job": None, "tasks": False, "in_json": False}, "job"
    ),
    "logs": Form(
        "job_views",
        {"--offset": "offset"},
        {"--follow": "keep_on", "-f": "keep_on", "--raw": "raw", **_JSON},
        {"job": None, "keep_on": False, "raw": False, "offset": 0, "in_json": False},
        "job",
    ),
    "quota": Form("quota_view", _PROJECT, _JSON, {"project": None, "in_json": False}),
}
_BOUNDS = {"limit": (1, 10_000), "offset": (0, 10**18)}


def understood(words: list[str]) -> Callable[[], int | None] | None:
    """Give the call that the words mean; None when Typer has to read them."""
    form = FORMS.get(words[0]) if words else None
    given = _read(form, words[1:]) if form else None
    if form is None or given is None or (form.positional and form.positional not in given):
        return None
    return partial(getattr(import_module(f"cli.{form.module}"), words[0]), **{**form.defaults, **given})


def _read(form: Form, words: list[str]) -> dict[str, Any] | None:
    given: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        name, joined, value = word.partition("=")
        if word in form.flags:
            given[form.flags[word]] = True
        elif word in form.values or (joined and name.startswith("--") and name in form.values):
            parameter = form.values[name]
            given[parameter] = _value(parameter, value if joined else next(rest, "-"))
        elif form.positional and form.positional not in given and not word.startswith("-"):
            given[form.positional] = word
        else:
            return None
    return None if None in given.values() else given


def _value(parameter: str, text: str) -> str | int | None:
    """Read a value; None for one that Typer should judge."""
    if parameter not in _BOUNDS:
        return None if text.startswith("-") else text
    least, most = _BOUNDS[parameter]
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        return None
    return int(text) if least <= int(text) <= most else None
