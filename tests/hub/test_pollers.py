"""Pollers, as data: descriptors in, events out, the same from each."""

from __future__ import annotations

import os
import selectors
import socket
import tempfile
import time as real_time
from collections.abc import Callable, Iterator

import pytest

from greenswitch.hub import HANGUP, READ, WRITE, EpollPoller, Hub, Poller, SelectorPoller, make_poller, wait_readable

pytestmark = pytest.mark.usefixtures("no_leaked_fds")

MAKERS: dict[str, Callable[[], Poller]] = {"EpollPoller": EpollPoller} if hasattr(__import__("select"), "epoll") else {}
for _name in ("SelectSelector", "PollSelector", "EpollSelector", "KqueueSelector", "DefaultSelector"):
    if hasattr(selectors, _name):
        MAKERS[_name] = lambda name=_name: SelectorPoller(getattr(selectors, name)())


@pytest.fixture(params=sorted(MAKERS))
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    poller = MAKERS[request.param]()
    yield poller
    poller.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    inode = os.fstat(reading).st_ino
    yield reading, writing
    for fd in (reading, writing):
        try:
            if os.fstat(fd).st_ino == inode:  # a test may have closed it, and somebody else got the number
                os.close(fd)
        except OSError:
            continue


def events_of(poller: Poller, fd: int, timeout: float | None = 0) -> int:
    return sum(events for reported, events in poller.poll(timeout) if reported == fd)


def test_armed_to_read_reports_data_that_comes(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    poller.arm(one.fileno(), READ)
    assert poller.poll(0) == []
    other.send(b"x")
    assert events_of(poller, one.fileno(), 5) & READ


def test_arming_reports_what_is_there_already(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    other.send(b"xy")
    for _ in range(3):
        poller.arm(one.fileno(), READ)
        assert events_of(poller, one.fileno()) & READ
        one.recv(1, socket.MSG_PEEK)


def test_armed_to_write_reports_room(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    poller.arm(pair[0].fileno(), WRITE)
    assert events_of(poller, pair[0].fileno()) & WRITE


def test_armed_for_one_direction_does_not_report_the_other(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    poller.arm(pair[0].fileno(), READ)
    assert poller.poll(0) == []
    poller.arm(pair[0].fileno(), READ | WRITE)
    assert events_of(poller, pair[0].fileno()) == WRITE


def test_peer_that_is_gone_is_reported_to_a_reader(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    poller.arm(one.fileno(), READ)
    other.close()
    assert events_of(poller, one.fileno(), 5) & (READ | HANGUP)


def test_pipe_without_reader_is_reported_to_its_writer(poller: Poller, pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 65536)
    except BlockingIOError:
        pass
    poller.arm(writing, WRITE)
    assert poller.poll(0) == []
    os.close(reading)
    assert events_of(poller, writing, 5) & (WRITE | HANGUP)


@pytest.mark.parametrize("stop", ["arm 0", "unregister"])
def test_disarmed_says_nothing(poller: Poller, pair: tuple[socket.socket, socket.socket], stop: str) -> None:
    one, other = pair
    poller.arm(one.fileno(), READ)
    if stop == "arm 0":
        poller.arm(one.fileno(), 0)
    else:
        poller.unregister(one.fileno())
    other.send(b"x")
    assert poller.poll(0) == []


def test_unregistering_the_unknown_and_the_closed_is_no_error(poller: Poller, pipe: tuple[int, int]) -> None:
    poller.unregister(-1)
    poller.unregister(pipe[0])
    poller.arm(pipe[0], READ)
    os.close(pipe[0])
    poller.unregister(pipe[0])
    assert poller.poll(0) == []


def test_number_closed_and_given_out_again_can_be_armed(poller: Poller, pipe: tuple[int, int]) -> None:
    reading, _ = pipe
    poller.arm(reading, READ)
    assert poller.poll(0) == []
    if not poller.keeps:
        poller.arm(reading, 0)  # a level-triggered one is told when a wait ends
    os.close(reading)
    fresh, into = os.pipe()
    os.dup2(fresh, reading)
    poller.arm(reading, READ)
    os.write(into, b"x")
    assert events_of(poller, reading, 5) & READ
    poller.unregister(reading)
    os.close(fresh)
    os.close(into)


def test_regular_file_is_always_ready(poller: Poller) -> None:
    with tempfile.TemporaryFile() as file:
        try:
            poller.arm(file.fileno(), READ)
        except PermissionError:
            return
        assert events_of(poller, file.fileno()) & READ
        poller.unregister(file.fileno())


def test_closed_descriptor_is_refused(poller: Poller, pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        poller.arm(pipe[0], READ)


@pytest.mark.parametrize("selector", ["SelectSelector", "PollSelector"])
def test_descriptor_closed_behind_the_selectors_back_wakes_its_waiter(selector: str, pipe: tuple[int, int]) -> None:
    poller = MAKERS[selector]()
    poller.arm(pipe[0], READ)
    os.close(pipe[0])
    assert events_of(poller, pipe[0], 5)
    poller.unregister(pipe[0])
    assert poller.poll(0) == []
    poller.close()


def test_descriptors_that_are_fine_survive_one_closed_behind_selects_back(
    pair: tuple[socket.socket, socket.socket], pipe: tuple[int, int]
) -> None:
    poller = MAKERS["SelectSelector"]()
    poller.arm(pipe[0], READ)
    poller.arm(pair[0].fileno(), READ)
    pair[1].send(b"x")
    os.close(pipe[0])
    assert poller.poll(5) == [(pipe[0], HANGUP)]
    assert poller.poll(5) == [(pair[0].fileno(), READ)]
    poller.close()


def test_select_refuses_high_numbers_and_says_what_to_do() -> None:
    poller = MAKERS["SelectSelector"]()
    with pytest.raises(ValueError, match=r"fd 1024: select\(\) can't watch .* set GREENSWITCH_POLLER to epoll, poll"):
        poller.arm(1024, READ)
    poller.close()


def test_poll_waits_as_long_as_it_is_told_never_less(poller: Poller) -> None:
    for timeout in (0.0, 0.0003, 0.002):
        before = real_time.monotonic()
        assert poller.poll(timeout) == []
        assert real_time.monotonic() - before >= timeout


def test_poll_takes_any_timeout_that_timers_may_ask_for(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    poller.arm(pair[0].fileno(), WRITE)
    for timeout in (None, float("inf"), 1e300):
        poller.arm(pair[0].fileno(), WRITE)
        assert poller.poll(timeout)


def test_closed_poller_has_a_repr(poller: Poller) -> None:
    assert "Poller" in repr(poller)
    poller.close()
    assert "Poller" in repr(poller)


@pytest.mark.skipif("EpollPoller" not in MAKERS, reason="no epoll here")
def test_kept_registration_reports_each_change_once(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    poller = EpollPoller()
    poller.register(one.fileno())
    assert events_of(poller, one.fileno()) == WRITE
    assert poller.poll(0) == []
    other.send(b"x")
    assert events_of(poller, one.fileno()) & READ
    assert poller.poll(0) == []
    other.send(b"y")
    assert events_of(poller, one.fileno()) & READ
    poller.register(one.fileno())
    assert events_of(poller, one.fileno()) == READ | WRITE
    other.close()
    assert events_of(poller, one.fileno()) & HANGUP
    poller.close()


def test_poller_that_keeps_nothing_refuses_to_register() -> None:
    poller = SelectorPoller(selectors.SelectSelector())
    with pytest.raises(NotImplementedError, match="before each wait"):
        poller.register(0)
    poller.close()


# -- choosing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["epoll", "poll", "select", "kqueue"])
def test_poller_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if not hasattr(__import__("select"), name):
        pytest.skip(f"no {name} here")
    monkeypatch.setenv("GREENSWITCH_POLLER", name)
    poller = make_poller()
    assert name.capitalize() in repr(poller)
    poller.close()


def test_unknown_choice_lists_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENSWITCH_POLLER", "carrier-pigeon")
    with pytest.raises(ValueError, match=r"'carrier-pigeon' \(from the environment's GREENSWITCH_POLLER\).*select"):
        make_poller()
    with pytest.raises(ValueError, match=r"no poller 'smoke' on"):
        make_poller("smoke")


def test_empty_choice_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENSWITCH_POLLER", "")
    make_poller().close()


def test_hub_runs_on_each_poller(poller: Poller, pipe: tuple[int, int]) -> None:
    with Hub(poller):
        with pytest.raises(TimeoutError):
            wait_readable(pipe[0], 0.001)
        os.write(pipe[1], b"x")
        for _ in range(3):
            wait_readable(pipe[0], 5)
