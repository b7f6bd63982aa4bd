"""The twin of `os`: what waits for a descriptor or a child is ours, all else is the original's own."""

from __future__ import annotations

import os as original
import subprocess
import sys
from pathlib import Path

import pytest

from greenswitch import files, processes, sleep, spawn
from greenswitch.green import os
from greenswitch.hub import Hub

ROOT = Path(__file__).resolve().parents[2]

OURS = {
    **{name: getattr(files, name) for name in ("read", "readv", "write", "writev", "close", "fdopen")},
    **{name: getattr(processes, name) for name in ("wait", "wait3", "wait4", "waitid", "waitpid", "system")},
}


@pytest.mark.skipif(not files.CAN_WAIT, reason="nothing is replaced here")
def test_what_waits_is_ours_and_all_else_is_the_originals_own() -> None:
    public = [name for name in dir(original) if not name.startswith("_")]
    pairs = {name: (getattr(os, name), getattr(original, name)) for name in public}
    assert {name: ours for name, (ours, theirs) in pairs.items() if ours is not theirs} == {
        name: ours for name, ours in OURS.items() if hasattr(original, name)
    }
    assert set(os.__all__) == set(public) <= set(dir(os))
    with pytest.raises(AttributeError, match="no 'nonsense'"):
        os.nonsense


@pytest.mark.skipif(not files.CAN_WAIT, reason="pipes can't be asked here")
def test_two_tasks_talk_through_a_pipe(hub: Hub) -> None:
    reading, writing = os.pipe()
    echo = spawn(lambda: os.read(reading, 10) + b"!")
    sleep(1)
    assert not echo.dead
    assert os.write(writing, b"hello") == 5
    assert echo.get() == b"hello!"
    with os.fdopen(reading) as lines, os.fdopen(writing, "w") as out:
        line = spawn(lines.readline)
        sleep(1)
        out.write("one\n")
        out.flush()
        assert line.get() == "one\n"


@pytest.mark.skipif(not files.CAN_WAIT, reason="nothing is replaced here")
def test_patched_functions_dont_become_methods_and_come_back() -> None:
    script = """
import os
before = {name: getattr(os, name) for name in ("read", "write", "close", "waitpid", "fdopen", "system")}
from greenswitch import monkey
monkey.patch_all()
class Mine:
    read, write, close = os.read, os.write, os.close
assert all(getattr(os, name) is not value for name, value in before.items())
reading, writing = os.pipe()
Mine().write(writing, b"x")
assert Mine().read(reading, 1) == b"x"
Mine().close(reading)
monkey.unpatch_all()
assert all(getattr(os, name) is value for name, value in before.items())
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=original.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
