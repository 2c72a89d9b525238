"""Every command has an example and --json; the short way knows what Typer knows."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from cli import application, exits, quick
from cli.places import PLACES

TREE: Any = typer.main.get_command(application.application())


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    if command.invoke_without_command and path:
        yield path, command
    for name, child in command.commands.items():
        yield from leaves(child, (*path, name))


LEAVES = dict(leaves(TREE))


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_each_command_has_an_example_and_json(path: tuple[str, ...], run: Any) -> None:
    ran = run(*path, "--help")
    assert ran.code == 0
    assert "Example:\n" in ran.out
    assert f"idf-compute {' '.join(path)}" in ran.out
    assert "--json" in ran.out
    assert all(len(line) <= 100 for line in ran.out.splitlines())


def test_the_first_word_finds_its_module() -> None:
    assert list(TREE.commands) == list(PLACES)
    for word in PLACES:
        alone: Any = typer.main.get_command(application.application(word))
        assert word in alone.commands


def test_the_help_documents_each_exit_code(run: Any) -> None:
    out = run("--help").out
    for code, meaning in exits.MEANINGS.items():
        assert f"{code.value:>3}  {meaning}" in out
    assert set(exits.Exit) - set(exits.MEANINGS) == {exits.Exit.BROKEN_PIPE}


@pytest.mark.parametrize("word", quick.FORMS)
def test_the_short_way_knows_what_typer_knows(word: str) -> None:
    form, parameters = quick.FORMS[word], [p for p in LEAVES[word,].params if p.name != "help"]
    values = {opt: p.name for p in parameters for opt in p.opts if p.opts[0].startswith("-") and not p.is_flag}
    flags = {opt: p.name for p in parameters for opt in p.opts if p.opts[0].startswith("-") and p.is_flag}
    assert (form.values, form.flags) == (values, flags)
    assert {p.name for p in parameters} == set(form.defaults)
    for parameter in parameters:
        if parameter.name != form.positional:
            assert form.defaults[parameter.name] == parameter.default
    assert form.positional == next((p.name for p in parameters if not p.opts[0].startswith("-")), None)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["jobs", "--help"],
        ["jobs", "x"],
        ["jobs", "-n0"],
        ["jobs", "-n", "-1"],
        ["jobs", "--limit"],
        ["jobs", "--all=1"],
        ["show"],
        ["show", "a", "b"],
        ["logs", "--offset", "x", "j"],
        ["jobs", "-n", "٣"],
    ],
)
def test_the_short_way_leaves_all_else_to_typer(words: list[str]) -> None:
    assert quick.understood(words) is None
