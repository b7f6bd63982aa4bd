"""The twin of `select`: looks as the original, waits as a task."""

from __future__ import annotations

import errno
import os
import select as original
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from greenswitch import BusyError, descriptors, sleep, spawn, wait_readable
from greenswitch.errors import HubError
from greenswitch.green import select
from greenswitch.hub import READ, Hub, Poller, SelectorPoller, make_poller
from greenswitch.sockets import Socket, socketpair
from greenswitch.testing import VirtualTime

needs_epoll = pytest.mark.skipif(not hasattr(original, "epoll"), reason="no epoll here")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue


@pytest.fixture
def pair(hub: Hub) -> Iterator[tuple[Socket, Socket]]:
    one, other = socketpair()
    with one, other:
        yield one, other


def by_select(fd: int, seconds: float | None) -> bool:
    return select.select([fd], [], [], seconds) == ([fd], [], [])


def by_poll(fd: int, seconds: float | None) -> bool:
    polled = select.poll()
    polled.register(fd, original.POLLIN)
    return [number for number, _ in polled.poll(None if seconds is None else seconds * 1000)] == [fd]


def by_epoll(fd: int, seconds: float | None) -> bool:
    with select.epoll() as polled:
        polled.register(fd, original.EPOLLIN)
        return polled.poll(seconds) == [(fd, original.EPOLLIN)]


WAYS = [by_select, by_poll, pytest.param(by_epoll, marks=needs_epoll)]
Way = Callable[[int, float | None], bool]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param  # type: ignore[no-any-return]


# -- every way to look and wait ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 5, 1e6])
def test_waits_until_it_is_ready_while_others_run(
    hub: Hub, time: VirtualTime, pipe: tuple[int, int], way: Way, timeout: float | None
) -> None:
    waiting = spawn(way, pipe[0], timeout)
    sleep(3)
    assert not waiting.dead
    os.write(pipe[1], b"x")
    assert waiting.get() is True
    assert time() == 3


def test_time_is_over_never_early(hub: Hub, time: VirtualTime, pipe: tuple[int, int], way: Way) -> None:
    assert way(pipe[0], 1.5) is False
    assert time() >= 1.5


def test_what_is_ready_is_told_without_letting_anybody_go_first(hub: Hub, pipe: tuple[int, int], way: Way) -> None:
    os.write(pipe[1], b"x")
    other = spawn(lambda: None)
    assert way(pipe[0], None)
    assert not other.dead
    other.join()


def test_looking_with_no_time_never_switches(hub: Hub, pipe: tuple[int, int], way: Way) -> None:
    other = spawn(lambda: None)
    assert not any(way(pipe[0], 0) for _ in range(1000))
    assert not other.dead
    other.join()


def test_who_always_finds_something_lets_others_go_first_in_the_end(hub: Hub, pipe: tuple[int, int], way: Way) -> None:
    os.write(pipe[1], b"x")
    other = spawn(lambda: None)
    for _ in range(200):
        assert way(pipe[0], None)
    assert other.dead


def test_any_number_of_tasks_wait_for_one_descriptor(hub: Hub, pipe: tuple[int, int], way: Way) -> None:
    tasks = [spawn(way, pipe[0], None) for _ in range(5)] + [spawn(wait_readable, pipe[0])]
    sleep(1)
    os.write(pipe[1], b"x")
    assert [task.get() for task in tasks] == [True] * 5 + [None]


def test_beside_a_socket_of_ours_that_reads(hub: Hub, pair: tuple[Socket, Socket], way: Way) -> None:
    reading = spawn(pair[0].recv, 10)
    sleep(0)
    looking = spawn(way, pair[0].fileno(), None)
    sleep(1)
    pair[1].send(b"x")
    sleep(0)
    assert reading.get() == b"x"
    pair[1].send(b"y")  # whoever read first left nothing to look at
    assert looking.get() is True


@pytest.mark.parametrize("end", ["kill", "timeout"])
def test_who_leaves_leaves_nothing_watched(hub: Hub, pipe: tuple[int, int], way: Way, end: str) -> None:
    watched = set(hub.registrations)
    waiting = spawn(way, pipe[0], None if end == "kill" else 1)
    sleep(0.5)
    if end == "kill":
        waiting.kill()
    waiting.join()
    assert set(hub.registrations) - watched <= {fd for fd in hub.registrations if fd > pipe[1] and by_number(hub, fd)}
    assert not hub.parked


def by_number(hub: Hub, fd: int) -> bool:
    """Whether a registration is an idle one, of a number that was waited for once."""
    return hub.registrations[fd].read.holder is None


def test_end_of_file_is_ready(hub: Hub, pipe: tuple[int, int]) -> None:
    looking = [spawn(select.select, [pipe[0]], [], []), spawn(by_poll_events, pipe[0])]
    sleep(1)
    os.close(pipe[1])
    assert looking[0].get() == ([pipe[0]], [], [])
    assert looking[1].get() == [(pipe[0], original.POLLHUP)]


def by_poll_events(fd: int) -> list[tuple[int, int]]:
    polled = select.poll()
    polled.register(fd, original.POLLIN)
    return polled.poll()


def test_inside_the_hub_looking_works_and_waiting_is_refused(hub: Hub, pipe: tuple[int, int], way: Way) -> None:
    seen: list[object] = []

    def callback() -> None:
        seen.append(way(pipe[0], 0))
        try:
            way(pipe[0], None)
        except HubError:
            seen.append("refused")

    hub.call_soon(callback)
    sleep(1)
    assert seen == [False, "refused"]


def test_thread_without_a_hub_gets_none(pipe: tuple[int, int], way: Way) -> None:
    from greenswitch.hub import has_hub

    os.write(pipe[1], b"x")
    assert way(pipe[0], None)
    assert not has_hub()


def test_where_there_is_no_epoll_a_thread_asks(
    real_hub: Hub, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_epoll", None)
    assert by_select(pipe[0], 0.01) is False
    waiting = [spawn(by_select, pipe[0], None), spawn(by_poll, pipe[0], None)]
    sleep(0.01)
    assert not any(one.dead for one in waiting)
    monkeypatch.setattr(descriptors, "_poll", None)
    waiting.append(spawn(by_select, pipe[0], 5))
    sleep(0.01)
    os.write(pipe[1], b"x")
    assert all(one.get() for one in waiting)


# -- select ------------------------------------------------------------------------------------------------------------


def test_select_takes_sockets_of_ours_and_returns_the_very_objects(hub: Hub, pair: tuple[Socket, Socket]) -> None:
    assert select.select(pair, pair, [], 1) == ([], list(pair), [])
    looking = spawn(select.select, {pair[0]}, [], [])
    sleep(1)
    pair[1].send(b"x")
    assert looking.get() == ([pair[0]], [], [])


def test_select_waits_for_urgent_data(hub: Hub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            looking = spawn(select.select, [], [], [far])
            sleep(1)
            near.send(b"!", socket.MSG_OOB)
            assert looking.get() == ([], [], [far])


@pytest.mark.parametrize("poller", [make_poller, SelectorPoller])
def test_hangup_that_nobody_asked_for_doesnt_keep_the_processor_busy(poller: Callable[[], Poller]) -> None:
    near, far = socket.socketpair()
    time = VirtualTime()
    with near, time.hub(poller()) as hub:
        far.close()
        hub.call_later(1, int)
        assert select.select([], [], [near], 3) == ([], [], [])
        assert time() == 3
        assert hub.turns < 10


def test_regular_file_is_always_ready(hub: Hub) -> None:
    with tempfile.TemporaryFile() as file:
        assert select.select([file], [file], []) == ([file], [file], [])
        assert select.select([], [], [file], 1) == ([], [], [])


def test_closed_descriptor_is_a_bad_one(hub: Hub, pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        select.select([pipe[0]], [], [])


@pytest.mark.parametrize(
    "args",
    [
        (1, 2, 3),
        ([], [], [], "x"),
        ([object()], [], [], 1),
        ([], [], [], -1),
        ([-1], [], [], 1),
        ([], [], [], float("nan")),
        ([], [], [], 1e300),
        ([], [], [], 1 << 80),
    ],
    ids=repr,
)
def test_select_refuses_what_the_original_refuses(hub: Hub, args: tuple[Any, ...]) -> None:
    with pytest.raises(Exception) as theirs:
        original.select(*args)
    with pytest.raises(theirs.type):
        select.select(*args)


# -- poll --------------------------------------------------------------------------------------------------------------


def test_poll_forgets_and_changes_as_told(hub: Hub, pipe: tuple[int, int]) -> None:
    polled = select.poll()
    polled.register(pipe[0])
    polled.register(pipe[1], original.POLLOUT)
    assert polled.poll() == [(pipe[1], original.POLLOUT)]
    polled.modify(pipe[1], 0)
    assert polled.poll(10) == []
    polled.unregister(pipe[1])
    with pytest.raises(KeyError):
        polled.unregister(pipe[1])
    with pytest.raises(FileNotFoundError):
        polled.modify(pipe[1], original.POLLIN)


def test_poll_tells_of_a_closed_descriptor(hub: Hub, pipe: tuple[int, int]) -> None:
    polled = select.poll()
    polled.register(pipe[0])
    os.close(pipe[0])
    assert polled.poll() == [(pipe[0], original.POLLNVAL)]


@pytest.mark.parametrize("forever", [None, -1, -0.5])
def test_poll_waits_for_ever_if_told_so(hub: Hub, pipe: tuple[int, int], forever: float | None) -> None:
    polled = select.poll()
    polled.register(pipe[0])
    waiting = spawn(polled.poll, forever)
    sleep(1e6)
    os.write(pipe[1], b"x")
    assert waiting.get() == [(pipe[0], original.POLLIN)]


def test_second_poll_of_the_same_object_is_refused(hub: Hub, pipe: tuple[int, int]) -> None:
    polled = select.poll()
    polled.register(pipe[0])
    first = spawn(polled.poll)
    sleep(1)
    with pytest.raises(RuntimeError, match=r"concurrent poll\(\) invocation"):
        polled.poll()
    first.kill()
    assert polled.poll(1) == []


@pytest.mark.parametrize("timeout", ["x", 1 << 31, 1 << 64, float("nan")], ids=repr)
def test_poll_refuses_what_the_original_refuses(hub: Hub, timeout: Any) -> None:
    with pytest.raises(Exception) as theirs:
        original.poll().poll(timeout)
    with pytest.raises(theirs.type):
        select.poll().poll(timeout)


# -- epoll -------------------------------------------------------------------------------------------------------------


@needs_epoll
def test_epoll_object_opens_no_descriptor_until_it_is_needed(hub: Hub) -> None:
    before = os.listdir("/proc/self/fd")
    polled = select.epoll()
    assert os.listdir("/proc/self/fd") == before
    assert not polled.closed
    polled.close()
    assert polled.closed
    polled.close()
    for call in (polled.fileno, polled.poll, polled.__enter__):
        with pytest.raises(ValueError, match="closed epoll"):
            call()


@needs_epoll
def test_closing_an_epoll_object_ends_the_wait_for_it(hub: Hub, pipe: tuple[int, int]) -> None:
    polled = select.epoll()
    polled.register(pipe[0])
    waiting = spawn(polled.poll)
    sleep(1)
    polled.close()
    with pytest.raises(OSError) as caught:
        waiting.get()
    assert caught.value.errno == errno.EBADF


@needs_epoll
def test_two_tasks_poll_one_epoll_object(hub: Hub, pipe: tuple[int, int]) -> None:
    with select.epoll() as polled:
        polled.register(pipe[0], original.EPOLLIN)
        tasks = [spawn(polled.poll) for _ in range(3)]
        sleep(1)
        os.write(pipe[1], b"x")
        assert [task.get() for task in tasks] == [[(pipe[0], original.EPOLLIN)]] * 3


@needs_epoll
def test_edge_and_one_shot_are_told_once(hub: Hub, pipe: tuple[int, int]) -> None:
    with select.epoll() as polled:
        polled.register(pipe[0], original.EPOLLIN | original.EPOLLET)
        for _ in range(2):
            waiting = spawn(polled.poll)
            sleep(1)
            os.write(pipe[1], b"x")
            assert waiting.get() == [(pipe[0], original.EPOLLIN)]
        assert polled.poll(1) == []
        polled.modify(pipe[0], original.EPOLLIN | original.EPOLLONESHOT)
        assert polled.poll(1) == [(pipe[0], original.EPOLLIN)]
        assert polled.poll(1) == []


@needs_epoll
def test_epoll_of_a_number_shares_its_object(hub: Hub, pipe: tuple[int, int]) -> None:
    with select.epoll() as polled, select.epoll.fromfd(os.dup(polled.fileno())) as same:
        polled.register(pipe[1], original.EPOLLOUT)
        assert same.poll(1) == [(pipe[1], original.EPOLLOUT)]
        polled.unregister(pipe[1])
        assert same.poll(0.5) == []
        assert polled.poll(maxevents=1, timeout=0) == []
        with pytest.raises(ValueError, match="maxevents"):
            polled.poll(1, 0)


@needs_epoll
@pytest.mark.parametrize("args", [(0,), (-2,), (1, 12)], ids=repr)
def test_epoll_refuses_what_the_original_refuses(args: tuple[int, ...]) -> None:
    with pytest.raises(Exception) as theirs:
        original.epoll(*args)
    with pytest.raises(theirs.type):
        select.epoll(*args)


# -- descriptors -------------------------------------------------------------------------------------------------------


def test_wait_for_refuses_nobody_and_wait_readable_does(hub: Hub, pipe: tuple[int, int]) -> None:
    tasks = [spawn(descriptors.wait_for, pipe[0], READ) for _ in range(3)]
    sleep(1)
    with pytest.raises(BusyError):
        wait_readable(pipe[0])
    os.write(pipe[1], b"x")
    assert [task.get() for task in tasks] == [True] * 3
    assert descriptors.wait_for(pipe[0], READ, 1)
    os.read(pipe[0], 1)
    assert not descriptors.wait_for(pipe[0], READ, 1)


def test_who_waits_says_for_which_descriptors(hub: Hub, pipe: tuple[int, int]) -> None:
    waiting = spawn(select.select, [pipe[0]], [], [])
    sleep(1)
    assert [waiter.reason for waiter in hub.parked.values() if waiter.verb == "select"] == [f"select fd {pipe[0]}"]
    waiting.kill()


def test_every_public_name_of_the_original_is_there_and_listed() -> None:
    public = [name for name in dir(original) if not name.startswith("_")]
    assert [name for name in public if not hasattr(select, name)] == []
    assert set(public) == set(select.__all__) <= set(dir(select))
    assert select.error is original.error
    with pytest.raises(AttributeError, match="no 'nonsense'"):
        select.nonsense
