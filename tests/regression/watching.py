"""Run a module's tests in processes of their own, and see to it that none of them holds up the others.

A test that takes too long is marked as hung, and one that ends its process as crashed; the rest of the module then goes
on in another process. Knows `one_module.py` and the events that it writes. Knows nothing of what is compared.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STARTING = 60  # seconds for everything before the first test, and between one test and the next


@dataclass
class Outcome:
    """How a test ended: passed, failed, error, skipped, hung, crashed, or not run. A whole module: also broken."""

    outcome: str
    cause: str = ""
    seconds: float = 0.0


@dataclass
class Attempt:
    """One process, and what is known of it so far."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    tests: list[str] = field(default_factory=list)
    fixtures: dict[str, Outcome] = field(default_factory=dict)
    running: str | None = None
    verdict: str = ""
    """Once it has said so: done, skipped or broken."""
    cause: str = ""

    def take(self, event: dict[str, Any]) -> None:
        """Take one event."""
        match event["event"]:
            case "tests":
                self.tests = event["tests"]
            case "start":
                self.running = event["test"]
            case "end":
                self.outcomes[event["test"]] = _outcome(event)
                self.running = None
            case "fixture":
                self.fixtures[event["name"]] = _outcome(event)
            case verdict:
                self.verdict, self.cause = verdict, event.get("cause", "")

    def not_run(self, test: str) -> Outcome:
        """Say why a test has not been run: its class's or its module's setting up failed, or skipped it."""
        for name, outcome in self.fixtures.items():
            kind, _, whose = name.rstrip(")").partition(" (")
            if kind.startswith("setUp") and test.startswith(f"{whose}."):
                return Outcome(outcome.outcome, f"{kind}: {outcome.cause}")
        return Outcome("not run", self.cause or "nobody has said why")


def whole_module(module: str) -> str:
    """Return the name under which it is told why a module's tests couldn't even be listed."""
    return f"test.{module}"


class Watch:
    """How to run modules: by which interpreter, patched or not, and how long a test may take (in seconds)."""

    def __init__(self, mode: str, limit: float, log: Path, python: str = sys.executable) -> None:
        self.mode = mode
        self.limit = limit
        self.log = log
        self.python = python

    def run(self, module: str, only: list[str] | None = None, matching: str | None = None) -> dict[str, Outcome]:
        """Run a module's tests, or `only` those, or those `matching` a text; return how each of them ended.

        If it doesn't get as far as that, the outcome of `whole_module(module)` tells why.
        """
        outcomes: dict[str, Outcome] = {}
        while True:
            attempt = self._attempt(module, {"only": only, "matching": matching, "skip": list(outcomes)})
            outcomes.update(attempt.outcomes)
            if attempt.verdict or attempt.running is None:
                break  # one that ends between two tests would do so again
        outcomes.update({test: attempt.not_run(test) for test in attempt.tests if test not in outcomes})
        if not attempt.tests and attempt.verdict != "done":
            outcomes[whole_module(module)] = Outcome(attempt.verdict or "not run", attempt.cause)
        return outcomes

    def _attempt(self, module: str, choice: dict[str, Any]) -> Attempt:
        attempt = Attempt()
        with tempfile.TemporaryDirectory(prefix="regression-", ignore_cleanup_errors=True) as directory:
            events = Path(directory, "events")
            events.touch()
            os.mkdir(place := Path(directory, "cwd"))
            with open(self.log, "ab") as log:
                log.write(f"\n=== {module}, {self.mode}\n".encode())
                log.flush()
                command = [self.python, str(HERE / "one_module.py"), module, self.mode, str(events)]
                process = subprocess.Popen(
                    command, cwd=place, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
                )
                _running.add(process)
                try:
                    assert process.stdin is not None
                    with process.stdin as stdin, suppress(BrokenPipeError):
                        stdin.write(json.dumps(choice).encode())
                    self._follow(process, events, attempt)
                finally:
                    _end(process)
        return attempt

    def _follow(self, process: subprocess.Popen[bytes], events: Path, attempt: Attempt) -> None:
        """Take events until the process has ended, or has gone too long without one; then tell what its test did."""
        last = time.monotonic()
        with open(events) as lines:
            while True:
                ended = process.poll() is not None  # first: what it wrote before it ended is to be read
                for event in _whole_lines(lines):
                    attempt.take(event)
                    last = time.monotonic()
                if ended or attempt.verdict == "done":
                    break
                if time.monotonic() - last > (STARTING if attempt.running is None else self.limit):
                    os.kill(process.pid, signal.SIGABRT)  # the log then tells where it hung
                    _wait(process, 5)
                    break
                time.sleep(0.02)
        if attempt.running is not None:
            seconds = round(time.monotonic() - last, 1)
            what = Outcome("crashed", f"ended with status {process.returncode}") if ended else Outcome("hung", "")
            what.cause, what.seconds = what.cause or f"no end within {self.limit:g} s", seconds
            attempt.outcomes[attempt.running] = what
        elif not attempt.verdict:
            attempt.cause = f"ended with status {process.poll()}, outside of a test" if ended else "hung between tests"


def _outcome(event: dict[str, Any]) -> Outcome:
    return Outcome(event["outcome"], event["cause"], event.get("seconds", 0.0))


def _whole_lines(lines: Any) -> Iterator[dict[str, Any]]:
    while True:
        before = lines.tell()
        line = lines.readline()
        if not line.endswith("\n"):
            lines.seek(before)
            return
        yield json.loads(line)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, which gets a little time to end by itself, and everything that it has left in its group."""
    _wait(process, 10)
    _kill(process)
    process.wait()
    _running.discard(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


_running: set[subprocess.Popen[bytes]] = set()


def end_all(number: int, frame: object) -> None:
    """End all processes, and this one: a signal handler."""
    for process in list(_running):
        _kill(process)
    os._exit(128 + number)
