"""Build as much of the Typer application as the first word needs, run it, and answer for what goes wrong."""

import os
import sys
from importlib import import_module
from typing import Any

import typer
import typer.main
from typer.exceptions import TyperException

from cli.exits import Exit, Failure, epilogue
from cli.main import PLACES
from cli.output import complain

PROGRAM = "idf-compute"
SUMMARY = "Run GPU jobs on the sites of the Île-de-France Region, and see what they cost."


def application(first_word: str | None = None) -> typer.Typer:
    """Give the application: whole, or only the module that holds the command `first_word`."""
    root = typer.Typer(name=PROGRAM, rich_markup_mode=None, pretty_exceptions_enable=False)
    root.callback(help=f"{SUMMARY}\n\n\b\n{_start_here()}\n\n\b\n{epilogue()}")(_root)
    needed = [PLACES[first_word]] if first_word in PLACES else list(dict.fromkeys(PLACES.values()))
    for module in needed:
        root.add_typer(import_module(f"cli.{module}").app)
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
    """Run one command and give its exit code (cli/exits.py)."""
    in_json = "--json" in (words[: words.index("--")] if "--" in words else words)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        sys.stdout.flush()
    except Failure as failure:
        complain(failure, in_json=in_json)
        return failure.exit_code
    except BrokenPipeError:
        return _reader_left()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place where a traceback can be kept from a user
        return _unexpected(error, in_json=in_json)
    return code


def _run(words: list[str]) -> int:
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


def _unexpected(error: Exception, *, in_json: bool) -> int:
    if os.environ.get("IDF_COMPUTE_DEBUG"):
        import traceback

        traceback.print_exc()
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.strerror:
        complain(Failure(Exit.UNEXPECTED, f"{error.filename or 'output'}: {error.strerror}"), in_json=in_json)
        return Exit.UNEXPECTED
    remedy = "this is a bug; IDF_COMPUTE_DEBUG=1 shows where it is"
    complain(Failure(Exit.UNEXPECTED, f"unexpected {what}", remedy), in_json=in_json)
    return Exit.UNEXPECTED


def _reader_left() -> int:
    """End quietly when the reader of a pipe has gone, as `head` does, and keep Python quiet at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.BROKEN_PIPE
