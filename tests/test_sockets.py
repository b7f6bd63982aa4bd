"""Cooperative sockets behave as the standard library's, but that others run while one waits."""

import array
import errno
import io
import os
import select
import socket as stdlib
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest

from greenswitch import TaskGroup, joinall, sleep, sockets, spawn
from greenswitch.hub import WRITE
from greenswitch.sockets import Socket, create_connection, create_server, fromfd, socketpair

unix_only = pytest.mark.skipif(not hasattr(stdlib, "AF_UNIX"), reason="this platform has no UNIX sockets")


def _has_ipv6():
    try:
        stdlib.create_server(("::1", 0), family=stdlib.AF_INET6).close()
    except OSError:
        return False
    return True


ipv6_only = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@contextmanager
def tcp():
    """Two ends of one TCP connection over loopback."""
    with create_server(("127.0.0.1", 0)) as listener:
        near = create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


def read_all(sock):
    pieces = []
    while piece := sock.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


# -- what it is --------------------------------------------------------------------------------------------------------


def test_it_is_a_socket_of_the_standard_library_s():
    with Socket() as sock:
        assert isinstance(sock, stdlib.socket)
        assert (sock.family, sock.type, sock.proto) == (stdlib.AF_INET, stdlib.SOCK_STREAM, 0)
        assert sock.gettimeout() is None and sock.timeout is None and sock.getblocking()
        assert os.get_blocking(sock.fileno())  # as the original's: the task waits, and the fd is as the user wants it
    assert sock.fileno() == -1
    assert "closed" in repr(sock)


@pytest.mark.parametrize("value", [None, 0, 0.0, 1, 2.5, 1e-9])
def test_timeouts_read_as_they_were_set(value):
    with Socket() as sock, stdlib.socket() as original:
        sock.settimeout(value)
        original.settimeout(value)
        assert (sock.gettimeout(), sock.getblocking()) == (original.gettimeout(), original.getblocking())
        sock.setblocking(False)
        assert sock.gettimeout() == 0.0
        sock.setblocking(True)
        assert sock.gettimeout() is None


@pytest.mark.skipif(not hasattr(stdlib, "SOCK_NONBLOCK"), reason="this platform has no SOCK_NONBLOCK")
def test_a_socket_that_is_made_non_blocking_never_waits(hub):
    with Socket(stdlib.AF_INET, stdlib.SOCK_DGRAM | stdlib.SOCK_NONBLOCK) as sock:
        assert sock.gettimeout() == 0.0
        with pytest.raises(BlockingIOError):
            sock.recv(1)


def test_a_socket_whose_fd_is_gone_can_be_detached(hub):
    sock = Socket()
    os.close(sock.fileno())
    assert sock.detach() >= 0 and sock.fileno() == -1


def test_the_default_timeout_is_honoured(hub, time):
    stdlib.setdefaulttimeout(7)
    try:
        with tcp() as (near, far), near.dup() as twin:
            assert near.gettimeout() == far.gettimeout() == twin.gettimeout() == 7
            with pytest.raises(TimeoutError):
                far.recv(1)
            assert time.now == pytest.approx(7)
        with Socket() as fresh:
            assert fresh.gettimeout() == 7
    finally:
        stdlib.setdefaulttimeout(None)


# -- the same results and errors as the original -----------------------------------------------------------------------

SAME = {
    "recv of nothing": lambda near, far: near.recv(0),
    "recv of less than nothing": lambda near, far: near.recv(-1),
    "recv of half a byte": lambda near, far: near.recv(1.5),
    "recv of a text": lambda near, far: near.recv("1"),
    "recv of nothing at all": lambda near, far: near.recv(),
    "recv PEEK of less than nothing": lambda near, far: near.recv(-1, stdlib.MSG_PEEK),
    "recv WAITALL of less than nothing": lambda near, far: near.recv(-1, stdlib.MSG_WAITALL),
    "recv_into nothing": lambda near, far: near.recv_into(bytearray()),
    "recv_into less than nothing": lambda near, far: near.recv_into(bytearray(3), -1),
    "recv_into more than there is room": lambda near, far: near.recv_into(bytearray(3), 4),
    "recv_into WAITALL more than there is room": lambda near, far: near.recv_into(bytearray(3), 4, stdlib.MSG_WAITALL),
    "recv_into what can't be written": lambda near, far: near.recv_into(b"abc"),
    "recv_into by keywords": lambda near, far: (far.send(b"ab"), near.recv_into(bytearray(3), nbytes=1, flags=0)),
    "recvfrom less than nothing": lambda near, far: near.recvfrom(-1),
    "recvfrom_into by keywords": lambda near, far: (far.send(b"ab"), near.recvfrom_into(bytearray(3), nbytes=1)[0]),
    "recvmsg less than nothing": lambda near, far: near.recvmsg(-1),
    "recvmsg_into what can't be written": lambda near, far: near.recvmsg_into([b"abc"]),
    "send of nothing": lambda near, far: near.send(b""),
    "send of a text": lambda near, far: near.send("abc"),
    "send of an array": lambda near, far: (near.send(array.array("I", [1, 2])), far.recv(10)),
    "sendall of nothing": lambda near, far: near.sendall(b""),
    "sendall of a text": lambda near, far: near.sendall("abc"),
    "sendall of an array": lambda near, far: (near.sendall(array.array("I", [1, 2])), far.recv(10)),
    "sendall of a cast view": lambda near, far: (
        near.sendall(memoryview(bytes(range(12))).cast("B", (3, 4))),
        far.recv(100),
    ),
    "sendto without an address": lambda near, far: near.sendto(b"abc"),
    "sendto a number": lambda near, far: near.sendto(b"abc", 5),
    "sendto with flags that are none": lambda near, far: near.sendto(b"abc", "x", ("127.0.0.1", 1)),
    "sendmsg in pieces": lambda near, far: (near.sendmsg([b"a", bytearray(b"b")]), far.recv(10)),
    "sendmsg of a text": lambda near, far: near.sendmsg(["abc"]),
    "sendfile of text": lambda near, far: near.sendfile(io.StringIO("abc")),
    "sendfile of less than nothing": lambda near, far: near.sendfile(io.BytesIO(b"abc"), count=-1),
    "sendfile from nowhere": lambda near, far: near.sendfile(io.BytesIO(b"abc"), offset=None),
    "connect to nothing": lambda near, far: near.connect(None),
    "connect to half an address": lambda near, far: near.connect(("127.0.0.1",)),
    "connect to a text": lambda near, far: near.connect("127.0.0.1"),
    "connect to port 70000": lambda near, far: near.connect(("127.0.0.1", 70000)),
    "accept without listening": lambda near, far: near.accept(),
    "settimeout negative": lambda near, far: near.settimeout(-1),
    "settimeout of a text": lambda near, far: near.settimeout("1"),
    "settimeout of what is no number": lambda near, far: near.settimeout(float("nan")),
    "settimeout for ever": lambda near, far: near.settimeout(float("inf")),
    "recv after closing": lambda near, far: (near.close(), near.recv(1)),
    "recv_into after closing": lambda near, far: (near.close(), near.recv_into(bytearray(1))),
    "send after closing": lambda near, far: (near.close(), near.send(b"a")),
    "sendall after closing": lambda near, far: (near.close(), near.sendall(b"a")),
    "sendfile after closing": lambda near, far: (near.close(), near.sendfile(io.BytesIO(b"abc"))),
    "accept after closing": lambda near, far: (near.close(), near.accept()),
    "connect after closing": lambda near, far: (near.close(), near.connect(("127.0.0.1", 1))),
    "connect_ex after closing": lambda near, far: (near.close(), near.connect_ex(("127.0.0.1", 1))),
    "settimeout after closing": lambda near, far: (near.close(), near.settimeout(1)),
    "settimeout None after closing": lambda near, far: (near.close(), near.settimeout(None)),
    "setblocking after closing": lambda near, far: (near.close(), near.setblocking(False)),
    "dup after closing": lambda near, far: (near.close(), near.dup()),
    "detach twice": lambda near, far: (os.close(near.detach()), near.detach()),
    "close twice": lambda near, far: (near.close(), near.close()),
    "makefile of a strange mode": lambda near, far: near.makefile("x"),
    "non-blocking recv": lambda near, far: (near.setblocking(False), near.recv(1)),
    "non-blocking recv WAITALL": lambda near, far: (near.setblocking(False), near.recv(1, stdlib.MSG_WAITALL)),
    "non-blocking accept": lambda near, far: (near.setblocking(False), near.accept()),
    "recv DONTWAIT": lambda near, far: near.recv(1, stdlib.MSG_DONTWAIT),
    "recv_into DONTWAIT": lambda near, far: near.recv_into(bytearray(1), 0, stdlib.MSG_DONTWAIT),
    "recv, then the end": lambda near, far: (far.send(b"abc"), far.close(), near.recv(10), near.recv(10)),
    "timeout": lambda near, far: (near.settimeout(0.001), near.recv(1)),
}


def outcome(call, near, far):
    try:
        return call(near, far)
    except Exception as error:
        return type(error), error.args if isinstance(error, OSError) else None


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", SAME)
def test_results_and_errors_are_the_original_s(hub, name):
    with stdlib.create_server(("127.0.0.1", 0)) as listener, stdlib.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            expected = outcome(SAME[name], near, far)
    with tcp() as (near, far):
        assert outcome(SAME[name], near, far) == expected


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_large_read_is_served_in_pieces_of_64_kib(hub):
    with tcp() as (near, far):
        writer = spawn(far.sendall, b"x" * 1_000_000)
        sizes = []
        while sum(sizes) < 1_000_000:
            sizes.append(len(near.recv(10_000_000)))
        assert max(sizes) <= 65536
        writer.get()


def test_fifty_megabytes_pass_through_small_buffers(hub):
    message = os.urandom(1 << 20) * 48
    with tcp() as (near, far):
        near.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, 32768)
        far.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 32768)

        def write():
            near.sendall(message)
            near.shutdown(stdlib.SHUT_WR)

        writer = spawn(write)
        assert read_all(far) == message
        writer.get()


def test_waitall_waits_for_all_of_it(hub):
    with tcp() as (near, far):

        def trickle():
            for _ in range(10):
                far.send(b"ab")
                sleep(1)

        spawn(trickle)
        assert near.recv(7, stdlib.MSG_WAITALL) == b"abababa"
        buffer = bytearray(b"........")
        assert near.recv_into(buffer, 5, stdlib.MSG_WAITALL) == 5
        assert buffer == b"babab..."
        numbers = array.array("H", [0, 0])
        assert near.recv_into(numbers, 0, stdlib.MSG_WAITALL) == 4
        assert numbers.tobytes() == b"abab"
        sleep(20)
        far.shutdown(stdlib.SHUT_WR)
        assert near.recv(100, stdlib.MSG_WAITALL) == b"abab"
        assert near.recv(100, stdlib.MSG_WAITALL) == b""


def test_waitall_returns_what_has_come_until_the_timeout(hub):
    with tcp() as (near, far):
        near.settimeout(3)
        far.send(b"abc")
        assert near.recv(10, stdlib.MSG_WAITALL) == b"abc"
        with pytest.raises(TimeoutError):
            near.recv(10, stdlib.MSG_WAITALL)


def test_peeking_leaves_the_data_there(hub):
    with tcp() as (near, far):
        spawn(far.send, b"abc")
        buffer = bytearray(2)
        assert near.recv(10, stdlib.MSG_PEEK) == b"abc"
        assert near.recv_into(buffer, 0, stdlib.MSG_PEEK) == 2
        assert near.recv(10) == b"abc"


def test_files_read_and_write_lines(hub):
    def answer(sock):
        with sock, sock.makefile("rw", encoding="utf-8") as file:
            for line in file:
                file.write(f"<{line.rstrip()}>\n")
                file.flush()

    with tcp() as (near, far):
        task = spawn(answer, far)
        with near.makefile("rw", encoding="utf-8") as file:
            for word in ("one", "zwölf", "x" * 100_000):
                print(word, file=file, flush=True)
                assert file.readline() == f"<{word}>\n"
            near.shutdown(stdlib.SHUT_WR)
            assert file.read() == ""
        task.get()


def test_socket_closed_while_its_file_is_open_lives_until_the_file_is_closed(hub):
    with tcp() as (near, far):
        file = near.makefile("rb")
        near.close()
        spawn(far.sendall, b"hello\n")
        assert file.readline() == b"hello\n"
        assert near.fileno() >= 0
        file.close()
        assert near.fileno() == -1
        assert far.recv(10) == b""


def test_a_read_file_that_timed_out_is_spoilt_as_the_original_s_is(hub):
    with tcp() as (near, far):
        near.settimeout(1)
        with near.makefile("rb") as file:
            with pytest.raises(TimeoutError):
                file.read(1)
            far.send(b"a")
            with pytest.raises(OSError, match="timed out object"):
                file.read(1)


# -- writing -----------------------------------------------------------------------------------------------------------


def slow_reader(sock, amount):
    """Take some of it every second."""
    with suppress(OSError):
        while sock.recv(amount):
            sleep(1)


def fill(sock):
    """Send until the kernel takes no more."""
    sock.settimeout(0)
    while select.select([], [sock], [], 0.02)[1]:
        with suppress(BlockingIOError):
            sock.send(b"x" * 65536)


def test_the_timeout_of_sendall_is_one_for_all_of_it(hub, time):
    with tcp() as (near, far):
        near.settimeout(5)
        task = spawn(slow_reader, far, 65536)
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            near.sendall(b"x" * 50_000_000)
        assert 5 <= time.now < 6
        task.kill()


def test_each_wait_of_sendfile_has_the_whole_timeout_as_in_the_standard_library(hub, time, tmp_path, monkeypatch):
    path = tmp_path / "large"
    path.write_bytes(b"x" * 1000)
    taken = iter([700])

    def sendfile(*_):
        for count in taken:
            return count
        raise BlockingIOError

    with tcp() as (near, _), path.open("rb") as file:
        fill(near)
        monkeypatch.setattr(os, "sendfile", sendfile)
        near.settimeout(5)
        hub.call_later(3, lambda: near._registration.notify(WRITE))
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            near.sendfile(file)
        assert time.now == 3 + 5
        assert file.tell() == 700  # tells how much has gone


@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize(("offset", "count"), [(0, None), (1000, None), (0, 5), (10, 500_000), (999_999, 9), (0, 9**9)])
def test_sendfile_sends_the_part_and_leaves_the_file_behind_it(hub, tmp_path, kind, offset, count):
    content = os.urandom(1_000_000)
    (tmp_path / "file").write_bytes(content)
    expected = content[offset:] if count is None else content[offset : offset + count]
    with tcp() as (near, far), ExitStack() as stack:
        if kind == "file":
            file = stack.enter_context((tmp_path / "file").open("rb"))
        else:
            file = io.BytesIO(content)

        def send():
            try:
                return near.sendfile(file, offset, count)
            finally:
                near.shutdown(stdlib.SHUT_WR)

        task = spawn(send)
        assert read_all(far) == expected
        assert task.get() == len(expected)
        assert file.tell() == offset + len(expected)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs a file whose size is said to be 0")
def test_sendfile_reads_what_can_t_be_sent_directly(hub):
    with tcp() as (near, far), open("/proc/self/status", "rb") as file:
        sent = near.sendfile(file)
        near.close()
        got = read_all(far)
        assert got.startswith(b"Name:") and len(got) == sent


def test_sendfile_waits_as_long_as_the_timeout_each_time(hub, time, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(8 << 20))
    near, far = socketpair()
    with near, far, path.open("rb") as file:
        near.settimeout(5)

        def read_slowly():
            for _ in range(3):
                sleep(4)
                stdlib.socket.recv(far, 1 << 20)
            read_all(far)

        reader = spawn(read_slowly)
        assert near.sendfile(file) == 8 << 20
        assert time.now == 12
        near.close()
        reader.get()


def test_sendfile_of_an_empty_file_sends_nothing(hub, tmp_path):
    (tmp_path / "empty").touch()
    with tcp() as (near, _), (tmp_path / "empty").open("rb") as file:
        assert near.sendfile(file) == 0


# -- two file descriptors, or somebody else's --------------------------------------------------------------------------


def test_dup_is_cooperative_and_outlives_the_original(hub):
    with tcp() as (near, far):
        near.settimeout(3)
        with near.dup() as twin:
            assert type(twin) is Socket and twin.fileno() != near.fileno() and twin.gettimeout() == 3
            near.close()
            spawn(far.send, b"abc")
            assert twin.recv(10) == b"abc"


@pytest.mark.parametrize(("timeout", "blocks"), [(None, True), (0, False), (5, False)])
def test_detached_fd_blocks_as_the_original_s_would(hub, timeout, blocks):
    with tcp() as (near, far):
        spawn(near.recv, 1).kill()
        near.settimeout(timeout)
        with stdlib.socket(fileno=near.detach()) as plain:
            assert near.fileno() == -1
            assert os.get_blocking(plain.fileno()) is blocks
            far.send(b"abc")
            assert plain.recv(10) == b"abc"


def test_fromfd_is_a_cooperative_duplicate(hub):
    with stdlib.socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as plain:
        plain.bind(("127.0.0.1", 0))
        with fromfd(plain.fileno(), plain.family, plain.type) as ours:
            assert type(ours) is Socket and ours.fileno() != plain.fileno()
            task = spawn(ours.recv, 10)
            sleep(0)
            assert task.state == "parked"
            plain.sendto(b"abc", plain.getsockname())
            assert task.get() == b"abc"


def test_leaving_the_with_block_closes(hub):
    with tcp() as (near, far):
        with near:
            pass
        assert near.fileno() == -1
        assert far.recv(1) == b""


# -- kinds of sockets --------------------------------------------------------------------------------------------------


def test_socketpair_is_connected_both_ways(hub):
    near, far = socketpair()
    with near, far:
        for one, other in ((near, far), (far, near)):
            task = spawn(one.recv, 10)
            sleep(0)
            other.sendall(b"abc")
            assert task.get() == b"abc"


def test_datagrams_keep_their_bounds_and_their_senders(hub):
    with Socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as server, Socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))

        def serve():
            for _ in range(3):
                data, sender = server.recvfrom(100)
                server.sendto(data.upper(), sender)

        task = spawn(serve)
        for word in (b"one", b"", b"x" * 90):
            client.sendto(word, 0, server.getsockname())
            buffer = bytearray(200)
            size, sender = client.recvfrom_into(buffer)
            assert (bytes(buffer[:size]), sender) == (word.upper(), server.getsockname())
        task.get()
        server.sendto(b"long", client.getsockname())
        assert client.recv(2) == b"lo"  # the rest of a datagram is lost: no reason to believe that nothing has come
        server.sendto(b"next", client.getsockname())
        assert client.recv(100) == b"next"


def test_refused_datagram_is_told_to_the_connected_sender(hub):
    with Socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    with Socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as client:
        client.connect(address)
        client.settimeout(5)
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)


@unix_only
@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_SEQPACKET"])
def test_unix_connections_work_by_path(hub, tmp_path, kind):
    if not hasattr(stdlib, kind):
        pytest.skip(f"no {kind} here")
    kind = getattr(stdlib, kind)
    with Socket(stdlib.AF_UNIX, kind) as listener:
        listener.bind(str(tmp_path / "listener"))
        listener.listen()
        task = spawn(listener.accept)
        sleep(0)
        with Socket(stdlib.AF_UNIX, kind) as client:
            client.connect(str(tmp_path / "listener"))
            with task.get()[0] as served:
                assert type(served) is Socket
                spawn(client.sendall, b"hello")
                assert served.recv(10) == b"hello"
                client.close()
                assert served.recv(10) == b""


@unix_only
def test_unix_errors_are_the_original_s(hub, tmp_path):
    with Socket(stdlib.AF_UNIX) as client:
        with pytest.raises(FileNotFoundError):
            client.connect(str(tmp_path / "nobody"))
        assert client.connect_ex(str(tmp_path / "nobody")) == errno.ENOENT


@unix_only
def test_file_descriptors_can_be_passed(hub):
    near, far = socketpair()
    with near, far, open(os.devnull) as file:
        task = spawn(stdlib.recv_fds, near, 10, 4)
        sleep(0)
        assert task.state == "parked"
        stdlib.send_fds(far, [b"here"], [file.fileno()])
        data, fds, _, _ = task.get()
        assert data == b"here" and os.path.sameopenfile(fds[0], file.fileno())
        os.close(fds[0])


@ipv6_only
def test_ipv6_works_and_its_addresses_have_four_parts(hub):
    with create_server(("::1", 0), family=stdlib.AF_INET6) as listener:
        with create_connection(listener.getsockname()[:2]) as client, listener.accept()[0] as served:
            assert len(client.getpeername()) == 4
            spawn(client.sendall, b"six")
            assert served.recv(10) == b"six"
    with Socket(stdlib.AF_INET6, stdlib.SOCK_DGRAM) as one:
        one.bind(("::1", 0))
        one.sendto(b"six", one.getsockname())
        assert one.recvfrom(10) == (b"six", one.getsockname())


# -- connecting and listening ------------------------------------------------------------------------------------------


def closed_port():
    """An address where nobody listens."""
    with stdlib.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()


def addresses(monkeypatch, *pairs):
    """Let every host name have these addresses."""
    found = [(stdlib.AF_INET, stdlib.SOCK_STREAM, 6, "", pair) for pair in pairs]
    monkeypatch.setattr(sockets, "getaddrinfo", lambda *args: list(found))


def test_refused_connection_raises_and_leaves_no_fd(hub):
    with pytest.raises(ConnectionRefusedError):
        create_connection(closed_port())
    with Socket() as sock:
        assert sock.connect_ex(closed_port()) == errno.ECONNREFUSED


def test_connection_is_tried_at_every_address(hub, monkeypatch):
    with create_server(("127.0.0.1", 0)) as listener:
        addresses(monkeypatch, closed_port(), closed_port(), listener.getsockname())
        with create_connection(("name", 1), timeout=4) as client, listener.accept()[0]:
            assert client.gettimeout() == 4
            assert client.getpeername() == listener.getsockname()


def test_the_last_error_is_raised_or_all_of_them(hub, monkeypatch):
    addresses(monkeypatch, closed_port(), closed_port())
    with pytest.raises(ConnectionRefusedError):
        create_connection(("name", 1))
    with pytest.raises(ExceptionGroup) as caught:
        create_connection(("name", 1), all_errors=True)
    assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError] * 2


def test_name_without_addresses_raises(hub, monkeypatch):
    addresses(monkeypatch)
    with pytest.raises(OSError, match="getaddrinfo returns an empty list"):
        create_connection(("name", 1))


def test_source_address_is_bound(hub):
    source = closed_port()
    with create_server(("127.0.0.1", 0)) as listener:
        with create_connection(listener.getsockname(), source_address=source) as client, listener.accept()[0] as served:
            assert client.getsockname() == source == served.getpeername()


@contextmanager
def unanswering():
    """A listener whose queue is full, so that a connection is neither made nor refused."""
    with create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(stdlib.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.mark.skipif(sys.platform != "linux", reason="relies on how Linux queues connections")
def test_connecting_times_out_and_can_be_killed_leaving_no_fd(hub, time, monkeypatch):
    with unanswering() as address:
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            create_connection(address, timeout=5)
        assert time.now == pytest.approx(5)
        task = spawn(create_connection, address)
        sleep(1)
        task.kill()
        assert task.state == "killed"
        addresses(monkeypatch, address, address)
        with pytest.raises(ExceptionGroup) as caught:
            create_connection(("name", 1), timeout=2, all_errors=True)
        assert [type(error) for error in caught.value.exceptions] == [TimeoutError] * 2
        assert time.now == pytest.approx(6 + 2 * 2)


def test_connecting_again_is_refused_as_by_the_original(hub):
    with create_server(("127.0.0.1", 0)) as listener, Socket() as near:
        near.connect(listener.getsockname())
        for _ in range(2):
            assert near.connect_ex(listener.getsockname()) == errno.EISCONN
        listener.accept()[0].close()
    address = closed_port()
    with Socket() as near:
        for _ in range(3):
            assert near.connect_ex(address) == errno.ECONNREFUSED


def test_wrong_timeout_leaves_no_fd(hub):
    with pytest.raises(ValueError):
        create_connection(("127.0.0.1", 1), timeout=-1)


def test_listener_takes_the_original_s_options(hub):
    with create_server(("127.0.0.1", 0), backlog=5, reuse_port=True) as listener:
        assert type(listener) is Socket
        assert listener.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEPORT)
        assert listener.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR)
        with create_server(listener.getsockname(), reuse_port=True):
            pass
        with pytest.raises(OSError) as caught:
            create_server(listener.getsockname())
        assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(TypeError):
        create_server(("127.0.0.1", 0), unheard_of=True)


@ipv6_only
@pytest.mark.skipif(not stdlib.has_dualstack_ipv6(), reason="no dual stack here")
def test_one_listener_serves_both_families(hub):
    with create_server(("", 0), family=stdlib.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with create_connection((host, port)), listener.accept()[0]:
                pass


def test_accepting_goes_on_after_a_client_that_left_before_its_turn(hub):
    with create_server(("127.0.0.1", 0)) as listener:
        stdlib.create_connection(listener.getsockname()).close()
        with stdlib.create_connection(listener.getsockname()) as client:
            client.sendall(b"still here")
            listener.accept()[0].close()
            with listener.accept()[0] as served:
                assert served.recv(100) == b"still here"


# -- real peers --------------------------------------------------------------------------------------------------------


def echo(connection):
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data.upper())


def serve(listener):
    with TaskGroup() as connections:  # who kills the server has all of them gone when it has ended
        while True:
            connections.spawn(echo, listener.accept()[0])


def test_blocking_client_in_a_thread_is_served(real_hub):
    answers = []

    def client(address):
        with stdlib.create_connection(address, timeout=20) as sock:
            for number in range(100):
                sock.sendall(b"hello %d" % number)
                answers.append(sock.recv(100))

    with create_server(("127.0.0.1", 0)) as listener:
        server = spawn(serve, listener)
        thread = threading.Thread(target=client, args=(listener.getsockname(),))
        thread.start()
        while thread.is_alive():
            sleep(0.001)
        server.kill()
    assert answers == [b"HELLO %d" % number for number in range(100)]


CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as sock:
    sock.sendall(b"x" * 1_000_000)
    sock.shutdown(socket.SHUT_WR)
    total = 0
    while data := sock.recv(1 << 16):
        assert data == b"X" * len(data)
        total += len(data)
print(total)
"""


def test_client_in_another_process_is_served(real_hub):
    def echo_later(connection):
        with connection:
            connection.sendall(read_all(connection).upper())

    with create_server(("127.0.0.1", 0)) as listener:
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(listener.getsockname()[1])], stdout=subprocess.PIPE, text=True
        )
        with client:
            echo_later(listener.accept()[0])
            while client.poll() is None:
                sleep(0.001)
            assert client.stdout.read() == "1000000\n"


def test_two_hundred_clients_are_served_while_one_stays_idle(hub):
    def client(address, number):
        with create_connection(address) as sock:
            for turn in range(5):
                message = b"client %d, message %d" % (number, turn)
                sock.sendall(message)
                assert sock.recv(4096) == message.upper()
                sleep(number % 3)

    with create_server(("127.0.0.1", 0), backlog=256) as listener:
        server = spawn(serve, listener)
        with stdlib.create_connection(listener.getsockname()):
            clients = [spawn(client, listener.getsockname(), number) for number in range(200)]
            joinall(clients, timeout=60, raise_error=True)
            assert all(task.successful() for task in clients)
        server.kill()
