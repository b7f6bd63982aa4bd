"""Waiting for descriptors that others own: `wait_readable` and `wait_writable`."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from greenswitch import BusyError, HubError, sleep, spawn
from greenswitch.hub import Hub, register, wait_readable, wait_writable
from greenswitch.testing import VirtualTime


@pytest.fixture
def pipe(hub: Hub) -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue


def fill(fd: int) -> None:
    os.set_blocking(fd, False)
    try:
        while True:
            os.write(fd, b"x" * 65536)
    except BlockingIOError:
        return


def test_reader_is_woken_by_data(hub: Hub, pipe: tuple[int, int]) -> None:
    reader = spawn(wait_readable, pipe[0])
    sleep(1)
    assert reader.state == "parked"
    assert repr(reader) == f"<Task {reader.name!r} parked: read <fd {pipe[0]}>>"
    os.write(pipe[1], b"x")
    reader.get()


def test_writer_is_woken_by_room(hub: Hub, pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    writer = spawn(wait_writable, pipe[1])
    sleep(1)
    assert writer.state == "parked"
    os.read(pipe[0], 1 << 20)
    writer.get()


def test_what_is_ready_already_is_seen_at_every_wait(hub: Hub, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"xyz")
    for _ in range(3):
        wait_readable(pipe[0], 5)  # an edge-triggered poller would tell just once
        os.read(pipe[0], 1)
    with pytest.raises(TimeoutError):
        wait_readable(pipe[0], 5)


def test_both_directions_of_one_descriptor_may_be_waited_for(hub: Hub) -> None:
    one, other = socket.socketpair()
    with one, other:
        reader = spawn(wait_readable, one, 50)
        sleep(1)
        wait_writable(one, 5)
        assert reader.state == "parked"
        other.send(b"x")
        reader.get()


@pytest.mark.parametrize("form", ["number", "file object", "socket"])
def test_anything_with_a_descriptor_will_do(hub: Hub, pipe: tuple[int, int], form: str) -> None:
    one, other = socket.socketpair()
    os.write(pipe[1], b"x")
    other.send(b"x")
    with one, other, open(pipe[0], "rb", buffering=0, closefd=False) as file:
        targets: dict[str, Any] = {"number": pipe[0], "file object": file, "socket": one}
        wait_readable(targets[form], 5)


def test_end_of_file_and_broken_pipe_are_readiness(hub: Hub, pipe: tuple[int, int]) -> None:
    reader = spawn(wait_readable, pipe[0])
    sleep(1)
    os.close(pipe[1])
    reader.get()
    wait_readable(pipe[0], 5)


@pytest.mark.parametrize("timeout", [None, 0, 5])
def test_regular_file_is_always_ready_and_leaves_no_wake_behind(hub: Hub, timeout: float | None) -> None:
    with tempfile.TemporaryFile() as file:
        wait_readable(file, timeout)
        wait_writable(file.fileno(), timeout)
    sleep(1)
    sleep(10)


def test_timeout_raises_at_its_time_and_leaves_nothing(hub: Hub, time: VirtualTime, pipe: tuple[int, int]) -> None:
    with pytest.raises(TimeoutError, match="timed out"):
        wait_readable(pipe[0], 5)
    assert time() == 5
    os.write(pipe[1], b"x")
    wait_readable(pipe[0], 5)
    assert len(hub.timers) == 0


def test_timeout_of_nothing_asks_once(hub: Hub, time: VirtualTime, pipe: tuple[int, int]) -> None:
    with pytest.raises(TimeoutError):
        wait_readable(pipe[0], 0)
    os.write(pipe[1], b"x")
    wait_readable(pipe[0], 0)
    wait_readable(pipe[0], -1)
    assert time() == 0


def test_timeout_that_is_no_number_is_refused_and_the_descriptor_stays_usable(hub: Hub, pipe: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="NaN"):
        wait_readable(pipe[0], float("nan"))
    os.write(pipe[1], b"x")
    wait_readable(pipe[0], 5)


def test_killed_reader_leaves_the_descriptor_to_the_next(hub: Hub, pipe: tuple[int, int]) -> None:
    reader = spawn(wait_readable, pipe[0], 100)
    sleep(1)
    reader.kill()
    os.write(pipe[1], b"x")
    wait_readable(pipe[0], 5)


def test_second_reader_is_refused_and_both_are_named(hub: Hub, pipe: tuple[int, int]) -> None:
    first, second = spawn(wait_readable, pipe[0]), spawn(wait_readable, pipe[0])
    first.name, second.name = "first", "second"
    with pytest.raises(BusyError) as caught:
        second.get()
    assert str(caught.value) == (
        f"fd {pipe[0]}: Task 'first' already waits to read, so Task 'second' can't; "
        "let one task do it and pass the data on, or use a dup() of the socket"
    )
    os.write(pipe[1], b"x")
    first.get()


@pytest.mark.parametrize("closed", [-1, 999_999])
def test_closed_descriptor_is_refused(hub: Hub, closed: int) -> None:
    if closed > 0 and hub.poller.keeps is False:
        closed = -1  # select only finds out when it is asked
    with pytest.raises(OSError, match="Bad file descriptor"):
        wait_readable(closed, 5)
    one, other = socket.socketpair()
    one.close()
    other.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        wait_readable(one, 5)


def test_waiting_inside_the_hub_is_refused_and_leaves_the_descriptor_usable(hub: Hub, pipe: tuple[int, int]) -> None:
    hub.call_soon(wait_readable, pipe[0], 5)
    sleep(1)
    assert [type(error) for _, error in hub.errors] == [HubError]  # type: ignore[attr-defined]
    hub.errors.clear()  # type: ignore[attr-defined]
    os.write(pipe[1], b"x")
    wait_readable(pipe[0], 5)


def test_number_given_out_again_belongs_to_its_next_owner(hub: Hub, pipe: tuple[int, int]) -> None:
    with pytest.raises(TimeoutError):
        wait_readable(pipe[0], 1)
    fresh, into = os.pipe()
    os.dup2(fresh, pipe[0])  # closes what the number stood for
    with pytest.raises(TimeoutError):
        wait_readable(pipe[0], 1)
    os.write(into, b"x")
    wait_readable(pipe[0], 1)
    os.close(fresh)
    os.close(into)


def test_descriptor_that_a_socket_of_ours_owns_may_be_waited_for(hub: Hub) -> None:
    one, other = socket.socketpair()
    registration = register(hub, one.fileno())
    other.send(b"xy")
    sleep(1)  # the edge has been reported to nobody
    for _ in range(2):
        wait_readable(one, 5)
        one.recv(1)
    with pytest.raises(TimeoutError):
        wait_readable(one, 5)
    registration.close()
    one.close()
    other.close()


def test_owner_that_closes_wakes_who_waits_with_ebadf(hub: Hub) -> None:
    one, other = socket.socketpair()
    registration = register(hub, one.fileno())
    reader = spawn(registration.read.wait, 100.0)
    sleep(1)
    registration.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.get()
    with pytest.raises(OSError, match="Bad file descriptor"):
        registration.read.wait()
    assert one.fileno() not in hub.registrations
    one.close()
    other.close()


def test_deadline_of_a_kept_registration_is_one_lazy_timer_never_early(hub: Hub, time: VirtualTime) -> None:
    one, other = socket.socketpair()
    registration = register(hub, one.fileno())
    if not registration.kept:
        registration.close()
        one.close()
        other.close()
        pytest.skip("this poller keeps nothing")
    for _ in range(100):
        writer = spawn(other.send, b"x")
        registration.read.wait(time() + 10)
        one.recv(10)
        writer.join()
        assert len(hub.timers) == 1
        sleep(0.5)
    before = time()
    with pytest.raises(TimeoutError):
        registration.read.wait(before + 10)
    assert time() == before + 10
    with pytest.raises(TimeoutError):
        registration.read.wait(time() + 3)
    assert time() == before + 13
    spawn(other.send, b"x")
    registration.read.wait(time() + 100)
    one.recv(10)
    with pytest.raises(TimeoutError):
        registration.read.wait(time() + 1)  # earlier than the timer that is armed
    assert time() == before + 14
    registration.close()
    assert len(hub.timers) == 0
    one.close()
    other.close()
