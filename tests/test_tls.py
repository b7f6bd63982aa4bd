"""TLS sockets behave as the standard library's, but that others run while one waits: in both directions, both ways."""

from __future__ import annotations

import errno
import io
import os
import shutil
import socket as stdlib
import ssl
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from greenswitch import HubError, joinall, sleep, spawn, timeout, to_thread
from greenswitch.sockets import Socket, create_connection, create_server, socketpair
from greenswitch.tls import TLSSocket

CERTIFICATES = Path(__file__).parent / "certificates"


def server_context(name="localhost", **options):
    return prepared(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), name, **options)


def client_context(name=None, **options):
    context = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
    return prepared(context, name, **options)


def prepared(context, name, ours=True, **options):
    if name is not None:
        context.load_cert_chain(CERTIFICATES / f"{name}.pem")
    if ours:
        context.sslsocket_class = TLSSocket
    for option, value in options.items():
        setattr(context, option, value)
    return context


@contextmanager
def tls(server=None, client=None, **options):
    """Two ends of one TLS connection over a socketpair: the client's, then the server's."""
    near, far = socketpair()
    serving = spawn((server or server_context()).wrap_socket, far, server_side=True)
    with (client or client_context()).wrap_socket(near, server_hostname="localhost", **options) as near:
        with serving.get() as far:
            yield near, far


@contextmanager
def tcp():
    with create_server(("127.0.0.1", 0)) as listener:
        near = create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


class Script:
    """Stands for OpenSSL: plays the outcomes that it was given for an operation, and tells what it was asked."""

    def __init__(self, **outcomes):
        self.outcomes = {name: list(values) for name, values in outcomes.items()}
        self.asked = []

    def __getattr__(self, name):
        return lambda *args: self.play(name)

    def play(self, name):
        self.asked.append(name)
        outcome = self.outcomes[name].pop(0)
        if callable(outcome):
            outcome = outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


WANT_READ, WANT_WRITE = ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ), ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE)


def fill(sock):
    """Fill what the kernel takes, beneath TLS."""
    try:
        while True:
            stdlib.socket.send(sock, bytes(65536))
    except BlockingIOError:
        pass


def read_all(sock, size):
    received = bytearray()
    while len(received) < size:
        received += sock.recv(65536)
    return bytes(received)


def drain(sock):
    """Take all that has come, beneath TLS."""
    try:
        while stdlib.socket.recv(sock, 65536, stdlib.MSG_DONTWAIT):
            pass
    except BlockingIOError:
        pass


# -- talking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_two_ends_in_one_thread_shake_hands_and_talk(hub, version):
    with tls(server_context(maximum_version=version, minimum_version=version)) as (near, far):
        assert isinstance(near, TLSSocket) and isinstance(near, ssl.SSLSocket) and isinstance(near, Socket)
        near.sendall(b"hello")
        assert far.recv(100) == b"hello"
        assert far.send(b"world") == 5
        buffer = bytearray(10)
        assert near.recv_into(buffer) == 5 and buffer[:5] == b"world"
        assert near.write(b"again") == 5 and far.read(2) == b"ag" and far.pending() == 3 and far.read() == b"ain"
        assert near.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        assert near.getpeercert()["subject"] == ((("commonName", "localhost"),),)
        assert near.cipher() == far.cipher()


def test_a_reader_waits_and_others_run(hub):
    with tls() as (near, far):
        reader = spawn(near.recv, 10)
        sleep(1)
        assert reader.state == "parked" and hub.clock() == 1
        far.sendall(b"late")
        assert reader.get() == b"late"


def test_megabytes_pass_both_ways_at_once(hub):
    message = os.urandom(1 << 20) * 3

    with tls() as (near, far):
        tasks = [spawn(sock.sendall, message) for sock in (near, far)]
        tasks += [spawn(read_all, sock, len(message)) for sock in (near, far)]
        joinall(tasks, raise_error=True)
        assert tasks[2].value == tasks[3].value == message


def test_end_of_the_stream_is_empty_whether_announced_or_not(hub):
    with tls() as (near, far):
        far.close()  # without a close_notify
        assert near.recv(10) == b"" and near.recv_into(bytearray(3)) == 0
    with tls(suppress_ragged_eofs=False) as (near, far):
        far.close()
        with pytest.raises(ssl.SSLEOFError):
            near.recv(10)
    with tls() as (near, far):
        closing = spawn(far.unwrap)
        assert near.recv(10) == b""
        near.unwrap()
        closing.get()


def test_unwrapped_ends_talk_plainly_on(hub):
    with tls() as (near, far):
        closing = spawn(far.unwrap)
        plain = near.unwrap()
        assert plain is near and closing.get() is far
        near.sendall(b"plain")
        assert stdlib.socket.recv(far, 10) == b"plain"
        reader = spawn(far.recv, 10)
        sleep(1)
        near.send(b"again")
        assert reader.get() == b"again"
        with pytest.raises(ValueError, match="No SSL wrapper"):
            near.unwrap()


def test_files_are_sent_and_read_through_makefile(hub):
    with tls() as (near, far):
        sending = spawn(near.sendfile, io.BytesIO(b"one\ntwo\n" * 1000))
        with far.makefile("rb") as lines:
            assert [lines.readline() for _ in range(2000)] == [b"one\n", b"two\n"] * 1000
        assert sending.get() == 8000


def test_what_tls_cannot_do_is_refused_as_by_the_original(hub):
    with tls() as (near, _):
        for call in (near.dup, lambda: near.recvmsg(1), lambda: near.sendmsg([b""])):
            with pytest.raises(NotImplementedError):
                call()
        for call in (lambda: near.recv(1, 1), lambda: near.send(b"", 1), lambda: near.sendall(b"", 1)):
            with pytest.raises(ValueError, match="non-zero flags"):
                call()
        for call in (lambda: near.recvfrom(1), lambda: near.sendto(b"", ("127.0.0.1", 1))):
            with pytest.raises(ValueError, match="not allowed"):
                call()
    with pytest.raises(TypeError, match="TLSSocket has no public constructor"):
        TLSSocket()


def test_after_closing_the_errors_are_the_original_s(hub):
    with tls() as (near, _):
        near.close()
        for call, text in ((near.read, "Read on closed"), (lambda: near.write(b"a"), "Write on closed")):
            with pytest.raises(ValueError, match=text):
                call()
        for call in (lambda: near.recv(1), lambda: near.send(b"a"), lambda: near.sendall(b"a")):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EBADF


def test_names_choose_certificates_and_sessions_are_resumed(hub):
    other = server_context("other.example")
    asked = []

    def choose(sock, name, context):
        asked.append((type(sock), name))
        if name == "other.example":
            sock.context = other

    server = server_context(sni_callback=choose)
    client = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
    with create_server(("127.0.0.1", 0)) as plain, server.wrap_socket(plain, server_side=True) as listener:
        accepting = spawn(lambda: [listener.accept()[0] for _ in range(3)])
        sessions = [None]
        for name in ("other.example", "localhost", "localhost"):
            sock = create_connection(listener.getsockname())
            with client.wrap_socket(sock, server_hostname=name, session=sessions[-1]) as near:
                assert near.getpeercert()["subject"] == ((("commonName", name),),)
                assert near.session_reused == (len(asked) == 3)
                sessions.append(near.session if name == "localhost" else None)
        assert asked == [(TLSSocket, name) for name in ("other.example", "localhost", "localhost")]
        for far in accepting.get():
            far.close()


def test_alpn_and_client_certificates(hub):
    server = server_context(verify_mode=ssl.CERT_REQUIRED)
    server.load_verify_locations(CERTIFICATES / "ca.pem")
    client = client_context("other.example")
    for context in (server, client):
        context.set_alpn_protocols(["h2", "http/1.1"])
    with tls(server, client) as (near, far):
        assert near.selected_alpn_protocol() == far.selected_alpn_protocol() == "h2"
        assert far.getpeercert()["subject"] == ((("commonName", "other.example"),),)


# -- handshakes --------------------------------------------------------------------------------------------------------


def test_connecting_shakes_hands_unless_told_not_to(hub):
    with create_server(("127.0.0.1", 0)) as plain, server_context().wrap_socket(plain, server_side=True) as listener:
        accepting = spawn(listener.accept)
        with client_context().wrap_socket(Socket(), server_hostname="localhost") as near:
            assert near.connect_ex(listener.getsockname()) == 0
            assert near.version() and accepting.get()[0].version()
            accepting.value[0].close()
            with pytest.raises(ValueError, match="already-connected"):
                near.connect(listener.getsockname())
        accepting = spawn(listener.accept)
        wrap = client_context().wrap_socket
        with wrap(Socket(), server_hostname="localhost", do_handshake_on_connect=False) as near:
            near.connect(listener.getsockname())
            sleep(1)
            assert near.version() is None and accepting.state == "parked"
            near.do_handshake()
            accepting.get()[0].close()


def test_client_that_never_shakes_hands_does_not_stop_the_others(hub):
    with create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                spawn(greet, listener.accept()[0])

        greeted = []

        def greet(conn):
            try:
                with server_context().wrap_socket(conn, server_side=True) as secure:
                    secure.sendall(b"hello")
                greeted.append(True)
            except ssl.SSLError:
                greeted.append(False)

        server = spawn(serve)
        with create_connection(listener.getsockname()):  # and says nothing
            sleep(0)
            sock = create_connection(listener.getsockname())
            with client_context().wrap_socket(sock, server_hostname="localhost") as near:
                assert near.recv(10) == b"hello"
        server.kill()
        sleep(1)
        assert greeted == [True, False]


def test_wrong_certificate_is_refused_and_leaves_no_fd(hub):
    near, far = socketpair()
    serving = spawn(server_context("other.example").wrap_socket, far, server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        client_context().wrap_socket(near, server_hostname="localhost")
    with pytest.raises(ssl.SSLError):
        serving.get()


def test_handshake_times_out_by_the_socket_s_timeout_and_by_a_scope_and_leaves_no_fd(hub, time):
    near, far = socketpair()
    with far:
        near.settimeout(5)
        with pytest.raises(TimeoutError, match="The handshake operation timed out"):
            client_context().wrap_socket(near, server_hostname="localhost")
        assert time.now == pytest.approx(5)
    near, far = socketpair()
    with far, pytest.raises(TimeoutError), timeout(5):
        client_context().wrap_socket(near, server_hostname="localhost")
    assert time.now == pytest.approx(10)


@pytest.mark.parametrize("side", ["client", "server"])
def test_killed_in_the_midst_of_a_handshake_leaves_nothing_behind(hub, side):
    near, far = socketpair()
    with far:
        if side == "client":
            task = spawn(client_context().wrap_socket, near, server_hostname="localhost")
        else:
            task = spawn(server_context().wrap_socket, near, server_side=True)
        sleep(1)
        assert task.state == "parked"
        task.kill()
        assert task.state == "killed"
        if side == "client":
            assert far.recv(1 << 16)  # its hello
        assert far.recv(1 << 16) == b""  # the fixtures hold that no fd is left


def test_non_blocking_handshake_says_what_it_wants(hub):
    near, far = socketpair()
    with far:
        near.setblocking(False)
        with pytest.raises(ValueError, match="non-blocking"):
            client_context().wrap_socket(near, server_hostname="localhost")
    near, far = socketpair()
    near.setblocking(False)
    serving = spawn(server_context().wrap_socket, far, server_side=True)
    with client_context().wrap_socket(near, server_hostname="localhost", do_handshake_on_connect=False) as near:
        with pytest.raises(ssl.SSLWantReadError):
            near.do_handshake()
        near.do_handshake(block=True)
        assert near.gettimeout() == 0.0
        with pytest.raises(ssl.SSLWantReadError):
            near.recv(1)
        serving.get().close()


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_reads_and_writes_time_out_with_the_library_s_texts(hub, time):
    with tls() as (near, _):
        near.settimeout(3)
        with pytest.raises(TimeoutError, match=r"^The read operation timed out$"):
            near.recv(1)
        assert time.now == pytest.approx(3)
        fill(near)
        for write in (near.write, near.send, near.sendall):
            with pytest.raises(TimeoutError, match=r"^The write operation timed out$"):
                write(b"x")
        assert time.now == pytest.approx(12)


def test_timeout_of_sendall_is_one_for_all_of_it(hub, time):
    with tls() as (near, far):
        near.settimeout(10)

        def read_slowly():
            while True:
                sleep(4)
                stdlib.socket.recv(far, 1 << 18)  # beneath TLS

        reader = spawn(read_slowly)
        with pytest.raises(TimeoutError):
            near.sendall(bytes(20 << 20))
        assert time.now == pytest.approx(10)
        reader.kill()


def assert_closed(tasks):
    for task in tasks:
        with pytest.raises(OSError) as caught:
            task.get()
        assert caught.value.errno == errno.EBADF


def test_closing_wakes_who_waits_with_ebadf(hub):
    with tls() as (near, _):
        fill(near)
        tasks = spawn(near.recv, 1), spawn(near.sendall, b"x")
        sleep(1)
        near.close()
        assert_closed(tasks)


def test_readers_are_served_in_the_order_in_which_they_came(hub):
    with tls() as (near, far):
        readers = [spawn(near.recv, 10) for _ in range(3)]
        for data in (b"first", b"second", b"third"):
            sleep(1)
            far.send(data)
        assert [reader.get() for reader in readers] == [b"first", b"second", b"third"]


def test_reader_in_line_takes_what_the_one_before_it_has_left(hub):
    with tls() as (near, far):
        readers = [spawn(near.recv, 5) for _ in range(2)]
        sleep(0)
        far.send(b"firstsecond")
        assert [reader.get() for reader in readers] == [b"first", b"secon"]


def test_reader_in_line_goes_on_when_the_one_before_it_is_killed(hub):
    with tls() as (near, far):
        readers = [spawn(near.recv, 10) for _ in range(2)]
        sleep(1)
        readers[0].kill()
        far.send(b"second")
        assert readers[1].get() == b"second"


def test_writes_of_several_tasks_arrive_whole_one_after_another(hub):
    size = 1_000_000
    with tls() as (near, far):
        writers = [spawn(near.sendall, bytes([number]) * size) for number in range(3)]
        sleep(1)
        received = read_all(far, 3 * size)
        joinall(writers, raise_error=True)
        assert received == b"".join(bytes([number]) * size for number in range(3))


def test_a_write_in_line_keeps_its_time_limit_and_leaves_the_connection_usable(hub):
    with tls() as (near, far):
        sent = b"x" * 5_000_000
        writer = spawn(near.sendall, sent)
        sleep(0)
        near.settimeout(1)
        with pytest.raises(TimeoutError, match="write"):
            near.send(b"late")
        near.setblocking(False)
        with pytest.raises(ssl.SSLWantWriteError):
            near.send(b"late")
        near.settimeout(None)
        last = spawn(near.sendall, b"end")
        assert read_all(far, len(sent) + 3) == sent + b"end"
        joinall([writer, last], raise_error=True)


def test_writers_in_line_meet_the_close(hub):
    with tls() as (near, _):
        fill(near)
        writers = [spawn(near.sendall, b"x" * 100_000) for _ in range(3)]
        sleep(1)
        near.close()
        assert_closed(writers)


def test_killed_reader_leaves_the_connection_usable(hub):
    with tls() as (near, far):
        reader = spawn(near.recv, 10)
        sleep(1)
        reader.kill()
        far.sendall(b"still here")
        assert near.recv(10) == b"still here"


def test_waiting_inside_the_hub_is_refused_and_what_is_there_is_read(real_hub):
    with tls() as (near, far):
        outcomes = []

        def read():
            try:
                outcomes.append(near.recv(10))
            except HubError as error:
                outcomes.append(error)

        hub_reads = [read, lambda: far.sendall(b"there"), read]
        for call in hub_reads:
            real_hub.call_soon(call)
        sleep(0.01)
        assert isinstance(outcomes[0], HubError) and outcomes[1] == b"there"


def test_task_whose_reads_never_wait_lets_others_go_first(hub):
    with tls() as (near, far):
        far.sendall(b"x" * 1000)
        turns = []
        other = spawn(lambda: [(turns.append(near.pending()), sleep(0)) for _ in range(3)])
        for _ in range(1000):
            near.recv(1)
        assert other.ready() and turns[-1] > 0


# Directions that aren't usual: OpenSSL's side is played, so that each order of events is certain.


def wrapped(sock, **outcomes):
    secure = client_context().wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False)
    secure._sslobj = Script(**outcomes)
    return secure


def test_reader_that_wants_to_write_waits_for_that(hub):
    near, far = socketpair()
    with far, wrapped(near, read=[WANT_WRITE, b"data"]) as near:
        fill(near)
        reader = spawn(near.recv, 10)
        sleep(1)
        assert reader.state == "parked"
        drain(far)
        assert reader.get() == b"data"


def test_reader_that_wants_to_write_waits_behind_the_writer_and_after_it_tries_again(hub):
    near, far = socketpair()
    with far, wrapped(near, read=[WANT_WRITE, b"data"], write=[WANT_WRITE, 1]) as near:
        fill(near)
        writer = spawn(near.write, b"x")
        sleep(0)
        reader = spawn(near.recv, 10)
        sleep(1)
        assert (writer.state, reader.state) == ("parked", "parked")
        drain(far)
        assert writer.get() == 1 and reader.get() == b"data"
        assert near._sslobj.asked == ["write", "read", "write", "read"]


def test_writer_waits_behind_a_reader_that_wants_to_write_and_goes_on_when_that_is_killed(hub):
    near, far = socketpair()
    with far, wrapped(near, read=[WANT_WRITE], write=[WANT_WRITE, WANT_WRITE, 1]) as near:
        fill(near)
        reader = spawn(near.recv, 10)
        sleep(0)
        writer = spawn(near.write, b"x")
        sleep(1)
        assert (writer.state, reader.state) == ("parked", "parked")
        reader.kill()
        sleep(1)
        assert writer.state == "parked" and near._sslobj.asked == ["read", "write", "write"]
        drain(far)
        assert writer.get() == 1


def test_writer_that_wants_to_read_is_told_when_a_reader_has_taken_that_in(hub):
    near, far = socketpair()
    with far, wrapped(near, read=[b"data"], write=[WANT_READ, 1]) as near:
        writer = spawn(near.write, b"x")
        sleep(1)
        assert writer.state == "parked"
        assert near.recv(10) == b"data"  # without an event
        assert writer.get() == 1


def test_who_stands_behind_another_times_out_and_is_killed_and_woken_by_closing(hub, time):
    near, far = socketpair()
    with far, wrapped(near, read=[WANT_READ], write=[WANT_READ] * 3) as near:
        reader = spawn(near.recv, 10)
        sleep(0)
        near.settimeout(2)
        with pytest.raises(TimeoutError, match="The write operation timed out"):
            near.write(b"x")
        assert time.now == 2
        near.settimeout(None)
        killed, closed = spawn(near.write, b"x"), spawn(near.write, b"x")
        sleep(1)
        killed.kill()
        near.close()
        for task in (reader, closed):
            with pytest.raises(OSError) as caught:
                task.get()
            assert caught.value.errno == errno.EBADF
        assert near._others == []


def test_two_that_want_what_is_unusual_do_not_wake_each_other_for_ever(hub):
    def read_in_vain():
        drain(near)
        return WANT_READ

    near, far = socketpair()
    with far, wrapped(near, read=[WANT_WRITE, b"data"], write=[WANT_READ, read_in_vain, 1]) as near:
        fill(near)
        reader, writer = spawn(near.recv, 10), spawn(near.write, b"x")
        sleep(5)
        assert near._sslobj.asked == ["read", "write"]
        far.send(b"x")
        sleep(5)
        assert near._sslobj.asked == ["read", "write", "write"]
        far.send(b"x")
        assert writer.get() == 1 and reader.get() == b"data"


# -- who wraps whom ----------------------------------------------------------------------------------------------------


def test_original_socket_is_taken_over_with_its_timeout(hub):
    theirs, far = stdlib.socketpair()
    theirs.settimeout(7)
    serving = spawn(server_context().wrap_socket, Socket(fileno=far.detach()), server_side=True)
    with client_context().wrap_socket(theirs, server_hostname="localhost") as near, serving.get() as far:
        assert theirs.fileno() == -1 and near.gettimeout() == 7
        far.send(b"hello")
        assert near.recv(10) == b"hello"


def test_original_context_makes_an_original_socket_of_ours_which_blocks_the_thread(real_hub):
    near, far = socketpair()

    def serve():
        with server_context(ours=False).wrap_socket(far, server_side=True) as conn:
            conn.sendall(conn.recv(10))

    thread = threading.Thread(target=serve)
    thread.start()
    with client_context(ours=False).wrap_socket(near, server_hostname="localhost") as near:
        assert type(near) is ssl.SSLSocket and os.get_blocking(near.fileno())
        near.sendall(b"hello")
        assert near.recv(10) == b"hello"
    thread.join()


def test_tls_over_memory_stays_the_original(hub):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    machine = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    assert type(machine) is ssl.SSLObject
    with pytest.raises(ssl.SSLWantReadError):
        machine.do_handshake()
    assert outgoing.pending


def test_blocking_client_in_a_thread_is_served(real_hub):
    with create_server(("127.0.0.1", 0)) as plain, server_context().wrap_socket(plain, server_side=True) as listener:
        answers = []

        def ask():
            sock = stdlib.create_connection(listener.getsockname())
            with client_context(ours=False).wrap_socket(sock, server_hostname="127.0.0.1") as secure:
                secure.sendall(b"x" * 100_000)
                answers.append(secure.recv(10))

        thread = threading.Thread(target=ask)
        thread.start()
        with listener.accept()[0] as conn:
            size = 0
            while size < 100_000 and (data := conn.recv(1 << 16)):
                size += len(data)
            conn.sendall(b"all of it")
            thread.join()
        assert size == 100_000 and answers == [b"all of it"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl, to ask for new keys")
def test_keys_are_updated_in_the_midst_of_a_conversation(real_hub):
    updates = []

    def note(conn, direction, version, content, message, data):
        if content == 22 and message == 24:  # handshake, key update
            updates.append(direction)

    def echo(listener):
        with listener.accept()[0] as conn:
            while data := conn.recv(1000):
                conn.sendall(data.upper())

    def converse(port):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(CERTIFICATES / "ca.pem")]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as peer:
            for line, answer in ((b"one\n", b"ONE\n"), (b"K\n", b"KEYUPDATE\n"), (b"two\n", b"TWO\n")):
                peer.stdin.write(line)
                peer.stdin.flush()
                assert answer in iter(peer.stdout.readline, b""), line

    context = server_context(_msg_callback=note)
    with create_server(("127.0.0.1", 0)) as plain, context.wrap_socket(plain, server_side=True) as listener:
        server = spawn(echo, listener)
        to_thread(converse, listener.getsockname()[1])
        server.get()
    assert updates == ["read", "write"]
