"""docs/faults.md names a test for every fault."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = [row for row in (ROOT / "docs" / "faults.md").read_text().splitlines() if row.startswith("| ")]


def test_every_fault_names_a_test_that_there_is():
    """Each row ends in tests, and each of them stands in its file."""
    rows = [row for row in ROWS if "| proved by |" not in row]
    assert len(rows) > 50
    for row in rows:
        *_, proof, _ = row.split("|")
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", proof)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"
