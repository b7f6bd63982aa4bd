"""Pipes, terminals and other files that may have to wait: reading and writing them parks the task.

They stay blocking: to make them non-blocking would change them for every process that shares them. So each read asks
first whether there is something, and each write whether there is room, and then takes at most what is sure not to
block: PIPE_BUF bytes at a time into a pipe, a socket or a terminal. What somebody has made non-blocking is left to
him: it raises BlockingIOError as ever. Regular files never wait.

Between the question and the read, another thread or process that reads from the same pipe may take what was there; the
read then blocks this thread, as without us.

Knows waiting for descriptors. Knows no process and no task.
"""

from __future__ import annotations

import builtins
import io
import os
import select
import stat
import sys
from collections.abc import Callable, Sequence
from operator import index
from typing import IO, TYPE_CHECKING, Any, Final

from greenlet import getcurrent

from greenswitch.descriptors import breathe, forget, is_ready, wait_for
from greenswitch.hub import READ, WRITE, current_hub
from greenswitch.locks import RLock
from greenswitch.threads import to_thread

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# The originals, which monkey patching replaces.
_close, _input, _open, _read, _write = os.close, builtins.input, io.open, os.read, os.write
_readv: Any = getattr(os, "readv", None)
_writev: Any = getattr(os, "writev", None)
_eventfd_read: Any = getattr(os, "eventfd_read", None)
_eventfd_write: Any = getattr(os, "eventfd_write", None)
_sendfile: Any = getattr(os, "sendfile", None)
_splice: Any = getattr(os, "splice", None)
_SPLICE_NONBLOCK: Final[int] = getattr(os, "SPLICE_F_NONBLOCK", 2)  # the name is new in Python 3.12

PIPE_BUF: Final[int] = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe takes at once, without blocking, when it says that it has room."""

_CHUNK = 65_536  # bytes read at once when all is wanted; a Linux pipe holds as many

CAN_WAIT: Final = hasattr(select, "poll") and os.name == "posix"
"""Whether this platform can tell if a pipe is ready; elsewhere the functions of this file just block."""

if CAN_WAIT:
    import fcntl


def read(fd: int, length: int, /) -> bytes:
    """Park until `fd` has something to read, then return at most `length` bytes, as `os.read`."""
    _until_ready(index(fd), READ)
    return _read(fd, length)


def readv(fd: int, buffers: Sequence[WriteableBuffer], /) -> int:
    """Park until `fd` has something to read, then read into `buffers`, as `os.readv`."""
    _until_ready(index(fd), READ)
    return _readv(fd, buffers)  # type: ignore[no-any-return]


def write(fd: int, data: ReadableBuffer, /) -> int:
    """Write all of `data`, parked while there is no room, as `os.write` to what blocks; return how many bytes.

    Who is killed in the midst of it has written a part.
    """
    length = memoryview(data).nbytes
    if length <= PIPE_BUF or not _may_park() or not _takes_pieces(index(fd)):
        _until_ready(index(fd), WRITE)
        return _write(fd, data)
    view, written = memoryview(data).cast("B"), 0
    while written < length:
        try:
            _until_ready(fd, WRITE)
            written += _write(fd, view[written : written + PIPE_BUF])
        except OSError:
            if written:
                return written  # the next write hears of it
            raise
    return written


def writev(fd: int, buffers: Sequence[ReadableBuffer], /) -> int:
    """Write all of `buffers`, parked while there is no room, as `os.writev`; return how many bytes."""
    if not _may_park() or not _takes_pieces(index(fd)):
        return _writev(fd, buffers)  # type: ignore[no-any-return]
    return write(fd, b"".join(buffers))


def close(fd: int) -> None:
    """Close `fd`, as `os.close`. Whoever waits for it in this thread gets OSError(EBADF)."""
    forget(fd)
    _close(fd)


def eventfd_read(fd: int) -> int:
    """Park until the counter of `fd` is not 0, then return and reset it, as `os.eventfd_read`."""
    _until_ready(index(fd), READ)
    return _eventfd_read(fd)  # type: ignore[no-any-return]


def eventfd_write(fd: int, value: int) -> None:
    """Park until the counter of `fd` has room, then add `value`, as `os.eventfd_write`."""
    _until_ready(index(fd), WRITE)
    _eventfd_write(fd, value)


def sendfile(out_fd: int, in_fd: int, offset: int | None, count: int) -> int:
    """Park until `out_fd` takes something, then copy at most `count` bytes from `in_fd`, as `os.sendfile`.

    It copies as many bytes at once as are sure not to block, and returns how many.
    """
    if _may_park() and _takes_pieces(index(out_fd)):
        _until_ready(out_fd, WRITE)
        count = min(count, PIPE_BUF)
    return _sendfile(out_fd, in_fd, offset, count)  # type: ignore[no-any-return]


def splice(
    src: int, dst: int, count: int, offset_src: int | None = None, offset_dst: int | None = None, flags: int = 0
) -> int:
    """Park until `src` has something and `dst` has room, then move at most `count` bytes, as `os.splice`."""
    if not _may_park() or flags & _SPLICE_NONBLOCK:
        return _splice(src, dst, count, offset_src, offset_dst, flags)  # type: ignore[no-any-return]
    while True:
        _until_ready(index(src), READ)
        _until_ready(index(dst), WRITE)
        try:
            return _splice(  # type: ignore[no-any-return]
                src, dst, min(count, PIPE_BUF), offset_src, offset_dst, flags | _SPLICE_NONBLOCK
            )
        except BlockingIOError:
            if not _blocks(src, READ) or not _blocks(dst, WRITE):
                raise


def _may_park() -> bool:
    """Return whether something else could run while the caller waits."""
    hub = current_hub()
    if hub is None or hub.closed:
        return False
    try:
        getcurrent()
    except RuntimeError:  # the interpreter ends, and greenlets have ended already
        return False
    return True


def _until_ready(fd: int, events: int) -> None:
    """Park until `fd` is ready. Return at once if it would not block, or if nothing else could run."""
    if not CAN_WAIT or fd < 0 or not _may_park():
        return
    breathe()
    while not is_ready(fd, events) and _blocks(fd, events):
        wait_for(fd, events)


def _blocks(fd: int, events: int) -> bool:
    """Return whether reading (or writing) `fd` would wait rather than fail."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    wrong = os.O_WRONLY if events == READ else os.O_RDONLY
    return not flags & os.O_NONBLOCK and flags & os.O_ACCMODE != wrong


def _takes_pieces(fd: int) -> bool:
    """Return whether a blocking write of much data to `fd` may have to wait, so that it has to go there in pieces."""
    return CAN_WAIT and may_wait(fd) and _blocks(fd, WRITE)


def may_wait(fd: int) -> bool:
    """Return whether `fd` is a pipe, a socket or a terminal: whether reading or writing it may have to wait."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and os.isatty(fd))


class RawFile(io.FileIO):
    """An unbuffered file whose reads and writes park the task; beneath what `open_fd` returns.

    Signatures, results and errors are `io.FileIO`'s. A write is a whole one, unless the descriptor is non-blocking.
    """

    def __init__(
        self,
        file: Any,
        mode: str = "r",
        closefd: bool = True,
        opener: Callable[[str, int], int] | None = None,
    ) -> None:
        if opener is None and closefd and _is_fifo(file):
            opener = _open_fifo
        super().__init__(file, mode, closefd, opener)

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """As `io.FileIO.readinto`."""
        self._wait_to_read()
        return super().readinto(buffer)

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        """As `io.FileIO.read`."""
        if size is None or size < 0:
            return self.readall()
        self._wait_to_read()
        return super().read(size)

    def readall(self) -> bytes | None:  # type: ignore[override]
        """As `io.FileIO.readall`."""
        pieces: list[bytes] = []
        while piece := self.read(_CHUNK):
            pieces.append(piece)
        return piece if piece is None and not pieces else b"".join(pieces)

    def write(self, data: ReadableBuffer, /) -> int | None:  # type: ignore[override]
        """As `io.FileIO.write`."""
        if not self.writable():
            return super().write(data)  # which raises
        try:
            return write(self.fileno(), data)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """As `io.FileIO.close`. Whoever waits for it in this thread gets OSError(EBADF)."""
        if not self.closed and self.closefd:
            forget(self.fileno())
        super().close()

    def _wait_to_read(self) -> None:
        if self.readable():
            _until_ready(self.fileno(), READ)


# -- buffers that several tasks share ----------------------------------------------------------------------------------

_READS = "peek read read1 readinto readinto1 readline readlines __next__".split()
_WRITES = "flush write writelines".split()
_BOTH = "close detach seek tell truncate".split()


def _for_tasks(base: type[Any], reads: str, writes: str) -> type[Any]:
    """Return a subclass of a buffered file of `io` that one task at a time uses.

    The original's own lock knows OS threads only: it takes a second task for a call from inside the first one's, and
    raises RuntimeError. `reads` and `writes` name the locks for the two directions.
    """

    show: Any = base.__repr__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in (reads, writes):
            setattr(self, name, RLock())
        base.__init__(self, *args, **kwargs)

    def __repr__(self: Any) -> str:
        text: str = show(self)
        return text.replace("<", "<_io.", 1)

    methods: dict[str, Any] = {"__init__": __init__, "__repr__": __repr__, "__module__": "_io", "__doc__": base.__doc__}
    for name in (*_READS, *_WRITES, *_BOTH):
        if hasattr(base, name):
            methods[name] = _locked(getattr(base, name), writes if name in _WRITES else reads)
    return type(base.__name__, (base,), methods)


def _locked(method: Any, lock: str) -> Any:
    def locked(self: Any, *args: Any) -> Any:
        with getattr(self, lock):
            return method(self, *args)

    locked.__name__ = method.__name__
    locked.__doc__ = method.__doc__
    return locked


BufferedReader = _for_tasks(io.BufferedReader, "_lock", "_lock")
BufferedWriter = _for_tasks(io.BufferedWriter, "_lock", "_lock")
BufferedRandom = _for_tasks(io.BufferedRandom, "_lock", "_lock")
BufferedRWPair = _for_tasks(io.BufferedRWPair, "_read_lock", "_write_lock")


def _is_fifo(file: Any) -> bool:
    """Return True if `file` is the path of a FIFO: `open` waits there until another process or task opens it."""
    if isinstance(file, int) or not CAN_WAIT or not _may_park():
        return False
    try:
        return stat.S_ISFIFO(os.stat(file).st_mode)
    except (OSError, TypeError, ValueError):  # `open` says it better
        return False


def _open_fifo(path: str, flags: int) -> int:
    return to_thread(os.open, path, flags | os.O_CLOEXEC)


_FileIO = io.FileIO  # the original, also after monkey patching


class _Meta(type(io.FileIO)):  # type: ignore[misc]
    """Takes every `io.FileIO` for an instance, those included that were made before the name was replaced."""

    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, _FileIO) if cls is FileIO else super().__instancecheck__(one)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, _FileIO) if cls is FileIO else super().__subclasscheck__(kind)


class FileIO(RawFile, metaclass=_Meta):
    """`io.FileIO`, for tasks: reading and writing parks where it may have to wait."""

    __module__ = "_io"


def open_fd(
    fd: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> IO[Any]:
    """Return a file over `fd`, or of a path, as `open` does; one that parks if reading or writing it may have to wait.

    The path of a FIFO parks until the other end is opened, too.
    """
    waits = CAN_WAIT and (may_wait(fd) if isinstance(fd, int) else opener is None and _is_fifo(fd))
    if not waits:
        return _open(fd, mode, buffering, encoding, errors, newline, closefd, opener)
    if "b" in mode and (encoding or errors or newline or buffering == 1):
        return _open(fd, mode, buffering, encoding, errors, newline, closefd)  # which raises, or warns
    raw = RawFile(fd, mode.translate(_NO_TEXT), closefd)
    try:
        return _dressed(raw, mode, buffering, encoding, errors, newline)
    except BaseException:
        raw.close()
        raise


_NO_TEXT: Final = {ord("b"): None, ord("t"): None, ord("U"): None}


def _dressed(
    raw: RawFile, mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None
) -> IO[Any]:
    """Put buffers and text around a raw file, as `open` does."""
    if buffering == 0:
        if "b" not in mode:
            raise ValueError("can't have unbuffered text I/O")
        return raw
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    buffered: Any
    if "+" in mode:
        buffered = BufferedRandom(raw, size)
    else:
        buffered = BufferedReader(raw, size) if raw.readable() else BufferedWriter(raw, size)
    if "b" in mode:
        return buffered  # type: ignore[no-any-return]
    by_line = buffering == 1 or (buffering < 0 and raw.isatty())
    text: Any = io.TextIOWrapper(buffered, encoding, errors, newline, by_line)
    text.mode = mode
    return text  # type: ignore[no-any-return]


def fdopen(
    fd: int, mode: str = "r", buffering: int = -1, encoding: str | None = None, *args: Any, **kw: Any
) -> IO[Any]:
    """Return a file over `fd`, as `os.fdopen`; one that parks if `fd` may have to wait."""
    if not isinstance(fd, int):
        raise TypeError(f"invalid fd type ({type(fd)}, expected integer)")
    if "b" not in mode:
        encoding = io.text_encoding(encoding)
    return open_fd(fd, mode, buffering, encoding, *args, **kw)


# -- standard input ----------------------------------------------------------------------------------------------------

_stdin: list[Any] = []  # the original, and ours over the same descriptor


def stdin() -> Any:
    """Return `sys.stdin`, reading which parks the task, over the same descriptor and with the same settings.

    What is no text over a pipe or a terminal (None, a regular file, somebody's own object) is returned as it is. Text
    that the original has in its buffer already stays there: ask for this before anything is read.
    """
    original = getattr(sys, "stdin", None)
    if not _stdin or _stdin[0] is not original:
        if not isinstance(original, io.TextIOWrapper) or _raw(original) is not None or not _reads_waiting(original):
            return original
        _stdin[:] = [original, _parking(original)]
    return _stdin[1]


def _reads_waiting(file: io.TextIOWrapper) -> bool:
    try:
        return CAN_WAIT and may_wait(file.fileno())
    except (OSError, ValueError):  # closed, or nothing with a descriptor
        return False


def _parking(original: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = RawFile(original.fileno(), "r", closefd=False)
    raw.name = original.name
    ours = io.TextIOWrapper(BufferedReader(raw), original.encoding, original.errors, None, original.line_buffering)
    ours.mode = original.mode  # type: ignore[misc]
    return ours


def _raw(file: Any) -> RawFile | None:
    raw = getattr(getattr(file, "buffer", None), "raw", None)
    return raw if isinstance(raw, RawFile) else None


def ask(prompt: object = "", /) -> str:
    """Write `prompt`, park until standard input has a line, and return it, as `input`.

    At a terminal the line is edited by the terminal, not by the readline module. Raises EOFError at the end.
    """
    source = stdin()
    if _raw(source) is None or getattr(sys, "stdout", None) is None:
        return _input(prompt)
    sys.audit("builtins.input", prompt)
    if sys.stderr is not None:
        sys.stderr.flush()
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    line: str = source.readline()
    if not line:
        raise EOFError("EOF when reading a line")
    line = line.removesuffix("\n")
    sys.audit("builtins.input/result", line)
    return line
