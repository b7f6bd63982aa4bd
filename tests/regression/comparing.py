"""What is lost by patching: outcomes compared with the unpatched ones, and with the losses that are known.

Pure functions over data. Knows nothing of processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from watching import Outcome


@dataclass(frozen=True)
class Loss:
    """A test that is known to be lost, in which Pythons, and why."""

    test: str
    reason: str
    versions: tuple[str, ...] = ()
    """As "3.11"; none: in all of them."""
    sometimes: bool = False
    """It doesn't happen each time: not to be missed when it doesn't."""


def read_losses(data: Mapping[str, Any], version: str) -> dict[str, Loss]:
    """Return the losses known for a version, by test, from what the TOML file says."""
    found = {}
    for entry in data.get("loss", ()):
        loss = Loss(**{**entry, "versions": tuple(entry.get("versions", ()))})
        if not loss.reason:
            raise ValueError(f"{loss.test}: no reason is given for its loss")
        if not loss.versions or version in loss.versions:
            found[loss.test] = loss
    return found


def passed(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return the tests that passed."""
    return [test for test, outcome in outcomes.items() if outcome.outcome == "passed"]


def unsuccessful(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return the tests that neither passed nor were skipped."""
    return [test for test, outcome in outcomes.items() if outcome.outcome not in ("passed", "skipped")]


def lost(plain: Mapping[str, Outcome], patched: Mapping[str, Outcome]) -> list[str]:
    """Return the tests that pass unpatched only. One that is skipped when patched is lost, too."""
    return [test for test in passed(plain) if test not in patched or patched[test].outcome != "passed"]


def prefer(outcomes: Mapping[str, Outcome], again: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Return the outcomes, where a test that passed when it was tried again has passed."""
    return {
        test: again[test] if test in again and again[test].outcome == "passed" else outcome
        for test, outcome in outcomes.items()
    }


def judge(losses: Iterable[str], known: Mapping[str, Loss], ran: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the losses that are not known, and the known ones that are none (any more), among the tests that ran."""
    found, among = set(losses), set(ran)
    unknown = [test for test in sorted(found) if test not in known]
    gone = [test for test, loss in known.items() if test in among and test not in found and not loss.sometimes]
    return unknown, gone


def short(test: str) -> str:
    """Return a test's name as people type it: without the package, and without the module's name twice."""
    return re.sub(r"^test\.", "", test)
