"""Sockets when things go wrong: killed, timed out, closed, cut, reset while waiting, and every trap of an edge trigger.

The table `BLOCKING` holds each call that may block, in a state in which it does; what must hold for all of them is
said once.
"""

import array
import errno
import io
import os
import random
import socket as stdlib
import struct
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from greenswitch import (
    BusyError,
    HubError,
    joinall,
    run,
    sleep,
    sockets,
    spawn,
    wait_readable,
    wait_writable,
)
from greenswitch.hub import Hub
from greenswitch.sockets import Socket, create_connection, create_server, socketpair

unix_only = pytest.mark.skipif(not hasattr(stdlib, "AF_UNIX"), reason="this platform has no UNIX sockets")
linux_only = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="relies on how Linux queues connections")


# -- connected sockets, and calls that block on them ------------------------------------------------------------------


def turn():
    """Let everybody run, and have the hub ask its poller: `sleep(0)` alone need not."""
    sleep(1e-9)


@contextmanager
def tcp():
    """Two ends of one TCP connection over loopback."""
    with create_server(("127.0.0.1", 0)) as listener:
        near = create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


@contextmanager
def plain_peer():
    """One of ours, and the standard library's blocking socket at the other end."""
    with create_server(("127.0.0.1", 0)) as listener, stdlib.create_connection(listener.getsockname()) as far:
        near, _ = listener.accept()
        with near:
            yield near, far


MUCH = b"m" * 20_000_000
"""More than a TCP connection holds. It may have room again a moment after it was full."""


def fill(sock, chunk=b"x" * 65536):
    """Send until the kernel takes no more; return how many bytes that was."""
    patience, sent = sock.gettimeout(), 0
    sock.settimeout(0)
    with suppress(BlockingIOError):
        while True:
            sent += sock.send(chunk)
    sock.settimeout(patience)
    return sent


@dataclass
class Blocked:
    """A call that blocks, the socket that it blocks on, and what makes it go on."""

    call: Any
    socket: Any
    unblock: Any


def reading(kind, call):
    @contextmanager
    def made(tmp_path):
        with ExitStack() as stack:
            if kind == "tcp":
                near, far = stack.enter_context(tcp())
            elif kind == "udp":
                near, far = (stack.enter_context(Socket(stdlib.AF_INET, stdlib.SOCK_DGRAM)) for _ in "ab")
                near.bind(("127.0.0.1", 0))
                far.connect(near.getsockname())
            else:
                near, far = (stack.enter_context(one) for one in socketpair(stdlib.AF_UNIX, kind))
            yield Blocked(partial(call, near), near, lambda: far.sendall(b"four"))

    return made


def writing(call, kind=stdlib.SOCK_STREAM):
    @contextmanager
    def made(tmp_path):
        with ExitStack() as stack:
            if kind == "tcp":
                near, far = stack.enter_context(tcp())
            else:
                near, far = (stack.enter_context(one) for one in socketpair(type=kind))
            fill(near, b"x" if kind == stdlib.SOCK_DGRAM else b"x" * 65536)

            def drain():
                far.settimeout(0)
                with suppress(BlockingIOError):
                    while far.recv(65536):
                        pass

            def unblock():
                for _ in range(50):
                    drain()
                    turn()

            yield Blocked(partial(call, near), near, unblock)

    return made


@contextmanager
def datagram_to_full_stranger(tmp_path):
    """An unconnected UNIX datagram socket whose addressee is full: the kernel won't tell when it no longer is."""
    with Socket(stdlib.AF_UNIX, stdlib.SOCK_DGRAM) as far, Socket(stdlib.AF_UNIX, stdlib.SOCK_DGRAM) as near:
        name = str(tmp_path / "full")
        far.bind(name)
        near.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                near.sendto(b"x", name)
        near.settimeout(None)
        yield Blocked(partial(near.sendto, b"more", name), near, partial(far.recv, 10))


@contextmanager
def message_to_full_stranger(tmp_path):
    with datagram_to_full_stranger(tmp_path) as blocked:
        name = str(tmp_path / "full")
        yield Blocked(partial(blocked.socket.sendmsg, [b"more"], [], 0, name), blocked.socket, blocked.unblock)


@contextmanager
def accepting(tmp_path):
    clients = []
    with create_server(("127.0.0.1", 0)) as listener:

        def connect():
            clients.append(stdlib.create_connection(listener.getsockname()))

        def accept():
            connection, _ = listener.accept()
            connection.close()

        yield Blocked(accept, listener, connect)
        for one in clients:
            one.close()


def connecting(method):
    """A connection to a listener whose queue is full: Linux drops the SYN, so nothing comes back."""

    @contextmanager
    def made(tmp_path):
        with create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
            for _ in range(4):
                filler = stack.enter_context(stdlib.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            near = stack.enter_context(Socket())
            yield Blocked(partial(getattr(near, method), listener.getsockname()), near, None)

    return made


def connecting_unix(method):
    @contextmanager
    def made(tmp_path):
        with Socket(stdlib.AF_UNIX) as listener, ExitStack() as stack:
            listener.bind(str(tmp_path / "listener"))
            listener.listen(0)
            fillers = [stack.enter_context(stdlib.socket(stdlib.AF_UNIX)) for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(str(tmp_path / "listener"))

            def accept_all():
                listener.settimeout(0)
                with suppress(BlockingIOError):
                    while True:
                        listener.accept()[0].close()

            near = stack.enter_context(Socket(stdlib.AF_UNIX))
            yield Blocked(partial(getattr(near, method), str(tmp_path / "listener")), near, accept_all)

    return made


def sendfile_of(make_file):
    def call(sock):
        with make_file() as file:
            return sock.sendfile(file)

    return call


def _real_file():
    file = open(__file__, "rb")
    assert os.fstat(file.fileno()).st_size
    return file


def _through_file(mode, action, buffering=None):
    def call(sock):
        with sock.makefile(mode, buffering) as file:
            return action(file)

    return call


BLOCKING = {
    "recv": reading("tcp", lambda s: s.recv(4)),
    "recv, large": reading("tcp", lambda s: s.recv(1_000_000)),
    "recv PEEK": reading("tcp", lambda s: s.recv(4, stdlib.MSG_PEEK)),
    "recv WAITALL": reading("tcp", lambda s: s.recv(4, stdlib.MSG_WAITALL)),
    "recv_into": reading("tcp", lambda s: s.recv_into(bytearray(10))),
    "recv_into WAITALL": reading("tcp", lambda s: s.recv_into(bytearray(4), 0, stdlib.MSG_WAITALL)),
    "recvfrom": reading("tcp", lambda s: s.recvfrom(10)),
    "recvfrom_into": reading("tcp", lambda s: s.recvfrom_into(bytearray(10))),
    "recvmsg": reading("tcp", lambda s: s.recvmsg(10)),
    "recvmsg_into": reading("tcp", lambda s: s.recvmsg_into(iter([bytearray(10)]))),
    "makefile read": reading("tcp", _through_file("rb", lambda f: f.read(4))),
    "makefile readline": reading("tcp", _through_file("r", lambda f: f.read(1))),
    "udp recv": reading("udp", lambda s: s.recv(10)),
    "udp recv_into": reading("udp", lambda s: s.recv_into(bytearray(10))),
    "udp recvfrom": reading("udp", lambda s: s.recvfrom(10)),
    "udp recvmsg": reading("udp", lambda s: s.recvmsg(10)),
    "accept": accepting,
    "tcp sendall": writing(lambda s: s.sendall(MUCH), "tcp"),
    "send": writing(lambda s: s.send(b"more")),
    "sendall": writing(lambda s: s.sendall(b"more" * 10_000)),
    "sendmsg": writing(lambda s: s.sendmsg(iter([b"mo", b"re"]))),
    "sendfile": writing(sendfile_of(_real_file)),
    "sendfile of memory": writing(sendfile_of(lambda: io.BytesIO(b"more" * 10_000))),
    "makefile write": writing(_through_file("wb", lambda f: f.write(b"more"), buffering=0)),
}
if hasattr(stdlib, "AF_UNIX"):
    BLOCKING |= {
        "unix recv": reading(stdlib.SOCK_STREAM, lambda s: s.recv(10)),
        "unix datagram recv": reading(stdlib.SOCK_DGRAM, lambda s: s.recv(10)),
        "unix datagram send": writing(lambda s: s.send(b"more"), stdlib.SOCK_DGRAM),
        "unix sendto a full stranger": datagram_to_full_stranger,
        "unix sendmsg to a full stranger": message_to_full_stranger,
        "unix connect, backlog full": connecting_unix("connect"),
        "unix connect_ex, backlog full": connecting_unix("connect_ex"),
    }
if os.path.isdir("/proc/self/fd"):
    BLOCKING |= {"connect": connecting("connect"), "connect_ex": connecting("connect_ex")}


@pytest.fixture(params=BLOCKING)
def blocked(request, hub, tmp_path):
    """A call that blocks, in virtual time. Whatever the call has opened must be closed by the time the test ends."""
    with BLOCKING[request.param](tmp_path) as made:
        made.name = request.param
        yield made


def timeout_of(blocked):
    """Make the blocked call, which is to time out."""
    if "connect_ex" in blocked.name:
        assert blocked.call() == errno.EWOULDBLOCK
    else:
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            blocked.call()


def test_every_blocking_call_lets_others_run_and_ends_when_it_can(blocked):
    steps = []
    task = spawn(lambda: (blocked.call(), steps.append("done")))
    turn()
    steps.append("others run")
    turn()
    assert task.state == "parked" and steps == ["others run"]
    if blocked.unblock is not None:
        blocked.unblock()
        task.get(timeout=10)
        assert steps == ["others run", "done"]
    task.kill()


def test_every_blocking_call_times_out_when_the_socket_says_so(blocked, time):
    blocked.socket.settimeout(5)
    timeout_of(blocked)
    assert time.now == pytest.approx(5)
    if blocked.name not in ("connect", "connect_ex"):  # the kernel goes on with those: EALREADY
        timeout_of(blocked)
        assert time.now == pytest.approx(10)


def test_every_blocking_call_can_be_killed_and_the_socket_is_still_usable(blocked, hub, time):
    task = spawn(blocked.call)
    turn()
    task.kill()
    assert task.state == "killed" and not hub.parked
    if blocked.name not in ("connect", "connect_ex"):
        blocked.socket.settimeout(3)
        started = time.now
        timeout_of(blocked)
        assert time.now == pytest.approx(started + 3)


def test_every_blocking_call_can_be_killed_while_its_timeout_runs(blocked, hub, time):
    blocked.socket.settimeout(5)
    task = spawn(blocked.call)
    sleep(4)
    task.kill()
    assert task.state == "killed" and time.now == pytest.approx(4)


@pytest.mark.parametrize("end", ["close", "detach"])
def test_closing_or_detaching_wakes_every_blocking_call_with_ebadf(blocked, end):
    task = spawn(blocked.call)
    turn()
    if end == "detach":
        os.close(blocked.socket.detach())
    elif blocked.name.startswith("makefile"):
        blocked.socket._real_close()  # close() would wait for the file
    else:
        blocked.socket.close()
    if "connect_ex" in blocked.name:
        assert task.get(timeout=10) == errno.EBADF
        return
    with pytest.raises(OSError) as caught:
        task.get(timeout=10)
    assert caught.value.errno == errno.EBADF, caught.value


def test_no_blocking_call_waits_or_switches_when_the_timeout_is_zero(blocked, hub):
    if "sendfile" in blocked.name:
        expected = ValueError
    elif blocked.name.startswith("makefile"):
        pytest.skip("makefile needs a blocking socket")
    else:
        expected = BlockingIOError
    blocked.socket.settimeout(0)
    others = []
    bystander = spawn(others.append, "ran")
    if "connect_ex" in blocked.name:
        assert blocked.call() in (errno.EWOULDBLOCK, errno.EINPROGRESS)
    else:
        with pytest.raises(expected):
            blocked.call()
    assert not others
    bystander.join()


def test_every_blocking_call_is_refused_inside_the_hub_when_it_would_wait(blocked, hub):
    caught = []

    def in_hub():
        try:
            blocked.call()
        except HubError as error:
            caught.append(error)

    hub.call_soon(in_hub)
    turn()
    assert "inside the hub" in str(caught[0])
    assert not hub.parked.get(hub.greenlet)


def test_timing_out_and_becoming_ready_in_the_same_turn_wakes_just_once(hub, time):
    with tcp() as (near, far):
        near.settimeout(1)
        hub.call_later(1, far.send, b"!")
        task = spawn(near.recv, 10)
        sleep(2)
        with suppress(TimeoutError):
            assert task.get() == b"!"
            far.send(b"!")
        assert near.recv(10) == b"!"
    hub.errors.clear()  # a reader that failed before it was asked has been reported


# -- closing, cutting, resetting ---------------------------------------------------------------------------------------


def reset(sock):
    """Close with an RST instead of a FIN."""
    sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_reader_is_told_of_a_reset(hub):
    with tcp() as (near, far):
        task = spawn(near.recv, 10)
        turn()
        reset(far)
        with pytest.raises(ConnectionResetError):
            task.get()
        assert near.recv(10) == b""


def test_reset_after_a_short_read_is_not_missed(hub):
    with tcp() as (near, far):
        far.send(b"hello")
        task = spawn(near.recv, 10)
        assert task.get() == b"hello"
        reset(far)
        with pytest.raises(ConnectionResetError):
            near.recv(10)


def test_reset_while_nobody_waits_is_not_missed(hub):
    with tcp() as (near, far):
        spawn(far.send, b"hello")
        assert near.recv(10) == b"hello"
        far.send(b"lost")
        reset(far)
        turn()  # the hub takes the events in
        turn()
        with pytest.raises(ConnectionResetError):
            assert near.recv(10) == b"lost"
            near.recv(10)


def test_writer_is_told_of_a_reset(hub):
    with tcp() as (near, far):
        task = spawn(near.sendall, b"x" * 50_000_000)
        turn()
        reset(far)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            task.get()


def test_writing_after_the_peer_has_gone_raises_instead_of_waiting(hub):
    with tcp() as (near, far):
        task = spawn(near.sendall, MUCH)
        turn()
        far.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            task.get()


def test_half_close_ends_reading_and_leaves_writing(hub):
    with tcp() as (near, far):
        spawn(lambda: (far.sendall(b"question"), far.shutdown(stdlib.SHUT_WR)))
        assert near.recv(100) == b"question"
        assert near.recv(100) == b""
        assert near.recv(100) == b""
        near.sendall(b"answer")
        near.shutdown(stdlib.SHUT_WR)
        assert far.recv(100) == b"answer"
        assert far.recv(100) == b""


def test_half_close_while_waiting_ends_reading_and_leaves_writing(hub):
    with tcp() as (near, far):
        near.send(b"?")
        assert far.recv(10) == b"?"
        task = spawn(far.recv, 100)
        turn()
        near.shutdown(stdlib.SHUT_WR)
        assert task.get() == b""
        back = spawn(near.recv, 100)
        turn()
        far.sendall(b"x" * 50)
        assert back.get() == b"x" * 50
        far.sendall(b"y" * 50)
        assert near.recv(100) == b"y" * 50


@pytest.mark.parametrize("make", [tcp, socketpair])
def test_shutting_down_our_own_reading_wakes_the_reader(hub, make):
    with ExitStack() as stack:
        near, _far = stack.enter_context(make()) if make is tcp else (stack.enter_context(one) for one in make())
        task = spawn(near.recv, 10)
        turn()
        near.shutdown(stdlib.SHUT_RD)
        assert task.get(timeout=5) == b""


def test_shutting_down_our_own_reading_after_a_short_read_is_not_missed(hub):
    with tcp() as (near, far):
        spawn(far.send, b"abc")
        assert near.recv(10) == b"abc"
        near.shutdown(stdlib.SHUT_RD)
        near.settimeout(5)
        assert near.recv(10) == b""


def test_shutting_down_our_own_writing_wakes_the_writer(hub):
    with tcp() as (near, _far):
        task = spawn(near.sendall, MUCH)
        turn()
        near.shutdown(stdlib.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            task.get(timeout=5)


def test_closed_while_reader_and_writer_wait_wakes_both(hub):
    with tcp() as (near, _far):
        tasks = [spawn(near.recv, 10), spawn(near.sendall, MUCH)]
        turn()
        near.close()
        for task in tasks:
            with pytest.raises(OSError, match="Bad file descriptor"):
                task.get(timeout=5)


def test_closing_wakes_who_waits_for_the_bare_fd_too(hub):
    with tcp() as (connected, _):
        task = spawn(wait_readable, connected)
        turn()
        connected.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            task.get(timeout=5)
    with tcp() as (_, fresh):  # one that has never waited itself
        task = spawn(wait_readable, fresh)
        turn()
        fresh.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            task.get(timeout=5)


def test_bare_wait_works_beside_the_socket_s_own(hub):
    with tcp() as (near, far):
        far.send(b"abc")
        wait_readable(near, 5)
        assert near.recv(10) == b"abc"
        task = spawn(near.recv, 10)
        wait_writable(near, 5)
        far.send(b"def")
        assert task.get() == b"def"
        far.send(b"ghi")
        turn()
        wait_readable(near, 5)
        wait_readable(near, 5)
        assert near.recv(10) == b"ghi"


def test_last_file_closes_a_closed_socket_and_wakes_its_reader(hub):
    with tcp() as (near, far):
        file = near.makefile("rb", buffering=0)
        near.close()
        far.send(b"abc")
        assert file.read(10) == b"abc"
        task = spawn(file.read, 10)
        turn()
        assert task.state == "parked"
        file.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            task.get(timeout=5)


# -- two at once -------------------------------------------------------------------------------------------------------


def test_second_reader_is_refused_and_both_are_named(hub):
    with tcp() as (near, far):
        first = spawn(near.recv, 10)
        first.name = "first"
        turn()
        second = spawn(near.recv, 10)
        second.name = "second"
        with pytest.raises(BusyError, match=rf"fd {near.fileno()}: .*'first'.*read.*'second'"):
            second.get()
        far.send(b"for the first")
        assert first.get() == b"for the first"[:10]
        assert near.recv(10) == b"rst"


def test_second_writer_is_refused_and_both_are_named(hub):
    with tcp() as (near, _far):
        first = spawn(near.sendall, MUCH)
        first.name = "first"
        turn()
        second = spawn(near.sendall, MUCH)
        second.name = "second"
        with pytest.raises(BusyError, match=r"'first'.*write.*'second'"):
            second.get()
        first.kill()


def test_second_acceptor_is_refused(hub):
    with create_server(("127.0.0.1", 0)) as listener:
        first = spawn(listener.accept)
        turn()
        with pytest.raises(BusyError):
            listener.accept()
        first.kill()


def test_reader_and_writer_at_once_are_both_served(hub):
    with tcp() as (near, far):
        reader, writer = spawn(near.recv, 10), spawn(near.sendall, MUCH + b"the end")
        turn()
        assert reader.state == writer.state == "parked"
        far.send(b"hello")
        assert reader.get() == b"hello"
        assert writer.state == "parked"
        got = bytearray()
        while not got.endswith(b"the end"):
            got += far.recv(1 << 20)
        assert len(got) == len(MUCH) + 7
        writer.get()


def test_next_reader_is_let_in_when_the_first_was_killed(hub):
    with tcp() as (near, far):
        first = spawn(near.recv, 10)
        turn()
        first.kill(block=False)
        far.send(b"abc")
        first.join()
        assert near.recv(10) == b"abc"


def test_reader_that_was_woken_and_then_killed_leaves_the_data_to_the_next(hub):
    with tcp() as (near, far):
        first = spawn(near.recv, 10)
        turn()
        far.send(b"abc")
        hub.call_soon(partial(first.kill, block=False))
        turn()
        turn()
        assert b"".join([first.value or b"", *([near.recv(10)] if not first.value else [])]) == b"abc"
        first.join()


# -- the edge and the drained socket -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0, 1, 3], ids="{} turns".format)
def test_data_and_end_together_are_both_seen(hub, gap):
    with tcp() as (near, far):
        spawn(near.recv, 10).kill()
        task = spawn(near.recv, 10)
        turn()
        far.send(b"abc")
        far.close()
        assert task.get(timeout=5) == b"abc"
        for _ in range(gap):
            turn()
        near.settimeout(5)
        assert near.recv(10) == b""


@pytest.mark.parametrize("gap", [0, 1, 3], ids="{} turns".format)
def test_end_after_a_short_read_is_seen(hub, gap):
    with tcp() as (near, far):
        near.settimeout(5)
        spawn(far.send, b"abc")
        assert near.recv(10) == b"abc"
        far.close()
        for _ in range(gap):
            turn()
        assert near.recv(10) == b""


@pytest.mark.parametrize("gap", [0, 1, 3], ids="{} turns".format)
def test_read_of_exactly_what_there_was_then_the_end(hub, gap):
    with tcp() as (near, far):
        near.settimeout(5)
        spawn(far.send, b"abc")
        assert near.recv(3) == b"abc"
        far.shutdown(stdlib.SHUT_WR)
        for _ in range(gap):
            turn()
        assert near.recv(3) == b""


def test_bytes_one_at_a_time_all_arrive(hub):
    message = bytes(range(256)) * 4

    def trickle(far):
        for value in message:
            far.send(bytes([value]))
            turn()
        far.close()

    with tcp() as (near, far):
        near.settimeout(5)
        spawn(trickle, far)
        got = []
        while piece := near.recv(100):
            got.append(piece)
        assert b"".join(got) == message


def test_reading_byte_by_byte_what_came_at_once(hub):
    with tcp() as (near, far):
        near.settimeout(5)
        spawn(lambda: (far.send(b"abcdef"), far.close()))
        assert [near.recv(1) for _ in range(7)] == [b"a", b"b", b"c", b"d", b"e", b"f", b""]


@pytest.mark.parametrize("turns", range(4))
def test_data_that_came_while_nobody_waited_is_read(hub, turns):
    with tcp() as (near, far):
        near.settimeout(5)
        spawn(far.send, b"abc")
        assert near.recv(10) == b"abc"  # drained from now on
        far.send(b"def")
        for _ in range(turns):  # the edge goes by
            turn()
        assert near.recv(10) == b"def"
        far.send(b"ghi")
        for _ in range(turns):
            turn()
        assert near.recv_into(bytearray(10)) == 3


def test_reading_goes_on_after_a_timeout(hub):
    with tcp() as (near, far):
        near.settimeout(1)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                near.recv(10)
            far.send(b"abc")
            assert near.recv(10) == b"abc"


@pytest.mark.parametrize("turns", range(3))
def test_peeked_data_can_be_read(hub, turns):
    with tcp() as (near, far):
        near.settimeout(5)
        spawn(far.send, b"abc")
        for _ in range(2):
            assert near.recv(10, stdlib.MSG_PEEK) == b"abc"
            for _ in range(turns):
                turn()
        assert near.recv(10) == b"abc"
        far.send(b"def")
        for _ in range(turns):
            turn()
        assert near.recv(10, stdlib.MSG_PEEK) == b"def"
        assert near.recv(2, stdlib.MSG_PEEK) == b"de"
        assert near.recv(10) == b"def"


def test_two_sockets_on_one_connection_both_read(hub):
    with tcp() as (near, far), near.dup() as twin:
        near.settimeout(5)
        twin.settimeout(5)
        spawn(far.send, b"abc")
        assert near.recv(10) == b"abc"
        spawn(far.send, b"def")
        assert twin.recv(10) == b"def"
        far.send(b"ghi")
        turn()
        turn()
        assert near.recv(2) == b"gh"
        assert twin.recv(10) == b"i"
        spawn(far.send, b"jkl")
        assert near.recv(10) == b"jkl"
        tasks = [spawn(near.recv, 10), spawn(twin.recv, 10)]
        turn()
        far.send(b"m")
        sleep(1)
        far.send(b"n")
        assert sorted(task.get() for task in tasks) == [b"m", b"n"]


def test_detaching_one_of_two_sockets_on_one_connection_leaves_the_other_cooperative(hub):
    with tcp() as (near, far):
        twin = near.dup()
        os.close(twin.detach())
        task = spawn(near.recv, 10)
        turn()
        far.send(b"abc")
        assert task.get() == b"abc"


@unix_only
@pytest.mark.parametrize("turns", range(3))
def test_short_read_at_passed_fds_does_not_hide_the_rest(hub, turns):
    near, far = socketpair()
    with near, far:
        near.settimeout(5)
        spawn(far.send, b"start")
        assert near.recv(10) == b"start"
        task = spawn(near.recv, 10)
        turn()
        far.send(b"a")
        stdlib.send_fds(far, [b"b"], [far.fileno()])
        far.send(b"c")
        got = task.get()
        for _ in range(turns):
            turn()
        while len(got) < 3:
            got += near.recv(10)
        assert got == b"abc"


@pytest.mark.parametrize("turns", range(3))
def test_short_read_at_urgent_data_does_not_hide_the_rest(hub, turns):
    with tcp() as (near, far):
        near.settimeout(5)
        task = spawn(near.recv, 10)
        turn()
        far.send(b"abc")
        far.send(b"!", stdlib.MSG_OOB)
        far.send(b"def")
        got = task.get()
        for _ in range(turns):
            turn()
        while len(got) < 6:
            got += near.recv(10)
        assert got == b"abcdef"


def drain(near, far):
    """Leave `near` knowing that there is nothing to read."""
    task = spawn(near.recv, 100)
    turn()
    far.send(b"all there is")
    assert task.get() == b"all there is"


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (lambda near: near.recv(0), b""),
        (lambda near: near.recv_into(bytearray()), 0),
        (lambda near: near.recv_into(bytearray(), 0, stdlib.MSG_WAITALL), 0),
        (lambda near: near.recv(0, stdlib.MSG_WAITALL), b""),
    ],
)
def test_reading_nothing_never_waits(hub, call, result):
    with tcp() as (near, far):
        near.settimeout(5)
        assert call(near) == result
        drain(near, far)
        assert call(near) == result
        far.send(b"def")
        turn()
        assert call(near) == result
        assert near.recv(10) == b"def"


@pytest.mark.parametrize("flags", [0, stdlib.MSG_WAITALL])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda near, flags: near.recv(-1, flags), "negative buffersize in recv"),
        (lambda near, flags: near.recv_into(bytearray(10), -1, flags), "negative buffersize in recv_into"),
        (lambda near, flags: near.recv_into(bytearray(10), 11, flags), "buffer too small"),
    ],
)
def test_wrong_sizes_raise_at_once_on_a_drained_socket(hub, call, message, flags):
    with tcp() as (near, far):
        near.settimeout(5)
        drain(near, far)
        with pytest.raises(ValueError, match=message):
            call(near, flags)
        far.send(b"def")
        assert near.recv(10) == b"def"


def test_drained_socket_is_read_inside_the_hub_if_data_has_come(hub):
    got = []
    with tcp() as (near, far):
        spawn(far.send, b"abc")
        assert near.recv(10) == b"abc"
        far.send(b"def")
        hub.call_soon(lambda: got.append(near.recv(10)))
        turn()
        assert got == [b"def"]
        far.send(b"ghi")
        hub.call_soon(lambda: got.append(near.recv_into(bytearray(10))))
        turn()
        assert got == [b"def", 3]


def test_inside_the_hub_a_socket_works_as_long_as_it_need_not_wait(hub):
    got = []

    def many(near, far):
        for _ in range(500):
            far.send(b"abc")
            got.append(near.recv(3))

    with tcp() as (near, far):
        hub.call_soon(many, near, far)
        turn()
        assert got == [b"abc"] * 500


@pytest.mark.parametrize("close_first", [True, False])
def test_fd_number_that_is_given_out_again_at_once_gets_its_own_events(hub, close_first):
    for _ in range(20):
        with tcp() as (old, old_far), ExitStack() as stack:
            reader = spawn(old.recv, 10)
            turn()
            old_far.send(b"stale")  # an event for the old fd is on its way
            number = old.fileno()
            if close_first:
                old.close()
            else:
                spawn(old.close)
                turn()
            new, far = (stack.enter_context(one) for one in socketpair())
            assert number in (new.fileno(), far.fileno())
            if new.fileno() != number:
                new, far = far, new
            new.settimeout(5)
            next_reader = spawn(new.recv, 10)
            turn()
            turn()
            assert next_reader.state == "parked"
            far.send(b"fresh")
            assert next_reader.get() == b"fresh"
            with suppress(OSError):
                assert reader.get() == b"stale"
            assert reader.dead
    hub.errors.clear()  # a reader that failed before it was asked has been reported


def test_fd_closed_behind_our_back_and_given_out_again_works_for_its_next_owner(hub):
    with tcp() as (old, _):
        task = spawn(old.recv, 10)
        turn()
        task.kill()
        number = old.fileno()
        stdlib.socket.detach(old)  # past our detach(): the hub isn't told
        os.close(number)
        with tcp() as (near, far):
            mine = near if near.fileno() == number else far
            other = far if mine is near else near
            mine.settimeout(5)
            task = spawn(mine.recv, 10)
            turn()
            other.send(b"abc")
            assert task.get() == b"abc"


# -- fairness ----------------------------------------------------------------------------------------------------------

UNWAITING = {
    "recv": lambda near, far: (far.send(b"x"), near.recv(1)),
    "short recv": lambda near, far: (far.send(b"x"), near.recv(10)),
    "recv_into": lambda near, far: (far.send(b"x"), near.recv_into(bytearray(1))),
    "recvfrom": lambda near, far: (far.send(b"x"), near.recvfrom(1)),
    "recvmsg": lambda near, far: (far.send(b"x"), near.recvmsg(1)),
    "recv WAITALL": lambda near, far: (far.send(b"x"), near.recv(1, stdlib.MSG_WAITALL)),
}


@pytest.mark.parametrize("name", UNWAITING)
def test_task_that_never_has_to_wait_still_lets_others_run(hub, name):
    turns = []

    def other():
        while True:
            turns.append(1)
            sleep(0)

    with tcp() as (near, far), far.dup() as raw_twin:
        sender = stdlib.socket(fileno=os.dup(raw_twin.fileno()))
        sender.setblocking(False)
        task = spawn(other)
        with sender:
            for _ in range(1000):
                UNWAITING[name](near, sender)
        task.kill()
        assert len(turns) >= 5


@pytest.mark.parametrize("name", ["send", "sendto", "sendmsg", "recvfrom"])
def test_datagrams_that_never_have_to_wait_still_let_others_run(hub, name):
    turns = []

    def other():
        while True:
            turns.append(1)
            sleep(0)

    with Socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as near, Socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        near.connect(far.getsockname())
        task = spawn(other)
        peer = stdlib.socket(stdlib.AF_INET, stdlib.SOCK_DGRAM, fileno=os.dup(near.fileno()))
        with peer:
            for _ in range(1000):
                if name == "send":
                    near.send(b"x")
                elif name == "sendto":
                    near.sendto(b"x", far.getsockname())
                elif name == "sendmsg":
                    near.sendmsg([b"x"])
                else:
                    peer.send(b"x")
                    far.recvfrom(10)
        task.kill()
        assert len(turns) >= 5


def test_kill_at_a_moment_of_fairness_loses_no_data(hub):
    """A kill, or a deadline, meets a task where it waits: what the kernel has handed over must not be lost there."""
    got = []

    class Stop(Exception):
        pass

    def reader(near):
        while True:
            try:
                piece = near.recv(1)
            except Stop:
                continue
            if not piece:
                return
            got.append(piece)

    message = bytes(range(256)) * 8
    with tcp() as (near, far):
        far.send(message)
        far.close()
        task = spawn(reader, near)
        while not task.dead:
            hub.call_soon(lambda: task.carrier and hub.interrupt(task.carrier, Stop()))
            turn()
        assert b"".join(got) == message
        task.get()


def test_kill_at_a_moment_of_fairness_loses_no_connection(hub):
    with create_server(("127.0.0.1", 0), backlog=200) as listener, ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(stdlib.create_connection(listener.getsockname()))
        accepted = []

        def acceptor():
            while True:
                accepted.append(listener.accept()[0])

        for _ in range(20):
            task = spawn(acceptor)
            sleep(0)
            task.kill()
        for one in accepted:
            one.close()
        assert len(accepted) == 150


# -- several threads, several hubs -------------------------------------------------------------------------------------


def in_thread(function, *args):
    """Run `function` in another OS thread, in a hub of its own; return its result or raise its exception."""
    outcome = []

    def body():
        try:
            outcome.append((run(function, *args), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(30)
    ((value, error),) = outcome
    if error is not None:
        raise error
    return value


def test_socket_moves_between_hubs_with_data_already_there(real_hub):
    with plain_peer() as (near, far):
        near.settimeout(10)

        def read_short():
            return near.recv(100)

        for number in range(6):
            where = in_thread if number % 2 else lambda function: function()
            reader = spawn(near.recv, 100)  # registered here
            turn()
            reader.kill()
            far.sendall(b"first %d" % number)
            turn()  # this hub takes the edge
            assert where(read_short) == b"first %d" % number
            far.sendall(b"second %d" % number)
            turn()
            turn()
            assert where(read_short) == b"second %d" % number
            far.sendall(b"third %d" % number)
            assert read_short() == b"third %d" % number


def test_two_hubs_use_the_two_directions_of_one_socket(real_hub):
    size = 20_000_000
    with plain_peer() as (near, far):

        def peer():
            got = 0
            while got < size:
                got += len(far.recv(1 << 20))
            far.sendall(b"y" * size)

        def read_all():
            got = 0
            while got < size:
                got += len(near.recv(1 << 20))
            return got

        other = threading.Thread(target=peer)
        other.start()
        reader = threading.Thread(target=lambda: totals.append(in_thread(read_all)))
        totals = []
        reader.start()
        near.sendall(b"x" * size)
        other.join(30)
        reader.join(30)
        assert totals == [size]


def test_closing_in_one_thread_wakes_who_waits_in_another(real_hub):
    with plain_peer() as (near, _far):
        started = threading.Event()
        caught = []

        def wait():
            started.set()
            try:
                near.recv(10)
            except OSError as error:
                caught.append(error.errno)

        thread = threading.Thread(target=run, args=(wait,))
        thread.start()
        started.wait(10)
        sleep(0.05)
        writer = spawn(near.sendall, MUCH)  # known to both hubs now, to this one last
        sleep(0.05)
        near.close()
        thread.join(10)
        with pytest.raises(OSError, match="Bad file descriptor"):
            writer.get(timeout=5)
        assert not thread.is_alive() and caught == [9]


def test_short_read_in_a_thread_does_not_hide_what_the_hub_was_told_meanwhile(real_hub):
    """The hub's thread takes an event in between the reader's system call and what the reader concludes from it."""
    with plain_peer() as (near, far):
        near.settimeout(5)
        reader = spawn(near.recv, 100)
        turn()
        far.sendall(b"one")
        assert reader.get() == b"one"
        original = sockets._recv

        def interrupted(sock, size, flags):
            data = original(sock, size, flags)
            far.sendall(b"three")
            deadline = real_hub.clock() + 5
            while real_hub.poller.keeps and real_hub.clock() < deadline:
                for fd, events in real_hub.poller.poll(0.01):  # as the hub's thread does
                    real_hub.registrations[fd].notify(events)
                    return data
            return data

        far.sendall(b"two")
        sleep(0.01)
        sockets._recv = interrupted
        try:
            assert near.recv(100) == b"two"
        finally:
            sockets._recv = original
        sleep(0.01)
        assert near.recv(100) == b"three"


def test_descriptor_has_the_mode_that_the_originals_would_have(hub):
    near, far = socketpair()
    with near, far, stdlib.socket() as original:
        for value in (None, 0, 1, 1.5, None):
            for sock in (near, original):
                sock.settimeout(value)
            assert os.get_blocking(near.fileno()) == os.get_blocking(original.fileno()) == (value is None)
            assert near.gettimeout() == value
        task = spawn(near.recv, 10)
        turn()
        assert os.get_blocking(near.fileno()) and task.state == "parked"
        far.send(b"x")
        assert task.get() == b"x" and os.get_blocking(near.fileno())


def test_connect_and_sendfile_leave_the_descriptor_blocking_and_accept_does_not(hub):
    with create_server(("127.0.0.1", 0)) as listener:
        assert os.get_blocking(listener.fileno())
        accepting = spawn(listener.accept)
        with Socket() as near:
            near.connect(listener.getsockname())
            far, _ = accepting.get()
            with far, open(__file__, "rb") as file:
                spawn(near.sendfile, file).join()
                assert [os.get_blocking(one.fileno()) for one in (near, far)] == [True] * 2
        assert not os.get_blocking(listener.fileno())  # a process that shares it may be about to accept
        again = spawn(listener.accept)
        turn()
        assert not os.get_blocking(listener.fileno()) and again.state == "parked"
        again.kill()


# -- a model: what is written is what is read --------------------------------------------------------------------------


def random_exchange(seed, pair, steps=40):
    """Writes, reads, pauses and half closes of random sizes, both ways at once."""
    chance = random.Random(seed)
    left, right = pair
    sent = {left: bytearray(), right: bytearray()}
    read = {left: bytearray(), right: bytearray()}

    def write(sock):
        dice = random.Random(chance.random())
        for _ in range(dice.randrange(1, steps)):
            data = dice.randbytes(dice.choice([1, 10, 100, 1000, 4096, 65536, 65537, 300_000]))
            sent[sock] += data
            action = dice.randrange(4)
            if action == 0:
                sock.sendall(data)
            elif action == 1:
                view = memoryview(data)
                while view:
                    view = view[sock.send(view) :]
            elif action == 2:
                sock.sendall(array.array("B", data))
            else:
                sock.sendfile(io.BytesIO(data))
            for _ in range(dice.choice([0, 0, 0, 1, 3])):
                dice.choice([turn, sleep])()
        sock.shutdown(stdlib.SHUT_WR)

    def receive(sock):
        dice = random.Random(chance.random())
        while True:
            size = dice.choice([1, 10, 100, 1000, 4096, 65536, 100_000, 1_000_000])
            action = dice.randrange(6)
            if action == 0:
                buffer = bytearray(size)
                data = bytes(buffer[: sock.recv_into(buffer)])
            elif action == 1:
                data = sock.recv(min(size, 5000), stdlib.MSG_WAITALL)
            elif action == 2:
                data = sock.recvmsg(size)[0]
            elif action == 3:
                peeked = sock.recv(size, stdlib.MSG_PEEK)
                data = sock.recv(len(peeked)) if peeked else b""
                assert data == peeked[: len(data)]
            else:
                data = sock.recv(size)
            if not data:
                return
            read[sock] += data
            for _ in range(dice.choice([0, 0, 0, 0, 1, 4])):
                dice.choice([turn, sleep])()

    tasks = [spawn(what, sock) for what in (write, receive) for sock in pair]
    joinall(tasks, timeout=1000, raise_error=True)
    assert all(task.dead for task in tasks), [repr(task) for task in tasks]
    assert read[left] == sent[right]
    assert read[right] == sent[left]


@pytest.mark.parametrize("make", ["tcp", "socketpair"])
@pytest.mark.parametrize("seed", [1, 2, 3, random.randrange(10**9)])
def test_bytes_arrive_exactly_as_they_were_sent(hub, make, seed):
    print("seed", seed)
    with ExitStack() as stack:
        if make == "tcp":
            pair = stack.enter_context(tcp())
        else:
            pair = [stack.enter_context(one) for one in socketpair()]
        random_exchange(seed, pair)


def test_bytes_arrive_exactly_whatever_hypothesis_thinks_of():
    hypothesis = pytest.importorskip("hypothesis")
    strategies = hypothesis.strategies
    step = strategies.one_of(
        strategies.tuples(strategies.just("send"), strategies.integers(1, 200_000)),
        strategies.tuples(strategies.just("recv"), strategies.integers(1, 200_000)),
        strategies.tuples(strategies.just("turn"), strategies.integers(1, 3)),
    )

    @hypothesis.settings(deadline=None, max_examples=60, database=None)
    @hypothesis.given(strategies.lists(step, max_size=25), strategies.booleans())
    def check(steps, close_early):
        with Hub() as hub:
            with tcp() as (near, far):
                _follow(steps, near, far, close_early)
            assert not hub.parked

    check()


def _follow(steps, near, far, close_early):
    """One task sends and closes; the test reads as the steps say, then to the end."""
    sizes = [size for what, size in steps if what == "send"]
    message = b"".join(bytes([number % 256]) * size for number, size in enumerate(sizes))

    def send():
        for number, size in enumerate(sizes):
            far.sendall(bytes([number % 256]) * size)
            if number % 3 == 0:
                turn()
        far.close() if close_early else far.shutdown(stdlib.SHUT_WR)

    task = spawn(send)
    got = bytearray()
    near.settimeout(20)
    for what, size in steps:
        if what == "recv":
            got += near.recv(size)
        elif what == "turn":
            for _ in range(size):
                turn()
    while piece := near.recv(50_000):
        got += piece
    task.get()
    assert got == message


# -- fork --------------------------------------------------------------------------------------------------------------

FORKING = '''
import os, sys, socket as stdlib
from greenswitch import run, sleep, spawn, get_hub
from greenswitch.sockets import Socket, create_connection, create_server, socketpair

def exit_now(code):
    sys.stdout.flush()
    os._exit(code)

def reader(sock):
    try:
        while data := sock.recv(10):
            log.append(data)
    finally:
        print("finally in", "child" if os.getpid() != parent else "parent", flush=True)

def main():
    a, b = socketpair()
    c, d = socketpair()
    task = spawn(reader, a)
    spawn(c.send, b"drain")
    assert d.recv(10) == b"drain"
    sleep(0)
    child = os.fork()
    if child == 0:
        # the parent's reader isn't ours; the sockets work, with data that came before and after the fork
        d.settimeout(5)
        for number in range(3):
            c.send(b"x%d" % number)
            sleep(0)
            assert d.recv(10) == b"x%d" % number
        spawn(c.send, b"later")
        assert d.recv(10) == b"later"
        for one in (a, b, c, d):
            one.close()
        exit_now(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    b.send(b"still here")
    sleep(0.01)
    assert log == [b"still here"], log
    spawn(c.send, b"parent")
    assert d.recv(10) == b"parent"
    b.close()
    task.join()
    for one in (a, c, d):
        one.close()

parent, log = os.getpid(), []
run(main)
'''


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform can't fork")
def test_sockets_work_in_a_forked_child_and_the_parent_keeps_its_tasks():
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING], capture_output=True, text=True, timeout=30, cwd=os.getcwd()
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "finally in parent\n")


# -- odd corners -------------------------------------------------------------------------------------------------------

STDIO_CLOSED = '''
import os, sys
from greenswitch import run, spawn
from greenswitch.sockets import create_connection, create_server, socketpair

def main():
    out = os.dup(1)
    for number in (0, 1, 2):
        os.close(number)
    a, b = socketpair()
    spawn(a.sendall, b"pair")
    assert b.recv(10) == b"pair"
    with create_server(("127.0.0.1", 0)) as listener:
        a.close(); b.close()
        client = spawn(create_connection, listener.getsockname())
        connection, _ = listener.accept()
        client = client.get()
        spawn(client.sendall, b"hello")
        assert connection.recv(10) == b"hello"
        client.close(); connection.close()
    os.write(out, b"fine")

run(main)
'''


@linux_only
def test_connections_are_accepted_by_a_process_whose_standard_streams_are_closed():
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", STDIO_CLOSED], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=30
    )
    assert done.stdout == b"fine"


def test_socket_of_standard_input_works_and_leaves_it_blocking():
    program = """
import os, sys
import greenswitch
from greenswitch.sockets import Socket, fromfd
def main():
    conn = Socket(fileno=0)
    conn.sendall(conn.recv(100).upper())
    with fromfd(0, conn.family, conn.type) as again:
        again.sendall(again.recv(100))
    print(os.get_blocking(0), conn.fileno(), file=sys.stderr)
greenswitch.run(main)
"""
    near, far = stdlib.socketpair()
    with near, far:
        child = subprocess.Popen([sys.executable, "-c", program], stdin=far, stderr=subprocess.PIPE, text=True)
        near.sendall(b"one")
        assert near.recv(100) == b"ONE"
        near.sendall(b"two")
        assert near.recv(100) == b"two"
        assert child.communicate(timeout=30) == (None, "True 0\n")


@linux_only
def test_select_says_which_fds_are_too_many_for_it():
    import selectors

    from greenswitch.hub import SelectorPoller

    near, far = socketpair()
    high = None
    with near, far, Hub(SelectorPoller(selectors.SelectSelector())) as hub:
        import fcntl

        try:
            high = Socket(fileno=fcntl.fcntl(near.fileno(), fcntl.F_DUPFD_CLOEXEC, 1024))
        except OSError as error:
            pytest.skip(f"no fd beyond 1024 to be had: {error}")
        with high, pytest.raises(ValueError, match="GREENSWITCH_POLLER"):
            high.recv(10)
        assert not hub.parked


def test_socket_survives_the_hub_it_was_used_in(no_leaked_fds):
    with stdlib.create_server(("127.0.0.1", 0)) as listener:
        client = stdlib.create_connection(listener.getsockname())
        sock = Socket(fileno=listener.accept()[0].detach())

    def read():
        return sock.recv(100)

    with sock, client:
        for number in range(3):
            client.sendall(b"a%d" % number)
            assert run(read) == b"a%d" % number  # short, so drained
            client.sendall(b"b%d" % number)
            assert run(lambda: (turn(), read())[1]) == b"b%d" % number


def test_waiters_say_what_they_wait_for(hub):
    with tcp() as (near, _far):
        task = spawn(near.recv, 10)
        turn()
        assert f"read <fd {near.fileno()}" in repr(task)
        task.kill()
