"""`python -m greenswitch.dump PID`: what the tasks of another process are doing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from greenswitch.dump.on_signal import CannotAsk, ask

_DESCRIPTION = """\
Print what every task of another process is doing: what it waits for, for how long, and where it stands.

The process must have called, in its main thread:

    from greenswitch.dump import install_dump_signal
    install_dump_signal()

A process that has not is sent no signal, which would end it; where both run CPython 3.14 or newer it is asked as a
debugger asks (sys.remote_exec). Nothing in it is changed, and nothing stops for longer than the list takes to make.
Linux only; elsewhere send the signal (kill -USR1 PID) and look at the process's standard error.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        "python -m greenswitch.dump", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pid", type=int, help="the number of the process")
    parser.add_argument("--json", action="store_true", help="print JSON rather than text")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to wait for its answer (default: 5)")
    chosen = parser.parse_args(arguments)
    try:
        report = ask(chosen.pid, chosen.seconds)
    except CannotAsk as error:
        print(f"greenswitch.dump: {error}", file=sys.stderr)
        return 1
    print(report.to_json() if chosen.json else report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
