"""The script that measures what recording costs, as its user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "recorder_cost.py"


def test_script_compares_each_program_with_and_without_a_recording() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), "--quick"], capture_output=True, text=True, timeout=50
    )
    assert done.stderr == ""
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["program", "plain", "recorded", "ratio", "an", "event"]
    assert [re.split(r" {2,}", row)[0] for row in rows] == [
        "by hand", "stepping aside", "queues", "short tasks", "echo"
    ]  # fmt: skip
    assert all(re.search(r"\d ms +\d+\.\d ms +\d+\.\dx +-?\d+\.\d µs$", row) for row in rows)
