"""Pipes, terminals and standard input: who reads or writes them parks, and the descriptor stays as it was."""

from __future__ import annotations

import errno
import io
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from greenswitch import files, sleep, spawn, timeout
from greenswitch.errors import HubError
from greenswitch.hub import READ, Hub, has_hub
from greenswitch.tasks import Task
from greenswitch.testing import VirtualTime

pytestmark = pytest.mark.skipif(not files.CAN_WAIT, reason="pipes can't be asked here")

ROOT = Path(__file__).resolve().parents[1]
BIG = bytes(range(256)) * 4096  # a megabyte: many times what a pipe holds


def close_all(*fds: int) -> None:
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            continue


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    close_all(*ends)


def fill(fd: int) -> None:
    """Write until there is no room left."""
    os.set_blocking(fd, False)
    try:
        while True:
            os.write(fd, b"-" * 4096)
    except BlockingIOError:
        os.set_blocking(fd, True)


def drain(fd: int, task: Task[Any]) -> bytes:
    """Read all there is until `task` has ended, and what it has left."""
    got = b""
    while files.is_ready(fd, READ) or not task.dead:
        if files.is_ready(fd, READ):
            got += os.read(fd, 65536)
        sleep(0)
    return got


# -- read and write ----------------------------------------------------------------------------------------------------


def readv(fd: int) -> bytes:
    buffers = [bytearray(1), bytearray(9)]
    count = files.readv(fd, buffers)
    return b"".join(buffers)[:count]


@pytest.mark.parametrize("read", [lambda fd: files.read(fd, 10), readv], ids=["read", "readv"])
def test_reading_an_empty_pipe_parks_until_somebody_writes(
    hub: Hub, time: VirtualTime, pipe: tuple[int, int], read: Callable[[int], bytes]
) -> None:
    reading = spawn(read, pipe[0])
    sleep(3)
    assert not reading.dead
    os.write(pipe[1], b"abc")
    assert reading.get() == b"abc"
    assert os.get_blocking(pipe[0])
    reading = spawn(read, pipe[0])
    sleep(1)
    os.close(pipe[1])
    assert reading.get() == b""


@pytest.mark.parametrize(
    "write", [files.write, lambda fd, data: files.writev(fd, [data[:5], data[5:]])], ids=["write", "writev"]
)
@pytest.mark.parametrize("data", [b"x", b"y" * files.PIPE_BUF, BIG, memoryview(BIG)[1:].cast("B")], ids=len)
def test_writing_to_a_full_pipe_parks_and_writes_all(
    hub: Hub, pipe: tuple[int, int], write: Callable[[int, Any], int], data: Any
) -> None:
    fill(pipe[1])
    writing = spawn(write, pipe[1], data)
    sleep(1)
    assert not writing.dead
    got = drain(pipe[0], writing)
    assert writing.get() == len(data)
    assert got.lstrip(b"-") == bytes(data)
    assert os.get_blocking(pipe[1])


def test_many_tasks_read_one_pipe_and_each_byte_goes_to_one(hub: Hub, pipe: tuple[int, int]) -> None:
    tasks = [spawn(files.read, pipe[0], 1) for _ in range(10)]
    sleep(1)
    os.write(pipe[1], b"0123456789")
    assert sorted(task.get() for task in tasks) == [b"%d" % number for number in range(10)]


def test_ready_reads_and_writes_let_others_go_first_in_the_end(hub: Hub, pipe: tuple[int, int]) -> None:
    other = spawn(lambda: None)
    files.write(pipe[1], b"x")
    assert files.read(pipe[0], 1) == b"x"
    assert not other.dead
    for _ in range(200):
        files.write(pipe[1], b"x")
        files.read(pipe[0], 1)
    assert other.dead


@pytest.mark.parametrize("end", ["kill", "timeout"])
def test_who_leaves_leaves_nothing_watched_and_the_data_to_the_next(hub: Hub, pipe: tuple[int, int], end: str) -> None:
    def read() -> None:
        with timeout(1 if end == "timeout" else None):
            files.read(pipe[0], 10)

    reading = spawn(read)
    sleep(0.5)
    if end == "kill":
        reading.kill()
    reading.join()
    assert reading.exception is None or isinstance(reading.exception, TimeoutError)
    assert all(one.read.holder is None for one in hub.registrations.values() if hasattr(one, "read"))
    os.write(pipe[1], b"x")
    assert files.read(pipe[0], 10) == b"x"


def test_closing_wakes_who_waits_with_a_bad_descriptor(hub: Hub, pipe: tuple[int, int]) -> None:
    reading = spawn(files.read, pipe[0], 10)
    sleep(1)
    files.close(pipe[0])
    with pytest.raises(OSError) as caught:
        reading.get()
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError):
        files.close(pipe[0])


@pytest.mark.parametrize(
    "call",
    [
        lambda r, w: files.read(w, 1),
        lambda r, w: files.write(r, b"x"),
        lambda r, w: files.write(r, BIG),
        lambda r, w: files.writev(r, [b"x"]),
        lambda r, w: files.read(999, 1),
        lambda r, w: files.write(999, b"x"),
        lambda r, w: files.write(999, BIG),
    ],
)
def test_wrong_end_and_closed_descriptor_are_bad_at_once(
    hub: Hub, pipe: tuple[int, int], call: Callable[[int, int], object]
) -> None:
    with pytest.raises(OSError) as caught:
        call(*pipe)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    "call",
    [lambda: files.read("x", 1), lambda: files.read(0, "x"), lambda: files.write(1, "text")],  # type: ignore[arg-type]
)
def test_wrong_types_are_type_errors(hub: Hub, call: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        call()


def test_reader_that_goes_away_is_a_broken_pipe(hub: Hub, pipe: tuple[int, int]) -> None:
    writing = spawn(files.write, pipe[1], BIG)
    sleep(1)
    os.close(pipe[0])
    written = writing.get()
    assert 0 < written < len(BIG)
    with pytest.raises(BrokenPipeError):
        files.write(pipe[1], b"x")


def test_what_somebody_made_non_blocking_is_left_to_him(hub: Hub, pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[0], False)
    os.set_blocking(pipe[1], False)
    with pytest.raises(BlockingIOError):
        files.read(pipe[0], 1)
    assert 0 < files.write(pipe[1], BIG) < len(BIG)
    with pytest.raises(BlockingIOError):
        files.write(pipe[1], b"x")


def test_blocking_sockets_of_others_park_too(hub: Hub) -> None:
    near, far = socket.socketpair()
    with near, far:
        reading = spawn(files.read, near.fileno(), 10)
        writing = spawn(files.write, near.fileno(), BIG)
        sleep(1)
        assert not reading.dead and not writing.dead
        assert drain(far.fileno(), writing) == BIG
        assert writing.get() == len(BIG)
        far.send(b"x")
        assert reading.get() == b"x"


def test_regular_files_are_read_and_written_in_one_piece(hub: Hub, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    other = spawn(lambda: None)
    assert files.write(fd, BIG) == len(BIG)
    os.lseek(fd, 0, os.SEEK_SET)
    assert files.read(fd, len(BIG) + 1) == BIG
    assert not other.dead
    other.join()
    os.close(fd)


def test_inside_the_hub_what_is_ready_works_and_waiting_is_refused(hub: Hub, pipe: tuple[int, int]) -> None:
    seen: list[object] = []

    def callback() -> None:
        files.write(pipe[1], b"x")
        seen.append(files.read(pipe[0], 1))
        try:
            files.read(pipe[0], 1)
        except HubError:
            seen.append("refused")

    hub.call_soon(callback)
    sleep(1)
    assert seen == [b"x", "refused"]


def test_thread_without_a_hub_just_blocks(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    assert files.read(pipe[0], 1) == b"x"
    assert not has_hub()


# -- files over descriptors --------------------------------------------------------------------------------------------


def test_opened_pipe_reads_lines_and_the_rest_as_they_come(hub: Hub, pipe: tuple[int, int]) -> None:
    with files.open_fd(pipe[0], encoding="utf-8") as file:
        lines = spawn(list, file)
        for piece in (b"one\ntw", b"o\r\n", "drei é".encode()):
            sleep(1)
            os.write(pipe[1], piece)
        sleep(1)
        assert not lines.dead
        os.close(pipe[1])
        assert lines.get() == ["one\n", "two\n", "drei é"]


def test_opened_pipe_takes_all_that_is_written(hub: Hub, pipe: tuple[int, int]) -> None:
    for buffering in (-1, 0, 100):
        with files.open_fd(os.dup(pipe[1]), "wb", buffering) as file:
            writing = spawn(lambda file=file: (file.write(BIG), file.flush()))
            assert drain(pipe[0], writing) == BIG
            writing.get()


@pytest.mark.parametrize("mode", ["rb", "r", "rt"])
@pytest.mark.parametrize("buffering", [-1, 0, 5000])
def test_opened_like_the_original(pipe: tuple[int, int], mode: str, buffering: int) -> None:
    def opened(opener: Callable[..., Any]) -> object:
        try:
            with opener(os.dup(pipe[0]), mode, buffering, None if "b" in mode else "latin-1") as file:
                text = [getattr(file, name, None) for name in ("mode", "encoding", "errors", "newlines")]
                return text, isinstance(file, io.FileIO) or type(file).__name__, file.readable(), file.writable()
        except ValueError as error:
            return str(error)

    expected = opened(open)
    assert opened(files.open_fd) == opened(files.fdopen) == expected


def test_what_cant_wait_is_opened_by_the_original(tmp_path: Path, pipe: tuple[int, int]) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with files.open_fd(os.open(path, os.O_RDONLY), "rb", 0) as file:
        assert type(file) is io.FileIO
    with files.open_fd(path, encoding="utf-8") as file:
        assert file.read() == "x"
    with pytest.raises(TypeError, match="invalid fd type"):
        files.fdopen(path)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        files.open_fd(pipe[0], "rw")


def test_closing_the_file_while_its_raw_part_is_read_wakes_the_reader(hub: Hub, pipe: tuple[int, int]) -> None:
    file = files.open_fd(pipe[0], "rb", 0)
    reading = spawn(file.read, 10)
    sleep(1)
    file.close()
    with pytest.raises(OSError) as caught:
        reading.get()
    assert caught.value.errno == errno.EBADF
    with pytest.raises(ValueError, match="closed file"):
        file.read(1)


def test_wrong_direction_is_refused_as_ever(pipe: tuple[int, int]) -> None:
    with files.open_fd(pipe[0], "rb", 0) as reading, files.open_fd(pipe[1], "wb", 0) as writing:
        for call in (lambda: writing.read(1), lambda: writing.readinto(bytearray(1)), lambda: reading.write(b"x")):
            with pytest.raises(io.UnsupportedOperation):
                call()


def test_non_blocking_file_says_none(hub: Hub, pipe: tuple[int, int]) -> None:
    for fd in pipe:
        os.set_blocking(fd, False)
    with files.open_fd(pipe[0], "rb", 0) as reading, files.open_fd(pipe[1], "wb", 0) as writing:
        assert reading.read() is None
        assert 0 < writing.write(BIG) < len(BIG)
        assert writing.write(b"x") is None


# -- standard input ----------------------------------------------------------------------------------------------------

PRELUDE = """
from greenswitch import monkey
monkey.patch_all()
import greenswitch, sys, time
ticks = []
def tick():
    while True:
        time.sleep(0.01)
        ticks.append(1)
        if len(ticks) % 3 == 0:
            print("ticked", flush=True)
greenswitch.spawn(tick)
"""

READERS = {
    "input": "print(repr([input(), input('? ')]))",
    "readline": "print(repr([sys.stdin.readline().rstrip(), sys.stdin.readline().rstrip()]))",
    "iteration": "print(repr([line.rstrip() for _, line in zip(range(2), sys.stdin)]))",
    "buffer": "print(repr([sys.stdin.buffer.readline().decode().rstrip() for _ in range(2)]))",
}


def typed_to(process: subprocess.Popen[Any], write: Callable[[bytes], object], read: Callable[[], bytes]) -> bytes:
    """Type two lines, each once tasks have run meanwhile; return what the program says in the end."""
    out = b""
    for line in ("größer\n".encode(), b"two\n"):
        seen = out.count(b"ticked")
        while out.count(b"ticked") < seen + 2:
            out += read()
        write(line)
    while b"end" not in out:
        out += read()
    assert process.wait(10) == 0
    return out


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "pty"])
def test_person_types_while_tasks_run(kind: str, reader: str) -> None:
    program = (
        PRELUDE + READERS[reader] + "\nprint('ticks', len(ticks) > 5, sys.stdin.fileno(), sys.stdin.isatty(), 'end')\n"
    )
    near, far = __import__("pty").openpty() if kind == "pty" else os.pipe()[::-1]
    said, saying = (near, far) if kind == "pty" else os.pipe()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen([sys.executable, "-c", program], stdin=far, stdout=saying, env=environment)
    try:
        out = typed_to(process, lambda line: os.write(near, line), lambda: os.read(said, 1000)).decode()
    finally:
        close_all(*{near, far, said, saying})
        process.kill()
        process.wait()
    assert "['größer', 'two']" in out
    assert f"ticks True 0 {kind == 'pty'}" in out
    assert ("? " in out) == (reader == "input")


def script(source: str, stdin: bytes = b"") -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        input=stdin,
        capture_output=True,
        timeout=20,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.stdout.decode(), done.stderr.decode()


def test_end_of_input_is_an_eof_error() -> None:
    out, err = script(
        """
        from greenswitch import monkey
        monkey.patch_all()
        import greenswitch; greenswitch.get_hub()
        print(input())
        try: input()
        except EOFError as error: print(error)
        """,
        b"no newline",
    )
    assert (out, err) == ("no newline\nEOF when reading a line\n", "")


def test_ctrl_c_ends_the_wait_for_input() -> None:
    source = PRELUDE + "try:\n    input()\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    process = subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ticked\n"
        process.send_signal(2)
        assert process.stdout.read().replace(b"ticked\n", b"") == b"interrupted\n"
        assert process.wait(10) == 0


def test_twin_reads_without_patching_and_stdin_itself_stays() -> None:
    out, err = script(
        """
        import sys as original
        before = original.stdin
        from greenswitch.green import sys, builtins
        import greenswitch
        greenswitch.get_hub()
        print(sys.stdin.readline().strip(), builtins.input())
        print(original.stdin is before, sys.stdin is sys.stdin, sys.stdin.name, sys.stdin.mode)
        print(sys.stdin.encoding == before.encoding, sys.stdin.errors == before.errors, sys.argv is original.argv)
        """,
        b"one\ntwo\n",
    )
    assert (out, err) == ("one two\nTrue True <stdin> r\nTrue True True\n", "")


@pytest.mark.parametrize("stdin", ["None", "io.StringIO('a\\nb\\n')", "open(__import__('os').devnull)"])
def test_other_standard_inputs_are_left_alone(stdin: str) -> None:
    out, err = script(f"""
        import io, sys
        sys.stdin = before = {stdin}
        from greenswitch import monkey
        monkey.patch_all()
        print(sys.stdin is before)
        try: print(input())
        except (EOFError, RuntimeError): print("none")
        """)
    assert (out, err) == ("True\na\n" if "String" in stdin else "True\nnone\n", "")


def test_unpatching_brings_the_original_back() -> None:
    out, err = script(
        """
        import sys, builtins
        before = sys.stdin, builtins.input
        from greenswitch import monkey
        monkey.patch_all()
        print(sys.stdin is not before[0], builtins.input is not before[1], sys.__stdin__ is before[0])
        monkey.unpatch_all()
        print((sys.stdin, builtins.input) == before)
        """,
    )
    assert (out, err) == ("True True True\nTrue\n", "")
