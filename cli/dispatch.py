"""Run a command and answer for whatever goes wrong: nobody is shown a traceback."""

import os
import sys

from cli.exits import Exit, Failure
from cli.output import complain


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
    """Take the short way where there is one; Typer answers all else, help and mistakes included."""
    from cli import quick

    call = None if "_IDF_COMPUTE_COMPLETE" in os.environ else quick.understood(words)
    if call is not None:
        return call() or Exit.OK
    from cli import application

    return application.run(words)


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
