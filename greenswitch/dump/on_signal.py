"""A dump at a signal: on standard error, into a file, or to another process that asks for it.

How another process asks
========================

A process that has installed the signal keeps an anonymous file (a memfd) open, which others find by its name among
`/proc/PID/fd`: so they see whether the signal would be understood, or would kill. Whoever asks writes `?` at the
beginning of that file and sends the signal; the handler writes its process's number, a line's end and the JSON of a
report after it, then `!` in place of the `?`. Nothing lies in a directory that others may write to, and the kernel lets
nobody open it but those who may look into the process anyway. All numbers of waiting are in seconds.

Knows signals, files and reports. Never touches what monkey patching may have replaced by something that parks.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Self

from greenswitch.dump.by_debugger import ask_by_debugger, remote_exec
from greenswitch.dump.notes import note_times
from greenswitch.dump.report import Report, dump
from greenswitch.errors import HubError
from greenswitch.hub import call_signal_handler, os_ident
from greenswitch.hub.bystanders import pause

_MAILBOX = "greenswitch-dump"
_ASKED, _ANSWERED = b"?", b"!"
_PATIENCE = 1.0  # to write into a pipe that is full


class DumpSignal:
    """A signal handler that writes a dump. `install_dump_signal` makes it; as a context manager it ends with the block.

    It never switches, and wakes nobody: while it is installed a deadlock is found all the same.
    """

    wakes_nobody = True
    in_place = True  # it reports what it interrupts

    def __init__(self, number: int, file: Any) -> None:
        self.number = number
        self._file = file
        self._mailbox = _new_mailbox(number)
        self._previous: Any = None
        self._installed = False

    def install(self) -> None:
        """Take the signal's place; the earlier handler, if it is a function, is called after the dump."""
        previous = signal.getsignal(self.number)
        before = getattr(previous, "__self__", None)
        if isinstance(before, DumpSignal):  # called twice: one dump is enough
            previous = before._previous
            before._let_go()
        self._previous = previous
        self.wakes_nobody = not callable(previous) or getattr(before, "wakes_nobody", False) is True
        self._installed = True
        signal.signal(self.number, self.caught)
        _installed.add(self)

    def uninstall(self) -> None:
        """Put back the handler that was there before. Twice does nothing. Main thread only.

        If another handler has taken the place meanwhile, and calls this one, this only hands on from now on.
        """
        if self._installed and signal.getsignal(self.number) == self.caught:
            signal.signal(self.number, signal.SIG_DFL if self._previous is None else self._previous)
        self._let_go()

    def caught(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        try:
            if self._installed:
                self._answer(dump(frame))
        except Exception as error:  # whatever is wrong with the dump, the program shall not suffer from it
            with suppress(Exception):
                _write(sys.__stderr__, f"greenswitch: no dump: {type(error).__name__}: {error}\n")
        if callable(self._previous):
            call_signal_handler(self._previous, number, frame)

    def _answer(self, report: Report) -> None:
        mailbox = self._mailbox
        if mailbox is not None and os.pread(mailbox.fileno(), 1, 0) == _ASKED:
            os.ftruncate(mailbox.fileno(), 1)
            os.pwrite(mailbox.fileno(), f"{os.getpid()}\n{report.to_json()}".encode(), 1)
            os.pwrite(mailbox.fileno(), _ANSWERED, 0)
        elif isinstance(self._file, str | os.PathLike):
            with FileIO(os.fspath(self._file), "a") as file:
                _write(file, f"{report}\n")
        else:
            _write(sys.stderr if self._file is None else self._file, f"{report}\n")

    def _let_go(self) -> None:
        self._installed = False
        _installed.discard(self)
        if self._mailbox is not None:
            self._mailbox.close()
            self._mailbox = None

    def _in_child(self) -> None:
        """Have a mailbox of one's own: the parent's is the same file."""
        if self._mailbox is not None:
            self._mailbox.close()
            self._mailbox = _new_mailbox(self.number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.uninstall()

    def __repr__(self) -> str:
        return f"<DumpSignal {signal.Signals(self.number).name}{'' if self._installed else ', not installed'}>"


_installed: set[DumpSignal] = set()


def install_dump_signal(number: int | None = None, file: Any = None, times: bool = True) -> DumpSignal:
    """Write a dump whenever the signal `number` (default: SIGUSR1) arrives; return what can be uninstalled.

    To `file`, an open one or the path of one to append to; None: standard error. Works while the hub sleeps and while a
    task computes; if a task is in a C function, when that returns. The handler that was there is called after it.
    `times`: note since when each one waits (`note_times`). Main thread only: HubError elsewhere, and where there are no
    such signals.
    """
    if number is None:
        number = getattr(signal, "SIGUSR1", None)
    if number is None:
        raise HubError("this platform has no SIGUSR1: name another signal, or call greenswitch.dump.dump() yourself")
    if os_ident() != threading.main_thread().ident:
        raise HubError("signal handlers are installed in the main thread: call install_dump_signal() there")
    installed = DumpSignal(number, file)
    installed.install()
    if times:
        note_times()
    return installed


def _children_have_their_own() -> None:
    for one in list(_installed):
        one._in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_children_have_their_own)


def _new_mailbox(number: int) -> FileIO | None:
    if not hasattr(os, "memfd_create"):
        return None
    return FileIO(os.memfd_create(f"{_MAILBOX}-{number}", os.MFD_CLOEXEC), "r+")


def _write(file: Any, text: str) -> None:
    """Write all of `text`, past the file's buffer: we may have interrupted just that."""
    try:
        fd = file.fileno()
    except (AttributeError, OSError):  # a StringIO, a notebook's output
        file.write(text)
        return
    left = memoryview(text.encode("utf-8", "backslashreplace"))
    deadline = monotonic() + _PATIENCE
    with FileIO(fd, "a", closefd=False) as raw:
        while left and monotonic() < deadline:
            written = raw.write(left)
            if written is None:  # non-blocking, and full
                pause(0.01)
            left = left[written or 0 :]


# -- the other process -----------------------------------------------------------------------------------------------


class CannotAsk(Exception):
    """A process that can't be asked for a dump, and why."""


def ask(pid: int, seconds: float = 5.0) -> Report:
    """Have the process `pid` dump, and return its report; raise CannotAsk, with the cure, if that can't be had.

    It must have called `install_dump_signal`; else no signal is sent, which might end it, but from CPython 3.14 on it
    is asked as a debugger asks. Linux only.
    """
    found = _mailbox_of(pid)
    if found is None:
        run = remote_exec()
        if run is not None:
            return _by_debugger(run, pid, seconds)
        raise CannotAsk(
            f"process {pid} has installed no dump signal (and sent one, it might end): "
            "have it call greenswitch.dump.install_dump_signal()"
        )
    path, number = found
    if not _catches(pid, number):
        raise CannotAsk(f"process {pid} does not handle {signal.Signals(number).name} any more: it might end by it")
    with _open(path, pid) as mailbox:
        os.pwrite(mailbox.fileno(), _ASKED, 0)
        _kill(pid, number)
        return _answer_in(mailbox, pid, seconds)


def _by_debugger(run: Callable[[int, str], Any], pid: int, seconds: float) -> Report:
    """Ask a process that has installed nothing."""
    try:
        report: Report | str = _allowed(lambda: ask_by_debugger(run, pid, seconds), pid)
    except (OSError, RuntimeError) as error:  # it runs another Python, or one that lets no debugger in
        raise CannotAsk(
            f"process {pid} has installed no dump signal, and can't be asked as a debugger would: {error}; "
            "have it call greenswitch.dump.install_dump_signal()"
        ) from error
    if isinstance(report, str):
        raise CannotAsk(report)
    return report


def _answer_in(mailbox: FileIO, pid: int, seconds: float) -> Report:
    deadline = monotonic() + seconds
    while os.pread(mailbox.fileno(), 1, 0) != _ANSWERED:
        if monotonic() > deadline:
            os.ftruncate(mailbox.fileno(), 0)  # an answer that is late shall go where its own dumps go
            raise CannotAsk(
                f"process {pid} has not answered within {seconds:g} seconds: its main thread has been in a C function "
                "for as long, or the process is stopped"
            )
        pause(0.005)
    mailbox.seek(1)
    sender, _, text = mailbox.readall().decode().partition("\n")
    if int(sender) != pid:
        raise CannotAsk(f"process {sender}, which shares a mailbox with {pid}, has answered in its place")
    return Report.from_json(text)


def _mailbox_of(pid: int) -> tuple[str, int] | None:
    """Return the path of the mailbox, and the signal's number."""
    if not os.path.isdir("/proc/self/fd"):
        raise CannotAsk("this needs /proc, as Linux has it; where it isn't, send the signal and look at standard error")
    directory = f"/proc/{pid}/fd"
    for name in _allowed(lambda: os.listdir(directory), pid):
        with suppress(OSError):  # closed meanwhile
            target = os.readlink(f"{directory}/{name}").removesuffix(" (deleted)")
            head, _, number = target.rpartition("-")
            if head == f"/memfd:{_MAILBOX}" and number.isdigit():
                return f"{directory}/{name}", int(number)
    return None


def _catches(pid: int, number: int) -> bool:
    """Return whether the process has a handler for the signal; one that has not may be ended by it."""
    with _open(f"/proc/{pid}/status", pid, "r") as status:
        for line in status.readall().decode().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) & 1 << (number - 1))
    return False


def _open(path: str, pid: int, mode: str = "r+") -> FileIO:
    file: FileIO = _allowed(lambda: FileIO(path, mode), pid)
    return file


def _kill(pid: int, number: int) -> None:
    _allowed(lambda: os.kill(pid, number), pid)


def _allowed(act: Callable[[], Any], pid: int) -> Any:
    try:
        return act()
    except (FileNotFoundError, ProcessLookupError):
        raise CannotAsk(f"there is no process {pid}") from None
    except PermissionError:
        raise CannotAsk(f"process {pid} belongs to somebody else: ask as that user, or as root") from None
