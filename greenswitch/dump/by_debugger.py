"""A dump of a process that has installed nothing, from CPython 3.14 on: `sys.remote_exec` runs a script of ours in it.

The script writes the report into a file of a directory that belongs to the process's user, and to nobody else. It runs
in that process's main thread, at the next line there. A process without tasks answers too: it has no hub.

Knows files and reports. Must not know what to do where this can't be had.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from greenswitch.dump.report import Report
from greenswitch.hub.bystanders import pause

# What it imports is there already in a process that has tasks; elsewhere nothing is imported.
_SCRIPT = """\
def _greenswitch_dump():
    import os, sys
    try:
        if "greenswitch.hub" in sys.modules:
            from greenswitch.dump import dump
            text = dump(sys._getframe(1)).to_json()
        else:
            text = "none"
    except BaseException as error:
        text = f"error {{type(error).__name__}}: {{error}}"
    with open({answer!r} + ".part", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename({answer!r} + ".part", {answer!r})
_greenswitch_dump()
del _greenswitch_dump
"""


def remote_exec() -> Callable[[int, str], Any] | None:
    """Return this Python's `sys.remote_exec`, or None."""
    return getattr(sys, "remote_exec", None)


def ask_by_debugger(run: Callable[[int, str], Any], pid: int, seconds: float) -> Report | str:
    """Have `run(pid, script)` run our script in process `pid`; return its report, or why there is none.

    Raises what `run` raises (of a process that is gone, somebody else's, or another Python), and TimeoutError when
    there is no answer after `seconds`.
    """
    with TemporaryDirectory(prefix="greenswitch-dump-") as name:
        directory = Path(name)
        script, answer = directory / "dump.py", directory / "answer"
        script.write_text(_SCRIPT.format(answer=str(answer)), "utf-8")
        _give_to_user_of(pid, directory, script)
        run(pid, str(script))
        deadline = monotonic() + seconds
        while not answer.exists():
            if monotonic() > deadline:
                raise TimeoutError(f"process {pid} has not answered within {seconds:g} seconds")
            pause(0.005)
        text = answer.read_text("utf-8")
    if text == "none":
        return f"process {pid} has not imported greenswitch: it has no tasks"
    return text.removeprefix("error ") if text.startswith("error ") else Report.from_json(text)


def _give_to_user_of(pid: int, *paths: Path) -> None:
    """Let the process read the script and write its answer, when it is root who asks."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and os.path.isdir("/proc/self"):
        owner = os.stat(f"/proc/{pid}")
        for path in paths:
            os.chown(path, owner.st_uid, owner.st_gid)
