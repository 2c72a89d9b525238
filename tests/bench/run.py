"""`make bench [BENCH=name]`: run one bench or all; exit status 1 when a bar is missed."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from harness import write

BENCHES = (
    "dispatch_ssh", "dispatch_rest", "dispatch_pyslurm", "accept", "reconcile_10k", "cli_cold", "first_line",
    "hold_postgres", "audit_10m",
)  # fmt: skip


def main(wanted: str) -> int:
    names = BENCHES if wanted == "all" else (wanted,)
    unknown = set(names) - set(BENCHES)
    if unknown:
        print(f"no bench {', '.join(unknown)}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    held = True
    for name in names:
        figures = import_module(name).measure()
        write(name, figures)
        held = held and all(figure.holds for figure in figures)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "all"))
