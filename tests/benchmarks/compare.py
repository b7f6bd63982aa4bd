"""Measure greenswitch against gevent, asyncio and uvloop in one interleaved run, and print them side by side.

    python tests/benchmarks/compare.py                       everything, five rounds (some minutes)
    python tests/benchmarks/compare.py --quick               a smoke run (under 20 s); its figures are noise
    python tests/benchmarks/compare.py --rows echo sleep0    only these rows
    python tests/benchmarks/compare.py --check               and exit with 1 if a promised ratio is missed

What is measured is CPU time (user and system) per operation, never the clock on the wall: a busy machine makes it a
little worse, not useless. Each measurement runs in a fresh process, and the peers take turns within each round, so
that what disturbs one disturbs them all. A table's cell is the median of the rounds and ± half the distance from the
least to the greatest; a ratio is the median of the ratios within a round, gevent's being 1.00: smaller is better. A
dot stands where a library has nothing of the kind or, with a remark below the table, where it couldn't be measured.

In the rows with a server (echo, connections, recv-deadline) client and server are two processes, the same client
for every peer, and only the server's time counts; they need Linux. greenswitch is taken from this checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from figures import as_data, judge, show, table
from rows import PEERS, ROWS, Row

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
PATIENCE = 180  # seconds after which a measurement is given up


class MeasurementError(Exception):
    """A measurement ended without a figure."""


class Run:
    """Everything measured so far, and what is to be said of it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.results: dict[tuple[str, str, str], list[float | None]] = {}
        self.remarks: list[str] = []
        self.failed = False

    def present(self, names: list[str]) -> dict[str, str]:
        """Return the versions of those peers that are installed; remark on the others."""
        versions = {}
        for name in names:
            answer = self._ask(name)
            if "version" in answer:
                versions[name] = answer["version"]
            else:
                self._remark(f"{name} is left out: {answer['skipped']}")
        return versions

    def measure(self, row: Row, peers: list[str], rounds: int) -> None:
        """Measure one row: in each round every peer once, and a different one first."""
        left = list(peers)
        for turn in range(rounds):
            order = [peer for peer in peers[turn % len(peers):] + peers[:turn % len(peers)] if peer in left]
            left = [peer for peer in order if self._measure_once(row, peer, turn, rounds)]
            first = row.figures[0]
            told = [(peer, self.results[row.name, first.key, peer][turn]) for peer in peers if peer in left]
            progress(f"{row.name} {turn + 1}/{rounds}, {first.unit}: "
                     + ", ".join(f"{peer} {show(value, first.scale)}" for peer, value in told))

    def _measure_once(self, row: Row, peer: str, turn: int, rounds: int) -> bool:
        """Note the peer's figures; return whether there is any use in asking it again."""
        answer = self._ask(peer, row.name, json.dumps(self.settings))
        if "skipped" in answer:
            if answer["skipped"]:
                self._remark(f"{row.name}: {peer} is left out: {answer['skipped']}")
            return False
        for key, value in answer["figures"].items():
            self.results.setdefault((row.name, key, peer), [None] * rounds)[turn] = value
        return True

    def _ask(self, *arguments: str) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(run_child([sys.executable, str(HERE / "measure.py"), *arguments]))
            return answer
        except MeasurementError as error:
            self.failed = True
            return {"skipped": f"FAILED: {error}"}

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def run_child(command: list[str]) -> str:
    """Return what a child prints; it and its own children are gone afterwards, whatever happens."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
                          process_group=0) as child:
        try:
            out, err = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"no result after {PATIENCE} s") from None
        finally:
            if child.poll() != 0:  # it hasn't ended, or not well: its server may still run
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
    if child.returncode:
        raise MeasurementError(err.strip().splitlines()[-1] if err.strip() else f"exit status {child.returncode}")
    return out


def progress(text: str) -> None:
    """Tell who waits how far it is."""
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line, whose help lists the rows."""
    listed = "\n".join(f"  {row.name:16}{row.what}" for row in ROWS)
    known = "\n".join(f"  {peer.name}" for peer in PEERS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog=f"rows:\n{listed}\n\npeers:\n{known}\n\nexit status: 0; 1 if a measurement "
                                            "failed or, with --check, a promise is missed; 2 for a wrong command line")
    parser.add_argument("--rows", nargs="+", metavar="ROW", choices=[row.name for row in ROWS], help="only these rows")
    parser.add_argument("--peers", nargs="+", metavar="PEER", choices=[peer.name for peer in PEERS],
                        help="only these; ratios need gevent among them")
    parser.add_argument("--rounds", type=positive, metavar="K", help="how often each is measured (default 5, quick 1)")
    parser.add_argument("--quick", action="store_true", help="tiny amounts of work: does everything run?")
    parser.add_argument("--check", action="store_true", help="judge the promises; exit with 1 if one is missed")
    parser.add_argument("--connections", type=positive, default=100, metavar="N", help="of row echo (default 100)")
    parser.add_argument("--message", type=positive, default=1024, metavar="BYTES", help="default 1024, at most 65536")
    parser.add_argument("--many", type=positive, metavar="N", help="of row connections (default 10000, quick 300)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured there")
    return parser


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1, please")
    return number


def main(command_line: list[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    parser = arguments()
    options = parser.parse_args(command_line)
    if options.message > 65536:
        parser.error("--message: at most 65536, what a server's socket takes at once")
    many = options.many or (300 if options.quick else 10_000)
    run = Run({"quick": options.quick, "connections": options.connections, "message": options.message, "many": many})
    rows = [row for row in ROWS if not options.rows or row.name in options.rows]
    versions = run.present([peer.name for peer in PEERS if not options.peers or peer.name in options.peers])
    progress(" · ".join(f"{peer} {version}" for peer, version in versions.items()))
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        progress(f"this machine is busy (load {load:.1f} on {cores} cores): believe the ratios less than their spreads")
    for row in rows if versions else ():
        run.measure(row, list(versions), options.rounds or (1 if options.quick else 5))
    print(table(rows, list(versions), run.results))
    for remark in run.remarks:
        print(remark)
    if options.json:
        options.json.write_text(json.dumps(report(run, rows, versions), indent=1, ensure_ascii=False) + "\n")
    kept = not options.check or check(rows, run)
    return 1 if run.failed or not kept else 0


def check(rows: list[Row], run: Run) -> bool:
    """Print a verdict on every promise of these rows; return whether all are kept."""
    verdicts = judge(rows, run.results)
    print()
    for sentence, _ in verdicts:
        print(sentence)
    return all(kept for _, kept in verdicts)


def report(run: Run, rows: list[Row], versions: dict[str, str]) -> dict[str, object]:
    """Return all that was measured, and on what, as JSON's data."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load_at_the_end": os.getloadavg()[0],
        "settings": run.settings,
        "versions": versions,
        "records": as_data(rows, list(versions), run.results),
        "promises": [{"text": text, "kept": kept} for text, kept in judge(rows, run.results)],
        "remarks": run.remarks,
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
