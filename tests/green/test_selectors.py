"""The twin of `selectors`: the same classes, whose `select` parks the task."""

from __future__ import annotations

import os
import selectors as original
import subprocess
import sys
from pathlib import Path

import pytest

from greenswitch import sleep, spawn
from greenswitch.green import selectors
from greenswitch.hub import Hub
from greenswitch.sockets import socketpair
from greenswitch.testing import VirtualTime

ROOT = Path(__file__).resolve().parents[2]
KINDS = [name for name in ("SelectSelector", "PollSelector", "EpollSelector") if hasattr(original, name)]


@pytest.mark.parametrize("kind", [*KINDS, "DefaultSelector"])
def test_waits_as_a_task_and_tells_what_is_ready(hub: Hub, time: VirtualTime, kind: str) -> None:
    near, far = socketpair()
    with near, far, getattr(selectors, kind)() as selector:
        assert isinstance(selector, original.BaseSelector)
        key = selector.register(near, selectors.EVENT_READ, "data")
        assert selector.select(0) == selector.select(-1) == selector.select(2) == []
        assert time() == 2
        waiting = spawn(selector.select)
        sleep(1)
        far.send(b"x")
        assert waiting.get() == [(key, selectors.EVENT_READ)]
        both = selector.modify(near, selectors.EVENT_READ | selectors.EVENT_WRITE)
        assert selector.select() == [(both, selectors.EVENT_READ | selectors.EVENT_WRITE)]
        selector.unregister(near)
        assert selector.select(1) == []


@pytest.mark.skipif(not hasattr(original, "EpollSelector"), reason="no epoll here")
def test_default_selector_opens_nothing_before_something_is_registered() -> None:
    before = os.listdir("/proc/self/fd")
    with selectors.DefaultSelector():
        assert os.listdir("/proc/self/fd") == before


def test_classes_are_the_originals_or_stand_on_them() -> None:
    for name in KINDS:
        assert issubclass(getattr(selectors, name), getattr(original, name))
    assert selectors.SelectorKey is original.SelectorKey
    assert [name for name in dir(original) if not name.startswith("_") and not hasattr(selectors, name)] == []


def test_patching_keeps_the_classes_and_the_hub_its_own_poller() -> None:
    script = """
import os, selectors, sys
kinds = [selectors.SelectSelector, selectors.PollSelector, selectors.DefaultSelector]
class Mine(selectors.SelectSelector): pass
from greenswitch import monkey
monkey.patch_all()
import greenswitch
assert [selectors.SelectSelector, selectors.PollSelector, selectors.DefaultSelector] == kinds
reading, writing = os.pipe()
def look(kind):
    with kind() as selector:
        selector.register(reading, selectors.EVENT_READ)
        return len(selector.select(10))
tasks = [greenswitch.spawn(look, kind) for kind in [*kinds, Mine]]
greenswitch.sleep(0.01)
os.write(writing, b"x")
print([task.get() for task in tasks], greenswitch.get_hub().poller)
monkey.unpatch_all()
print(look(selectors.DefaultSelector), type(selectors.DefaultSelector()._selector).__module__)
"""
    for poller in ("select", "poll"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONPATH": str(ROOT), "GREENSWITCH_POLLER": poller},
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.stderr == ""
        name = f"{poller.capitalize()}Selector"
        assert done.stdout == f"[1, 1, 1, 1] <SelectorPoller over {name}>\n1 select\n"
