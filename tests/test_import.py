"""`import greenswitch` in a fresh process: it patches nothing, starts nothing, opens nothing and stays light."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import greenswitch

ROOT = Path(__file__).resolve().parent.parent

# Whoever replaces a name in one of these changes the behaviour of code that has never heard of greenswitch.
PATCHABLE = (
    "_thread asyncio builtins concurrent.futures contextvars logging multiprocessing os queue select selectors signal "
    "socket socketserver ssl subprocess sys threading time"
).split()

OPTIONAL = "IPython gevent hypothesis ipykernel matplotlib nbclient nbformat numpy psutil pytest trio uvloop".split()

# What costs milliseconds to import and only some users need; `ssl` alone is more than the hub.
HEAVY = (
    "argparse asyncio concurrent.futures ctypes doctest email http logging.config multiprocessing pdb sqlite3 ssl "
    "subprocess tkinter unittest urllib.request xml"
).split()

OBSERVE = """
import importlib, json, os, sys, threading
import signal

def open_fds():
    found = set()
    for fd in range(256):
        try:
            os.fstat(fd)
        except OSError:
            continue
        found.add(fd)
    return found

def names():
    # The values are kept, not their ids alone: the id of a replaced object may be given out again.
    return {f"{module}.{name}": value for module in patchable for name, value in vars(sys.modules[module]).items()}

def handlers():
    return {int(number): signal.getsignal(number) for number in signal.valid_signals()}

patchable = json.loads(sys.argv[1])
for module in patchable:
    importlib.import_module(module)
fds, threads, values, signals = open_fds(), threading.enumerate(), names(), handlers()
planted = sys.argv[2]
import greenswitch
exec(planted)
report = {
    "patched": [name for name, value in names().items() if name in values and values[name] is not value],
    "removed": [name for name in values if name not in names()],
    "threads": [thread.name for thread in threading.enumerate() if thread not in threads],
    "fds": sorted(open_fds() - fds),
    "signals": [number for number, handler in handlers().items() if handler != signals[number]],
    "modules": sorted(sys.modules),
}
print(json.dumps(report))
"""


def observe(patchable: list[str], planted: str = "") -> dict[str, Any]:
    """Import greenswitch in a fresh process, run the planted code, and return what has changed there."""
    command = [sys.executable, "-W", "error", "-c", OBSERVE, json.dumps(patchable), planted]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def loaded(report: dict[str, Any], names: list[str]) -> list[str]:
    modules = report["modules"]
    return [name for name in names if any(f"{module}.".startswith(f"{name}.") for module in modules)]


def test_import_patches_nothing_starts_no_thread_and_opens_no_fd() -> None:
    report = observe(PATCHABLE)
    del report["modules"]
    assert report == {"patched": [], "removed": [], "threads": [], "fds": [], "signals": []}


def test_import_loads_no_optional_package_and_nothing_heavy() -> None:
    report = observe([])
    assert "greenswitch" in report["modules"]
    assert loaded(report, OPTIONAL) == []
    assert loaded(report, HEAVY) == []


def test_version_is_the_one_that_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert greenswitch.__version__ == project["version"]


def test_every_public_name_is_there_and_listed_once() -> None:
    assert [name for name in greenswitch.__all__ if not hasattr(greenswitch, name)] == []
    assert len(set(greenswitch.__all__)) == len(greenswitch.__all__)


@pytest.mark.parametrize(
    ("planted", "where"),
    [
        ("import time; time.sleep = lambda seconds: None", "patched"),
        ("import socket; socket.socket = type('socket', (), {})", "patched"),
        ("import threading; del threading.Timer", "removed"),
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "threads"),
        ("import os; os.dup(1)", "fds"),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signals"),
    ],
)
def test_planted_side_effect_is_noticed(planted: str, where: str) -> None:
    assert observe(PATCHABLE, planted)[where] != []


def test_planted_heavy_import_is_noticed() -> None:
    assert {"http", "ssl"} <= set(loaded(observe([], "import ssl, http.client"), HEAVY))
