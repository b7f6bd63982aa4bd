"""Drivers that wait in C: what they say of their waiting, played by hand over a pair of sockets.

The real drivers are asked in tests/real/test_psycopg.py.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

import greenswitch
from greenswitch import drivers
from greenswitch.hub import Hub

R, W, RW = 1, 2, 3  # as selectors.EVENT_READ and EVENT_WRITE, which psycopg counts by


@pytest.fixture
def pair(no_leaked_fds: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


@pytest.fixture
def psycopg2(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Just so much of psycopg2 as says what its numbers mean."""
    extensions = SimpleNamespace(POLL_OK=0, POLL_READ=1, POLL_WRITE=2, OperationalError=RuntimeError, callback=None)
    extensions.set_wait_callback = lambda callback: setattr(extensions, "callback", callback)
    monkeypatch.setitem(sys.modules, "psycopg2", SimpleNamespace(extensions=extensions))
    monkeypatch.setitem(sys.modules, "psycopg2.extensions", extensions)
    return extensions


class Connection:
    """A connection of psycopg2's that says the given states, one after another, and waits for a socket."""

    def __init__(self, sock: socket.socket, *states: int) -> None:
        self.sock = sock
        self.states = list(states)
        self.fileno = sock.fileno

    def poll(self) -> int:
        return self.states.pop(0)


def test_psycopg2_waits_for_the_directions_that_its_connection_names(real_hub: Hub, pair, psycopg2):
    ours, theirs = pair
    connection = Connection(ours, 2, 1, 0)
    task = greenswitch.spawn(drivers.wait_psycopg2, connection)
    greenswitch.sleep(0.01)
    assert connection.states == [0], "it was writable at once, and is not readable yet"
    theirs.send(b"x")
    task.get(timeout=5)
    assert connection.states == []


def test_psycopg2_says_something_unknown(real_hub: Hub, pair, psycopg2):
    with pytest.raises(RuntimeError, match=r"poll\(\) says 9"):
        drivers.wait_psycopg2(Connection(pair[0], 9))


def test_a_killed_wait_of_psycopg2_leaves_nothing_behind(real_hub: Hub, pair, psycopg2):
    task = greenswitch.spawn(drivers.wait_psycopg2, Connection(pair[0], 1, 0))
    greenswitch.sleep(0)
    task.kill()
    assert task.dead


def test_patching_psycopg2_sets_its_callback(psycopg2):
    drivers.patch_psycopg2()
    assert psycopg2.callback is drivers.wait_psycopg2


# -- psycopg 3 --------------------------------------------------------------------------------------------------------


def record(*wanted):
    """Return steps that want to wait so; they return what they were sent."""
    got = []
    for one in wanted:
        got.append((yield one))
    return got


def test_steps_are_told_what_is_ready(real_hub: Hub, pair):
    ours, theirs = pair
    greenswitch.spawn_later(0.01, theirs.send, b"x")
    assert drivers.wait_psycopg(record(W, R, RW), ours.fileno()) == [W, R, RW]


def test_steps_that_want_either_direction_get_the_one_that_is_ready(real_hub: Hub, pair):
    ours, theirs = pair
    assert drivers.wait_psycopg(record(RW), ours.fileno()) == [W]
    fill(ours)
    greenswitch.spawn_later(0.01, theirs.send, b"x")
    assert drivers.wait_psycopg(record(RW), ours.fileno()) == [R]


def fill(sock: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(bytes(65536))


def test_others_run_while_steps_wait(real_hub: Hub, pair):
    ours, theirs = pair
    task = greenswitch.spawn(drivers.wait_psycopg, record(R), ours.fileno())
    greenswitch.sleep(0.01)
    assert not task.ready()
    theirs.send(b"x")
    assert task.get(timeout=5) == [R]


def test_after_each_interval_the_steps_are_told_that_nothing_is_ready(hub: Hub, pair, time):
    def twice_in_vain():
        assert (yield R) == 0
        assert (yield R) == 0
        return greenswitch.get_hub().clock()

    start = hub.clock()
    assert drivers.wait_psycopg(twice_in_vain(), pair[0].fileno(), interval=0.5) == pytest.approx(start + 1)


def test_what_steps_want_next_is_not_heard_after_nothing(hub: Hub, pair):
    """As in psycopg's own loops: steps that are told of nothing repeat what they want."""

    def vague():
        assert (yield R) == 0
        assert (yield None) == 0
        return "done"

    assert drivers.wait_psycopg(vague(), pair[0].fileno(), interval=0.5) == "done"


@pytest.mark.parametrize("interval", [0.0, 0.3])
def test_a_time_out_limits_all_steps_together(hub: Hub, pair, interval: float, monkeypatch: pytest.MonkeyPatch):
    class WaitTimeoutError(Exception):
        pass

    monkeypatch.setitem(sys.modules, "psycopg", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "psycopg.errors", SimpleNamespace(_WaitTimeout=WaitTimeoutError))

    def for_ever():
        while True:
            yield R

    start = hub.clock()
    with pytest.raises(WaitTimeoutError):
        drivers.wait_psycopg(for_ever(), pair[0].fileno(), interval=interval, timeout=1)
    assert hub.clock() == pytest.approx(start + 1)


def test_connecting_may_wait_for_one_descriptor_after_another(real_hub: Hub, pair):
    ours, theirs = pair
    theirs.send(b"x")
    steps = record((ours.fileno(), R), (theirs.fileno(), W))
    assert drivers.wait_psycopg_connecting(steps) == [R, W]


def test_waiting_for_a_closed_descriptor_is_an_error(real_hub: Hub):
    fd = os.dup2(0, 900)  # a number that nothing else gets
    os.close(fd)
    for wanted in (R, RW):
        with pytest.raises(OSError) as caught:
            drivers.wait_psycopg(record(wanted), fd)
        assert caught.value.errno == errno.EBADF


def test_an_error_of_the_steps_comes_through(real_hub: Hub, pair):
    def failing():
        yield W
        raise LookupError("no such table")

    with pytest.raises(LookupError, match="no such table"):
        drivers.wait_psycopg(failing(), pair[0].fileno())
