"""Build as much of the Typer application as the first word needs, and run it."""

import os
from importlib import import_module
from typing import Any

import typer
import typer.main
from typer.exceptions import TyperException

from cli.exits import Exit, Failure, epilogue
from cli.places import PLACES

PROGRAM = "idf-compute"
SUMMARY = "Run GPU jobs on the sites of the Île-de-France Region, and see what they cost."


def application(first_word: str | None = None) -> typer.Typer:
    """Give the application: whole, or only the module that holds the command `first_word`."""
    root = typer.Typer(name=PROGRAM, rich_markup_mode=None, pretty_exceptions_enable=False)
    root.callback(help=f"{SUMMARY}\n\n\b\n{_start_here()}\n\n\b\n{epilogue()}")(_root)
    needed = [PLACES[first_word]] if first_word in PLACES else list(dict.fromkeys(PLACES.values()))
    for module in needed:
        app = import_module(f"cli.{module}").app
        for group in app.registered_groups:
            group.epilog = f"Each command has an example: {PROGRAM} {group.name} COMMAND --help"
        root.add_typer(app)
    return root


def _root(
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    """Nothing: a command follows."""


def _start_here() -> str:
    steps = [
        "idf-compute login --url https://broker.example",
        "idf-compute submit --try train.sbatch",
        "idf-compute submit --dir . --gpus 2 --time 2h --follow -- python train.py",
        "idf-compute quota",
    ]
    return "\n".join(["Example:", *(f"  {step}" for step in steps)])


def run(words: list[str]) -> int:
    """Run one command. Raises Failure, also for words that were not understood."""
    completing = "_IDF_COMPUTE_COMPLETE" in os.environ
    command = typer.main.get_command(application(words[0] if words and not completing else None))
    try:
        code = command.main(words or ["--help"], prog_name=PROGRAM, standalone_mode=False, obj=words)
    except typer.Abort:
        return Exit.INTERRUPTED
    except TyperException as error:
        raise _usage(error) from error
    return code if isinstance(code, int) else Exit.OK


def _usage(error: Any) -> Failure:
    """Turn Typer's complaint about the words into one sentence, and point at the command's own help."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    sentence = " ".join(error.format_message().split()).removesuffix(".")
    return Failure(Exit.USAGE, sentence or "a command is missing", f"see: {path} --help")
