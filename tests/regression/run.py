"""Run CPython's own regression tests with the standard library patched, and tell what is lost by it.

    python tests/regression/run.py                              all modules, unpatched and patched (many minutes)
    python tests/regression/run.py test_socket test_ssl         these modules
    python tests/regression/run.py -k test_sendall test_socket  of these, the tests whose name has `test_sendall` in it
    python tests/regression/run.py --quick                      under 90 s: the modules that are quick, patched; and
                                                                unpatched just what doesn't pass
    python tests/regression/run.py --more                       the modules of a second list: asyncio, executors,
                                                                multiprocessing, signals, descriptors
    python tests/regression/run.py --under gevent               the same for gevent, to compare with

The tests come from the `test` package of the interpreter that runs this script; run it by each Python that matters.
Each module runs in a process of its own. A test that takes longer than --limit seconds is marked as hung, its process
is ended, and the rest of the module goes on in another one. The network outside is not used.

A test is *lost* when it passes unpatched and not when patched (one that is skipped then is lost, too). What fails is
tried once more, alone, before it counts: unpatched (then it is flaky) as well as patched (then it is reported as shaky,
and not lost). Known losses stand in losses.toml, each with its reason. Exit status: 0 if exactly those are lost, 1 if
others are, or if one of them is none any more.

While you work on a module: --lazy runs unpatched just what doesn't pass patched, which takes half the time, and --log
FILE keeps what the tests have written, with the traceback of each failure and of each hang.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

from comparing import Loss, judge, lost, passed, prefer, read_losses, short, unsuccessful
from watching import Outcome, Watch, end_all, whole_module

HERE = Path(__file__).resolve().parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

# The slow ones first: the last process to end is then a quick one.
MODULES = """
    test_subprocess test_threading test_socket test_ssl test_timeout test_urllib2_localnet test_ftplib test_httplib
    test_smtplib test_socketserver test_select test_selectors test_queue test_thread test_sched
""".split()
QUICK = """
    test_ssl test_ftplib test_selectors test_queue test_timeout test_urllib2_localnet test_httplib test_smtplib
    test_socketserver test_select test_thread test_sched
""".split()
MORE = """
    test_asyncio test_concurrent_futures test_multiprocessing_fork test_multiprocessing_forkserver
    test_multiprocessing_main_handling test_multiprocessing_spawn test_logging test_os test_signal test_threadsignals
    test_poll test_epoll test_fork1 test_pty test_asyncore
""".split()
NOT_RUN = Outcome("not run")


def with_parts(name: str) -> list[str]:
    """Return the modules of tests in a package of `test`, as in test_asyncio.test_locks; the name itself if it is none.

    A name that this Python hasn't got is no module: it gives none.
    """
    spec = find_spec(f"test.{name}")
    if spec is None or spec.submodule_search_locations is None:
        return [] if spec is None else [name]
    parts = sorted(part.name for part in iter_modules(spec.submodule_search_locations))
    return [f"{name}.{part}" for part in parts if part.startswith("test_")]


@dataclass
class Comparison:
    """One module: how its tests end unpatched and patched, and what is lost."""

    module: str
    plain: dict[str, Outcome] = field(default_factory=dict)
    patched: dict[str, Outcome] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    shaky: dict[str, Outcome] = field(default_factory=dict)
    """How they ended before they were tried again, and passed."""
    seconds: float = 0.0


def compare(module: str, settings: argparse.Namespace) -> Comparison:
    """Run one module unpatched and patched."""
    start = time.monotonic()
    one = Comparison(module)
    unpatched = Watch("plain", settings.limit, settings.log)
    patched = Watch(settings.under, settings.limit, settings.log)
    if settings.lazy:
        one.patched = patched.run(module, matching=settings.k)
        one.plain = {test: outcome for test, outcome in one.patched.items() if outcome.outcome == "passed"}
        if whole_module(module) in one.patched:
            one.plain = unpatched.run(module, matching=settings.k)
        elif failed := [test for test in one.patched if test not in one.plain]:
            one.plain |= unpatched.run(module, failed)
    else:
        one.plain = unpatched.run(module, matching=settings.k)
        one.patched = patched.run(module, matching=settings.k)
    if again := unsuccessful(one.plain):
        one.plain = prefer(one.plain, unpatched.run(module, again))
    if again := lost(one.plain, one.patched):
        first, one.patched = one.patched, prefer(one.patched, patched.run(module, again))
        one.lost = lost(one.plain, one.patched)
        one.shaky = {test: first.get(test, NOT_RUN) for test in again if test not in one.lost}
    one.seconds = round(time.monotonic() - start, 1)
    return one


def show(one: Comparison) -> None:
    """Print a module's line, and one for each test that is lost."""
    print(f"{one.module:36}{len(passed(one.plain)):6} pass unpatched, {len(one.lost):3} lost   ({one.seconds:.0f} s)")
    for test in one.lost:
        outcome = one.patched.get(test, NOT_RUN)
        print(f"    {short(test)}: {outcome.outcome}: {outcome.cause}")
    for test, outcome in one.shaky.items():
        print(f"    {short(test)}: shaky, passed when it was tried again; before, {outcome.outcome}: {outcome.cause}")
    sys.stdout.flush()


def report(done: list[Comparison], known: dict[str, Loss]) -> bool:
    """Print the sum, and whatever is not as losses.toml has it; return whether all is."""
    losses = [test for one in done for test in one.lost]
    unknown, gone = judge(losses, known, [test for one in done for test in passed(one.plain)])
    total = sum(len(passed(one.plain)) for one in done)
    shaky = sum(len(one.shaky) for one in done)
    figures = f"{total:6} pass unpatched, {len(losses):3} lost, {len(unknown)} of them unknown; {shaky} are shaky"
    print(f"{'':36}{figures}; Python {VERSION}")
    for test in unknown:
        print(f"not in losses.toml: {short(test)}")
    for test in gone:
        print(f"in losses.toml, and not lost: {short(test)}")
    return not unknown and not gone


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help="as in test_socket or the package test_asyncio; by default a list"
    )
    parser.add_argument("-k", metavar="TEXT", help="only tests whose name contains this")
    parser.add_argument("--quick", action="store_true", help="the quick modules, --lazy")
    parser.add_argument("--more", action="store_true", help="the second list of modules")
    parser.add_argument("--lazy", action="store_true", help="run unpatched just what doesn't pass patched")
    parser.add_argument("--under", choices=("greenswitch", "gevent"), default="greenswitch", help="by whom to patch")
    parser.add_argument("--limit", type=float, default=60, metavar="SECONDS", help="for one test (default: 60)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="modules at once (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome there")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append what the tests write, and all tracebacks")
    settings = parser.parse_args()
    settings.lazy = settings.lazy or settings.quick
    names = settings.modules or (QUICK if settings.quick else MORE if settings.more else MODULES)
    settings.modules = [module for name in names for module in (with_parts(name) or [name] * bool(settings.modules))]
    return settings


def main() -> int:
    """Run what is asked for, print what is lost, return the exit status."""
    settings = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_all)
    known = {}
    if settings.under == "greenswitch":
        known = read_losses(tomllib.loads((HERE / "losses.toml").read_text()), VERSION)
    done = []
    with tempfile.TemporaryDirectory(prefix="regression-") as directory, ThreadPoolExecutor(settings.jobs) as pool:
        settings.log = settings.log or Path(directory, "log")
        for one in pool.map(lambda module: compare(module, settings), settings.modules):
            show(one)
            done.append(one)
    as_known = report(done, known)
    if settings.json:
        settings.json.write_text(json.dumps([asdict(one) for one in done], indent=1) + "\n")
    return 0 if as_known else 1


if __name__ == "__main__":
    sys.exit(main())
