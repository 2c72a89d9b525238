"""`idf-compute-broker` run in this process, as a shell would see it."""

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from broker import admin


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class BrokerCommand:
    """Types commands against a data folder of the test's own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, output: pytest.CaptureFixture[str]) -> None:
        self._folder, self._patch, self._output = folder, patch, output

    def __call__(self, *arguments: str, **settings: str) -> Ran:
        self._output.readouterr()
        with self._patch.context() as patch:
            patch.setattr(sys, "argv", ["idf-compute-broker", *arguments])
            for name, value in {"DATA_DIR": str(self._folder), **settings}.items():
                patch.setenv(f"IDF_BROKER_{name}", value)
            code = self._code()
        return Ran(code, *self._output.readouterr())

    def _code(self) -> int:
        try:
            admin.main()
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
                return 1
            return end.code or 0
        return 0
