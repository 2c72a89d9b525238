"""The command `idf-compute`. Only what the first word needs is imported; `--version` needs nothing."""

import sys

from cli import __version__


def main() -> None:
    """Run the command line and end the process with its exit code (cli/exits.py)."""
    if sys.argv[1:] == ["--version"]:
        print(f"idf-compute {__version__}")
        return
    sys.exit(run(sys.argv[1:]))


def run(words: list[str]) -> int:
    """Run one command and give its exit code. Nothing that goes wrong is shown as a traceback."""
    from cli import dispatch

    return dispatch.run(words)


if __name__ == "__main__":
    main()
