"""``python -m tests.fuzz TARGET [libFuzzer options]``: fuzz one target with its corpus."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    """Run Atheris until it finds something or its options say stop."""
    import atheris

    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(TARGETS)}}} [-max_total_time=60 ...]")
    name = sys.argv.pop(1)
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as found:  # libFuzzer adds what it finds to the first
        atheris.Setup([*sys.argv, found, str(CORPUS / name)], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
