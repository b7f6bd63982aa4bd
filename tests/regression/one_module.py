"""Run tests of one module of the standard library's `test` package in this process, and tell how each one ends.

    python one_module.py MODULE MODE EVENTS < TESTS

MODE is `plain`, `greenswitch` or `gevent`: what to patch, before anything of the tests is imported. EVENTS is a file to
which one line of JSON is appended when a test starts and when it ends, so that whoever watches knows where we stand if
we hang or die. TESTS says what to run, as JSON: {"only": null or [ids], "matching": null or "text", "skip": [ids]}.

Knows unittest and `test.support`. Must not know what is done with the outcomes.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import traceback
import unittest
from collections.abc import Iterator
from os import getpid, write  # the originals, which neither park nor know of a hub
from pathlib import Path
from time import monotonic
from typing import Any

# What regression tests may use: everything but the network outside, and what fills the disk.
RESOURCES = ["cpu", "subprocess", "walltime"]
# Modules that ask for the network and stay on this machine, but for the tests of these classes.
LOOPBACK = {"test_socketserver": "", "test_timeout": ".TCPTimeoutTestCase."}
CHECKOUT = Path(__file__).resolve().parents[2]


def patch(mode: str) -> None:
    """Patch this process, or leave it as it is."""
    if mode == "greenswitch":
        from greenswitch import monkey

        monkey.patch_all()
    elif mode == "gevent":
        from gevent import monkey

        monkey.patch_all()


def tests_of(suite: Any) -> Iterator[Any]:
    """Return the test cases of a suite and its suites, in their order."""
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from tests_of(one)
        else:
            yield one


class Teller(unittest.TestResult):
    """A result that writes each test's start and end to a file. Children that a test forks stay silent."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd
        self.pid = getpid()
        self.outcome: tuple[str, str] | None = None
        self.started = 0.0

    def tell(self, **event: Any) -> None:
        """Append an event."""
        if getpid() == self.pid:
            write(self.fd, json.dumps(event).encode() + b"\n")

    def startTest(self, test: Any) -> None:
        self.outcome, self.started = None, monotonic()
        self.tell(event="start", test=test.id())
        super().startTest(test)

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        outcome, cause = self.outcome or ("error", "it told nothing of how it ended")
        seconds = round(monotonic() - self.started, 3)
        self.tell(event="end", test=test.id(), outcome=outcome, cause=cause, seconds=seconds)

    def addSuccess(self, test: Any) -> None:
        self._end(test, "passed", "")

    def addError(self, test: Any, err: Any) -> None:
        self._end(test, "error", err)

    def addFailure(self, test: Any, err: Any) -> None:
        self._end(test, "failed", err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._end(test, "failed" if issubclass(err[0], test.failureException) else "error", err)

    def addSkip(self, test: Any, reason: str) -> None:
        self._end(test, "skipped", reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self._end(test, "passed", "")

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._end(test, "failed", "it passes, and was expected to fail")

    def _end(self, test: Any, outcome: str, err: Any) -> None:
        """Note an outcome; the worst one of a test counts: it may fail, and fail again when it cleans up."""
        if not isinstance(err, str):
            sys.stderr.write(f"\n{test.id()}\n{''.join(traceback.format_exception(*err))}")
        cause = err if isinstance(err, str) else cause_of(err)
        if not isinstance(test, unittest.TestCase):  # not a test: its class's or its module's setting up
            self.tell(event="fixture", name=test.id(), outcome=outcome, cause=cause)
        elif self.outcome is None or self.outcome[0] in ("passed", "skipped"):
            self.outcome = outcome, cause


def cause_of(err: Any) -> str:
    """Return one line: what was raised, and where."""
    kind, error, at = err
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(at)
    frames = [frame for frame in frames if "unittest" not in frame.filename] or frames
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{kind.__name__}: {text[:200]}{where}"


def chosen(module: str, only: list[str] | None, matching: str | None, skip: list[str]) -> list[Any]:
    """Load the module's tests, and return those that are to run."""
    wanted, unwanted = set(only or ()), set(skip)
    found = tests_of(unittest.defaultTestLoader.loadTestsFromName(f"test.{module}"))
    outside = LOOPBACK.get(module)
    return [
        test
        for test in found
        if (only is None or test.id() in wanted) and (matching or "") in test.id() and test.id() not in unwanted
        if not outside or outside not in test.id()
    ]


def main() -> None:
    """Patch, load, run, tell."""
    module, mode, events = sys.argv[1:]
    choice = json.load(sys.stdin)
    sys.argv[1:] = []
    sys.path[0] = str(CHECKOUT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with Ctrl-C ignored
    faulthandler.enable(all_threads=True)  # whoever ends us by SIGABRT sees where we hang
    patch(mode)
    from test import support

    support.use_resources = [*RESOURCES, "network"] if module in LOOPBACK else RESOURCES
    teller = Teller(os.open(events, os.O_WRONLY | os.O_APPEND))
    try:
        tests = chosen(module, **choice)
    except unittest.SkipTest as reason:
        teller.tell(event="skipped", cause=str(reason))
        return
    except BaseException as error:
        teller.tell(event="broken", cause=cause_of((type(error), error, error.__traceback__)))
        raise
    teller.tell(event="tests", tests=[test.id() for test in tests])
    unittest.TestSuite(tests).run(teller)
    teller.tell(event="done")


if __name__ == "__main__":
    main()
