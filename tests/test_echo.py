"""The echo server and its client, driven by real peers in other processes; and their parts, as a notebook uses them."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from greenswitch import echo, sleep, spawn
from greenswitch.green import socket as green

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals as POSIX has them")

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 20  # until a peer that should have done something is given up
COMMAND = [sys.executable, "-W", "error", "-m", "greenswitch.echo"]
ENVIRONMENT = os.environ | {"PYTHONIOENCODING": "utf-8:strict", "COLUMNS": "120"}

Starter = Callable[..., "Program"]


class Program:
    """One run of greenswitch.echo with its output in pipes; `address` is where a server says that it listens."""

    def __init__(self, *args: str, command: list[str] = COMMAND, is_client: bool = False, **options: Any) -> None:
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen([*command, *args], cwd=ROOT, env=ENVIRONMENT, **(pipes | options))
        if not is_client:
            assert self.process.stdout is not None
            self.first_line = self.process.stdout.readline().decode()
            host, _, port = self.first_line.removeprefix("listening on ").rpartition(":")
            assert port, self.end()
            self.address = (host.strip("[]"), int(port))
            self.where = f"{host}:{int(port)}"

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=SECONDS)

    def end(self, number: int = signal.SIGINT) -> tuple[int, list[str], str]:
        """Send a signal, wait for the end, and return its status, the rest of its output's lines, and its errors."""
        self.process.send_signal(number)
        return self.result()

    def result(self, typed: bytes | None = None) -> tuple[int, list[str], str]:
        out, err = self.process.communicate(typed, timeout=SECONDS)
        return self.process.returncode, out.decode(errors="backslashreplace").splitlines(), err.decode()


@pytest.fixture
def start() -> Iterator[Starter]:
    """Start programs that don't outlive the test."""
    started: list[Program] = []

    def starter(*args: str, **options: Any) -> Program:
        started.append(Program(*args, **options))
        return started[-1]

    yield starter
    for one in started:
        with one.process as process:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def server(start: Starter) -> Program:
    """An echo server on a free port."""
    return start("--port", "0")


def run(*args: str, typed: bytes = b"") -> tuple[int, str, str]:
    command = [*COMMAND, *args]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, input=typed, capture_output=True, timeout=SECONDS)
    return done.returncode, done.stdout.decode(errors="backslashreplace"), done.stderr.decode()


def ask(conn: socket.socket, data: bytes) -> bytes:
    conn.sendall(data)
    return receive(conn, len(data))


def receive(conn: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (data := conn.recv(size - len(received))):
        received += data
    return received


# --- the server and its peers -----------------------------------------------------------------------------------------


def test_blocking_client_is_answered_in_capitals_and_logged_with_its_address(server: Program) -> None:
    with server.connect() as conn:
        host, port = conn.getsockname()
        assert ask(conn, b"hello") == b"HELLO"
        conn.shutdown(socket.SHUT_WR)
        assert conn.recv(10) == b""
    status, lines, errors = server.end()
    assert lines == [f"{host}:{port} b'hello'", f"{host}:{port} b''", "stopped"]
    assert (status, errors) == (0, "")


@pytest.mark.skipif(shutil.which("nc") is None, reason="there is no nc")
def test_nc_gets_its_lines_back_in_capitals(server: Program) -> None:
    host, port = server.address
    with subprocess.Popen(["nc", host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as nc:
        assert nc.stdin is not None and nc.stdout is not None
        for line in (b"one\n", b"two\n"):
            nc.stdin.write(line)
            nc.stdin.flush()
            assert nc.stdout.readline() == line.upper()
        assert server.end()[0] == 0  # and nc, told by the close, ends too
        nc.stdin.close()
        assert nc.stdout.read() == b""
        nc.wait(SECONDS)


def test_idle_client_holds_up_none_of_199_others(server: Program) -> None:
    clients = [server.connect() for _ in range(200)]
    idle, *busy = clients
    for number in range(3):
        for conn in busy:
            conn.sendall(b"round %d" % number)
        assert [receive(conn, 7) for conn in busy] == [b"ROUND %d" % number] * 199
    assert ask(idle, b"at last") == b"AT LAST"
    for conn in clients:
        conn.close()
    status, lines, errors = server.end()
    assert (status, errors) == (0, "")
    assert sum(line.endswith("b'round 2'") for line in lines) == 199


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_closes_every_connection_in_order_and_exits_with_0(server: Program, number: int) -> None:
    with server.connect() as idle, server.connect() as spoken:
        assert ask(spoken, b"hello") == b"HELLO"
        status, lines, errors = server.end(number)
        assert (status, lines[-1], errors) == (0, "stopped", "")
        assert idle.recv(10) == spoken.recv(10) == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_in_the_middle_of_work_leaves_no_traceback(start: Starter, number: int) -> None:
    server = start("--port", "0", "--quiet")
    clients = [server.connect() for _ in range(20)]
    assert [ask(conn, b"ready?") for conn in clients] == [b"READY?"] * 20
    for _ in range(50):
        for conn in clients:
            conn.sendall(b"x" * 1000)
    status, lines, errors = server.end(number)
    for conn in clients:
        conn.close()
    assert (status, lines, errors) == (0, ["stopped"], "")


def test_server_in_the_background_of_a_shell_leaves_ctrl_c_to_the_foreground(start: Starter) -> None:
    in_background = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND]
    server = start("--port", "0", command=in_background)
    server.process.send_signal(signal.SIGINT)
    with server.connect() as conn:
        assert ask(conn, b"hello") == b"HELLO"
    status, lines, errors = server.end(signal.SIGTERM)
    assert (status, lines[-1], errors) == (0, "stopped", "")


def test_client_that_resets_costs_no_traceback_and_no_other_client(server: Program) -> None:
    with server.connect() as other:
        with server.connect() as rude:
            rude.sendall(b"bye")
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert ask(other, b"still there?") == b"STILL THERE?"
    status, lines, errors = server.end()
    assert (status, errors) == (0, "")
    assert lines[-1] == "stopped"


def test_verbatim_answers_unchanged(start: Starter) -> None:
    server = start("--port", "0", "--verbatim")
    with server.connect() as conn:
        assert ask(conn, b"Hello \xff\x00") == b"Hello \xff\x00"
    assert server.end()[0] == 0


def test_quiet_says_where_it_listens_and_nothing_of_clients(start: Starter) -> None:
    server = start("--port", "0", "--quiet")
    with server.connect() as conn:
        assert ask(conn, b"hello") == b"HELLO"
    assert server.end() == (0, ["stopped"], "")


def test_server_listens_on_ipv6_and_writes_its_address_in_brackets(start: Starter) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")
    server = start("[::1]:0")
    assert server.first_line.startswith("listening on [::1]:")
    with server.connect() as conn:
        assert ask(conn, b"six") == b"SIX"
    status, lines, _ = server.end()
    assert status == 0 and lines[0].startswith("[::1]:") and lines[0].endswith(" b'six'")


def test_server_whose_log_nobody_reads_any_more_ends_without_a_traceback(server: Program) -> None:
    assert server.process.stdout is not None
    server.process.stdout.close()
    with server.connect() as conn:
        conn.sendall(b"hello")
        assert conn.recv(10) == b""
    assert server.process.wait(SECONDS) == 1
    assert server.process.stderr is not None and server.process.stderr.read() == b""


def test_server_without_a_file_descriptor_left_says_so_once_and_serves_on(start: Starter) -> None:
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24));"
        "from greenswitch.echo import main; sys.exit(main(['--port', '0']))"
    )
    server = start(command=[sys.executable, "-W", "error", "-c", limited])
    clients = [server.connect() for _ in range(40)]  # those beyond the limit wait in the listener's backlog
    assert server.process.stdout is not None
    assert b"cannot accept: Too many open files" in server.process.stdout.readline()
    assert ask(clients[0], b"hello") == b"HELLO"
    for conn in clients[:-1]:
        conn.close()
    assert ask(clients[-1], b"my turn") == b"MY TURN"
    clients[-1].close()
    status, _, errors = server.end()
    assert (status, errors) == (0, "")


# --- its command line -------------------------------------------------------------------------------------------------


def test_port_in_use_is_named_with_the_cure(server: Program) -> None:
    status, out, errors = run("--port", str(server.address[1]))
    assert (status, out) == (1, "")
    assert errors.startswith(f"{server.where}: Address already in use: ")
    assert "--port" in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "Cannot assign requested address\n"),  # reserved for documentation: nobody's
        ("a..b", "label empty"),
    ],
)
def test_host_that_is_none_of_ours_is_named_without_a_traceback(host: str, reason: str) -> None:
    status, out, errors = run("--host", host, "--port", "0")
    assert (status, out) == (1, "")
    assert errors.startswith(f"{host}:0: ") and reason in errors and errors.count("\n") == 1


def test_unknown_host_is_named_with_the_resolvers_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(*args: Any, **options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("greenswitch.green.socket.getaddrinfo", unknown)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert echo.main(["nosuch:0"]) == 1
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert capsys.readouterr().err == "nosuch:0: Name or service not known\n"


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--port", "65536"], "65536 is no port"),
        (["--port", "-1"], "-1 is no port"),
        (["--port", "x"], "--port: invalid int value: 'x'"),
        (["127.0.0.1:x"], "'127.0.0.1:x' is no HOST:PORT"),
        (["::1"], "brackets: [::1]:8090"),
        (["--connect", "127.0.0.1:70000"], "70000 is no port"),
        (["--loud"], "--loud"),
    ],
)
def test_wrong_argument_is_explained_and_exits_with_2(
    args: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        echo.main(args)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "address"),
    [
        ([], ("127.0.0.1", 8090)),
        (["9000"], ("127.0.0.1", 9000)),
        ([":9000"], ("127.0.0.1", 9000)),
        (["localhost"], ("localhost", 8090)),
        (["localhost:0"], ("localhost", 0)),
        (["[::1]"], ("::1", 8090)),
        (["[fe80::1%eth0]:1"], ("fe80::1%eth0", 1)),
        (["--host", "::1", "--port", "0"], ("::1", 0)),
        (["localhost:1", "--port", "2"], ("localhost", 2)),
        (["--connect"], ("127.0.0.1", 8090)),
        (["--connect", "localhost:1"], ("localhost", 1)),
        (["--connect", "--port", "3"], ("127.0.0.1", 3)),
    ],
)
def test_address_may_be_given_in_many_ways(args: list[str], address: tuple[str, int]) -> None:
    options = echo.parse_arguments(args)
    assert options.address == address
    assert bool(options.connect) == ("--connect" in args)


def test_help_teaches_by_commands_and_names_the_defaults() -> None:
    status, out, errors = run("--help")
    assert (status, errors) == (0, "")
    for words in ("127.0.0.1:8090", "nc 127.0.0.1 8090", "--connect", "--verbatim", "--quiet", "Ctrl-C", "Exit status"):
        assert words in out, words
    assert all(len(line) <= 120 for line in out.splitlines())


# --- the client, through pipes and files ------------------------------------------------------------------------------


def test_client_sends_what_is_piped_and_shows_all_of_the_answer(start: Starter) -> None:
    server = start("--port", "0", "--quiet")
    lines = b"".join(b"line %d\n" % number for number in range(20_000))
    status, out, errors = run("--connect", server.where, typed=lines + b"no newline")
    assert (status, out, errors) == (0, (lines + b"no newline").decode().upper(), "")


def test_client_shows_bytes_that_are_no_text_as_they_are(start: Starter) -> None:
    server = start("--port", "0", "--verbatim", "--quiet")
    data = bytes(range(256)) * 40
    command = [*COMMAND, "--connect", server.where]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, input=data, capture_output=True, timeout=SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


def test_client_reads_a_regular_file_until_the_line_exit(server: Program, tmp_path: Path) -> None:
    (tmp_path / "typed").write_text("one\ntwo\nexit\nthree\n")
    with open(tmp_path / "typed") as file:
        client = Program("--connect", server.where, is_client=True, stdin=file)
    assert client.result() == (0, ["ONE", "TWO"], "")


def test_client_whose_input_is_empty_or_closed_says_nothing_and_ends(server: Program) -> None:
    with open(os.devnull) as nothing:
        assert Program("--connect", server.where, is_client=True, stdin=nothing).result() == (0, [], "")
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND]
    assert Program("--connect", server.where, command=closed, is_client=True).result() == (0, [], "")


def test_client_whose_output_nobody_reads_any_more_ends_without_a_traceback(server: Program) -> None:
    client = Program("--connect", server.where, is_client=True)
    assert client.process.stdout is not None and client.process.stdin is not None
    client.process.stdout.close()
    client.process.stdin.write(b"hello\n")
    client.process.stdin.flush()
    assert client.process.wait(SECONDS) == 1
    with client.process:
        assert client.process.stderr is not None and client.process.stderr.read() == b""


def test_client_without_a_server_is_told_how_to_start_one() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound, so that nobody else gets the port; but not listening
        port = unheard.getsockname()[1]
        status, out, errors = run("--connect", "--port", str(port))
    assert (status, out) == (1, "")
    assert errors.startswith(f"127.0.0.1:{port}: Connection refused: ") and "python -m greenswitch.echo" in errors


@pytest.mark.parametrize("reset", [False, True])
def test_client_whose_server_goes_away_says_so_though_nothing_is_typed(start: Starter, reset: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        client = start("--connect", "--port", str(listener.getsockname()[1]), is_client=True)
        conn, _ = listener.accept()
        if reset:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        conn.close()
        assert client.process.wait(SECONDS) == 1
        _, lines, errors = client.result()
    assert lines == []
    assert errors.count("\n") == 1
    assert ("reset" if reset else "the server has closed the connection") in errors


# --- the client, at a terminal ----------------------------------------------------------------------------------------


class Terminal:
    """A person at a terminal in which `greenswitch.echo --connect` runs."""

    def __init__(self, port: int) -> None:
        self.master, self.slave = os.openpty()
        at_terminal = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.executable, sys.argv[2:])"
        command = [sys.executable, "-c", at_terminal, str(self.slave), *COMMAND, "--connect", "--port", str(port)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, pass_fds=[self.slave])
        self.screen = ""

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def see(self, expected: str) -> None:
        """Wait until the rest of the screen shows `expected`; what comes after it is the next rest."""
        deadline = clock.monotonic() + SECONDS
        while expected not in self.screen:
            ready, _, _ = select.select([self.master], [], [], deadline - clock.monotonic())
            assert ready, f"{expected!r} is not on the screen: {self.screen!r}"
            self.screen += os.read(self.master, 4096).decode()
        self.screen = self.screen.partition(expected)[2]

    def blocks(self) -> bool:
        """Whether the fd that the client has as its 0, 1 and 2 still is a blocking one."""
        return not fcntl.fcntl(self.slave, fcntl.F_GETFL) & os.O_NONBLOCK

    def close(self) -> None:
        with self.process:
            if self.process.poll() is None:
                self.process.kill()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal() -> Iterator[Callable[[int], Terminal]]:
    """Open terminals that are closed when the test ends."""
    opened: list[Terminal] = []

    def opener(port: int) -> Terminal:
        opened.append(Terminal(port))
        return opened[-1]

    yield opener
    for one in opened:
        one.close()


@pytest.mark.parametrize("goodbye", [b"exit\n", b"\x04"], ids=["exit", "Ctrl-D"])
def test_person_is_prompted_answered_and_let_go(
    server: Program, terminal: Callable[[int], Terminal], goodbye: bytes
) -> None:
    person = terminal(server.address[1])
    for line in ("hello", "grüße", ""):
        person.see("> ")
        person.type(line.encode() + b"\n")
        person.see(f"{line}\r\n")  # the terminal's own echo
        person.see(f"{line.encode().upper().decode()}\r\n")
        assert person.blocks()
    person.see("> ")
    person.type(goodbye)
    assert person.process.wait(SECONDS) == 0
    assert person.blocks()


def test_person_sees_at_once_what_the_server_sends_though_nothing_is_typed(
    terminal: Callable[[int], Terminal],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        person = terminal(listener.getsockname()[1])
        conn, _ = listener.accept()
        with conn:
            person.see("> ")
            for news in ("first\n", "second\n"):
                conn.sendall(news.encode())
                person.see(f"{news.strip()}\r\n> ")
            assert person.blocks()
        person.see("the server has closed the connection\r\n")
        assert person.process.wait(SECONDS) == 1
    assert person.blocks()


def test_ctrl_c_at_the_terminal_ends_the_client_with_130_and_no_traceback(
    server: Program, terminal: Callable[[int], Terminal]
) -> None:
    person = terminal(server.address[1])
    person.see("> ")
    person.type(b"half a li\x03")
    assert person.process.wait(SECONDS) == 130
    person.type(b"# the end\n")
    person.see("# the end")
    assert "Traceback" not in person.screen


# --- its parts, as a notebook uses them -------------------------------------------------------------------------------


def test_welcome_and_connect_are_two_tasks_of_one_thread(real_hub: Any) -> None:
    logged: list[tuple[Any, ...]] = []
    shown: list[bytes] = []
    with green.create_server(("127.0.0.1", 0)) as listener:
        server = spawn(echo.welcome, listener, bytes.upper, lambda *words: logged.append(words))
        echo.connect(listener.getsockname(), [b"one\n", b"two\n"], shown.append)
    server.get(SECONDS)  # a closed listener ends it
    assert b"".join(shown) == b"ONE\nTWO\n"
    assert b"".join(data for _, data in logged) == b"one\ntwo\n"


def test_connect_gives_a_server_that_does_not_close_a_few_seconds(hub: Any, time: Callable[[], float]) -> None:
    with green.create_server(("127.0.0.1", 0)) as listener:
        accepted = spawn(listener.accept)
        with pytest.raises(TimeoutError, match="has not closed"):
            echo.connect(listener.getsockname(), [b"bye\n"], print)
        assert time() == pytest.approx(echo.LAST_REPLIES)
        accepted.value[0].close()


def test_failure_to_show_or_to_read_lines_is_raised_by_connect(real_hub: Any) -> None:
    def broken_lines() -> Iterator[bytes]:
        yield b"one\n"
        raise ZeroDivisionError

    def broken_show(data: bytes) -> None:
        raise KeyError(data)

    with green.create_server(("127.0.0.1", 0)) as listener:
        spawn(echo.welcome, listener, bytes.upper, lambda *words: None)
        with pytest.raises(ZeroDivisionError):
            echo.connect(listener.getsockname(), broken_lines(), print)
        with pytest.raises(KeyError, match="ONE"):
            echo.connect(listener.getsockname(), [b"one\n"], broken_show)


class Exhausted:
    """A listener whose every accept fails for want of file descriptors until it is closed."""

    def __init__(self) -> None:
        self.tries = 0
        self.closed = False

    def accept(self) -> None:
        self.tries += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def fileno(self) -> int:
        return -1 if self.closed else 9


def test_failing_to_accept_is_said_once_and_tried_again_ten_times_a_second(
    hub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = Exhausted()
    server = spawn(echo.welcome, listener)
    sleep(10)
    listener.closed = True
    server.get()
    assert 99 <= listener.tries <= 102
    assert capsys.readouterr().out.count("cannot accept: Too many open files") == 1
