"""Fixtures: a fresh hub in virtual time or in real time, each of which fails the test that leaves anything behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenswitch.hub import Hub, has_hub, step_aside
from greenswitch.testing import VirtualTime, left_behind

_FDS = Path("/proc/self/fd")


def _open_fds() -> dict[str, str]:
    if not _FDS.is_dir():
        return {}
    found = {}
    for entry in os.listdir(_FDS):
        try:
            found[entry] = os.readlink(_FDS / entry)
        except OSError:  # the listing's own fd
            continue
    return found


def _checked(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` to a test; then fail the test for reported errors that it didn't expect, and for leftovers."""
    assert not has_hub(), "an earlier test has left its hub behind"
    errors: list[tuple[str, BaseException]] = []
    hub.on_error = lambda what, error: errors.append((what, error))
    hub.errors = errors  # type: ignore[attr-defined]  # a test that expects some clears the list
    # Neither pytest-timeout's alarm nor any thread of the test runner's will ever wake a task of the test's.
    hub.others_could_wake = lambda: False
    with hub:
        yield hub
        step_aside()  # links and callbacks of the last turn
        gc.collect()
        remains = left_behind(hub)
    assert not remains, remains
    assert not errors, errors


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> None:
    """Spare each test's `gc.collect()` what is there already: with pytest's own objects it takes 80 ms, not two."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_leaked_fds() -> Iterator[None]:
    """Fail the test that opens an fd and doesn't close it."""
    gc.collect()
    before = _open_fds()
    yield
    gc.collect()
    leaked = {fd: what for fd, what in _open_fds().items() if before.get(fd) != what}
    assert not leaked, leaked


@pytest.fixture
def time() -> VirtualTime:
    """The virtual time of the `hub` fixture."""
    return VirtualTime()


@pytest.fixture
def hub(no_leaked_fds: None, time: VirtualTime) -> Iterator[Hub]:
    """A fresh hub in virtual time: sleeping takes no time."""
    yield from _checked(time.hub())


@pytest.fixture
def real_hub(no_leaked_fds: None) -> Iterator[Hub]:
    """A fresh hub in real time, for peers that are threads or other processes."""
    yield from _checked(Hub())
