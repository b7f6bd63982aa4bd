"""Cooperative sockets: the standard library's, whose every call that would block parks the task instead.

The file descriptor is non-blocking, always; what the user asks for by `settimeout` is kept beside it. Every call tries the
system call and waits only when that would block, with one exception: a read that returned less than was asked for has
emptied a stream, so the next read parks at once and saves the failing call. Whatever changes on the fd ends that
knowledge (see `Registration.notify`).

Knows readiness (`greenswitch.hub`) and name look-up. Knows no task.
"""

from __future__ import annotations

import _socket
import errno
import io
import os
import socket
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from greenlet import getcurrent

from greenswitch.hub import Hub, Registration, Waiter, get_hub, register
from greenswitch.names import getaddrinfo, resolve

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CAP = 65_536  # bytes read at once from a stream: a larger buffer costs its allocation at every small message
_STREAK = 64  # operations in a row that never had to wait, after which a task lets others go first
_SENDFILE_MOST = 1 << 30
_UNIX_RETRY = 0.001, 0.05  # seconds between tries to connect to a UNIX listener whose backlog is full: first, longest
_IN_PROGRESS = {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)}

# The C methods themselves: a method call through super() costs more than some of the system calls.
_base = _socket.socket
_recv, _recv_into, _send = _base.recv, _base.recv_into, _base.send
_recvfrom, _recvfrom_into, _sendto = _base.recvfrom, _base.recvfrom_into, _base.sendto
_settimeout, _connect_ex = _base.settimeout, _base.connect_ex
_accept: Callable[[Any], tuple[int, Any]] = _base._accept
_family, _type, _proto = (vars(_base)[name].__get__ for name in ("family", "type", "proto"))

_DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0)
_WAITALL = getattr(socket, "MSG_WAITALL", 0)
_PEEK = socket.MSG_PEEK
_UNSET: Any = object()


class Socket(socket.socket):
    """A `socket.socket` whose blocking calls park the task that makes them; all others go on.

    Signatures, results and errors are the standard library's. On top: BusyError for a second task that wants to wait for
    the same direction; OSError(EBADF) for whoever waits while it is closed; HubError for a call that would have to wait
    inside the hub. It may be used from several threads. One that was made of an `fileno` becomes non-blocking, as seen by
    everybody who shares that file description, so file descriptors 0 to 2 are refused with ValueError.
    """

    __slots__ = ("_elsewhere", "_patience", "_registration", "_streak", "_streaming")

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        if fileno is not None and 0 <= fileno <= 2:
            raise ValueError(
                f"fd {fileno} is shared with other processes, which would see it become non-blocking: "
                "use wait_readable(fd) and wait_writable(fd) around os.read and os.write"
            )
        self._registration: Registration | None = None
        self._elsewhere: tuple[Registration, ...] = ()
        self._streak = 0
        self._patience = _socket.getdefaulttimeout()
        super().__init__(family, type, proto, fileno)
        _settimeout(self, 0.0)
        self._streaming = _type(self) == socket.SOCK_STREAM

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _wait(self, reading: bool, deadline: float | None = None) -> float | None:
        """Park until reading (or writing) is worth a try; return the deadline that the socket's timeout makes."""
        hub = get_hub()
        registration = self._registration
        if registration is None or registration.hub is not hub:
            registration = self._register(hub)
        if deadline is None and self._patience is not None:
            deadline = hub.clock() + self._patience
        self._streak = 0
        (registration.read if reading else registration.write).wait(deadline)
        return deadline

    def _register(self, hub: Hub) -> Registration:
        known = self._registration
        self._registration = register(hub, self.fileno())
        if known is not None and known.hub is not None:
            self._elsewhere = (*(one for one in self._elsewhere if one.hub not in (None, hub)), known)
        return self._registration

    def _until_done(self, reading: bool, flags: int, operation: Callable[..., Any], *args: Any) -> Any:
        """Return `operation(self, *args)`, trying again whenever the socket is ready."""
        deadline = None
        while True:
            try:
                return operation(self, *args)
            except BlockingIOError:
                if self._patience == 0.0 or flags & _DONTWAIT:
                    raise
            deadline = self._wait(reading, deadline)

    def _breathe(self) -> None:
        """Let others go first, after many operations that had not to wait; unless this must not switch."""
        self._streak = 0
        if self._patience != 0.0:
            hub = get_hub()
            if getcurrent() is not hub.greenlet:
                hub.step_aside()

    def _forget(self) -> None:
        """Wake whoever waits: this fd is about to close, or to be somebody else's."""
        registration, self._registration = self._registration, None
        elsewhere, self._elsewhere = self._elsewhere, ()
        for one in (registration, *elsewhere):
            if one is not None:
                one.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As `socket.recv`; from a stream at most 64 KiB at once."""
        if flags or not self._streaming:
            return self._recv_with(bufsize, flags)
        if bufsize > _CAP:
            bufsize = _CAP
        deadline = None
        registration = self._registration
        if registration is not None and registration.read.drained and self._patience != 0.0:
            deadline = self._wait(True)
        while True:
            try:
                data = _recv(self, bufsize)
            except BlockingIOError:
                if self._patience == 0.0:
                    raise
                deadline = self._wait(True, deadline)
                continue
            registration = self._registration
            if 0 < len(data) < bufsize:
                if registration is not None:
                    registration.read.drained = not registration.hung_up
            else:
                self._streak += 1
                if self._streak > _STREAK:
                    self._breathe()
            return data

    def _recv_with(self, bufsize: int, flags: int) -> bytes:
        if not (flags & _WAITALL and self._streaming) or self._patience == 0.0 or flags & (_DONTWAIT | _PEEK):
            return self._until_done(True, flags, _recv, bufsize, flags)  # type: ignore[no-any-return]
        buffer = bytearray(bufsize)
        return bytes(buffer[: self._recv_all(buffer, flags)])

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """As `socket.recv_into`."""
        if flags or not self._streaming:
            if flags & _WAITALL and self._streaming and self._patience != 0.0 and not flags & (_DONTWAIT | _PEEK):
                return self._recv_all(memoryview(buffer).cast("B")[: nbytes or None], flags)
            return self._until_done(True, flags, _recv_into, buffer, nbytes, flags)  # type: ignore[no-any-return]
        deadline = None
        registration = self._registration
        if registration is not None and registration.read.drained and self._patience != 0.0:
            deadline = self._wait(True)
        while True:
            try:
                count = _recv_into(self, buffer, nbytes)
            except BlockingIOError:
                if self._patience == 0.0:
                    raise
                deadline = self._wait(True, deadline)
                continue
            registration = self._registration
            if 0 < count < (nbytes or memoryview(buffer).nbytes):
                if registration is not None:
                    registration.read.drained = not registration.hung_up
            else:
                self._streak += 1
                if self._streak > _STREAK:
                    self._breathe()
            return count

    def _recv_all(self, buffer: Buffer, flags: int) -> int:
        """Fill `buffer`, as MSG_WAITALL asks; the kernel does so for blocking fds only. Less at the end of the stream."""
        view = memoryview(buffer)
        done, deadline = 0, None
        while done < len(view):
            try:
                count = _recv_into(self, view[done:], 0, flags & ~_WAITALL)
            except BlockingIOError:
                deadline = self._wait(True, deadline)
                continue
            if count == 0:
                break
            done += count
        return done

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As `socket.recvfrom`."""
        return self._until_done(True, flags, _recvfrom, bufsize, flags)  # type: ignore[no-any-return]

    def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As `socket.recvfrom_into`."""
        return self._until_done(True, flags, _recvfrom_into, buffer, nbytes, flags)  # type: ignore[no-any-return]

    if hasattr(_base, "recvmsg"):

        def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
            """As `socket.recvmsg`."""
            return self._until_done(True, flags, _base.recvmsg, bufsize, ancbufsize, flags)

        def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> Any:
            """As `socket.recvmsg_into`."""
            buffers = list(buffers)  # an iterator would be used up by the first try
            return self._until_done(True, flags, _base.recvmsg_into, buffers, ancbufsize, flags)

        def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
            """As `socket.sendmsg`."""
            args = list(buffers), list(ancdata), flags, resolve(_family(self), address)
            return self._until_done(False, flags, _base.sendmsg, *args)  # type: ignore[no-any-return]

    # -- writing ---------------------------------------------------------------------------------------------------

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """As `socket.send`: returns how many bytes the kernel took, at least one."""
        try:
            count = _send(self, data, flags)
        except BlockingIOError:
            if self._patience == 0.0 or flags & _DONTWAIT:
                raise
        else:
            self._streak += 1
            if self._streak > _STREAK:
                self._breathe()
            return count
        deadline = self._wait(False)
        while True:
            try:
                return _send(self, data, flags)
            except BlockingIOError:
                deadline = self._wait(False, deadline)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """As `socket.sendall`; the timeout is one for all of `data`."""
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        try:
            sent = _send(self, data, flags)
        except BlockingIOError:
            if self._patience == 0.0 or flags & _DONTWAIT:
                raise
            sent = 0
        if sent >= size:
            self._streak += 1
            if self._streak > _STREAK:
                self._breathe()
            return
        view = memoryview(data).cast("B")
        deadline = None
        while sent < size:
            try:
                sent += _send(self, view[sent:], flags)
            except BlockingIOError:
                if self._patience == 0.0 or flags & _DONTWAIT:
                    raise
                deadline = self._wait(False, deadline)

    def sendto(self, data: Buffer, *rest: Any) -> int:  # type: ignore[override]
        """As `socket.sendto(data, address)` and `socket.sendto(data, flags, address)`."""
        flags = rest[0] if len(rest) > 1 and isinstance(rest[0], int) else 0
        if rest:
            rest = (*rest[:-1], resolve(_family(self), rest[-1]))
        return self._until_done(False, flags, _sendto, data, *rest)  # type: ignore[no-any-return]

    def sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> int:
        """As `socket.sendfile`: by os.sendfile where that works, else by reading and sending. Returns the bytes sent."""
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]
        if self._patience == 0.0:
            raise ValueError("non-blocking sockets are not supported")
        try:
            source = file.fileno()
            usable = hasattr(os, "sendfile") and os.fstat(source).st_size > 0
        except (AttributeError, io.UnsupportedOperation, OSError):
            usable = False
        sent = self._sendfile(file, source, offset, count) if usable else None
        if sent is None:
            return self._sendfile_use_send(file, offset, count)  # type: ignore[attr-defined, no-any-return]
        return sent

    def _sendfile(self, file: IO[bytes], source: int, offset: int, count: int | None) -> int | None:
        """Send by os.sendfile; return None if it can't send this file at all."""
        sent, deadline = 0, None
        try:
            while count is None or sent < count:
                most = _SENDFILE_MOST if count is None else min(count - sent, _SENDFILE_MOST)
                try:
                    step = os.sendfile(self.fileno(), source, offset + sent, most)
                except BlockingIOError:
                    deadline = self._wait(False, deadline)
                    continue
                except OSError as error:
                    if sent == 0 and error.errno in (errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK):
                        return None
                    raise
                if step == 0:
                    break
                sent += step
                self._streak += 1
                if self._streak > _STREAK:
                    self._breathe()
        finally:
            if sent and hasattr(file, "seek"):
                file.seek(offset + sent)
        return sent

    # -- connecting ------------------------------------------------------------------------------------------------

    def accept(self) -> tuple[Socket, Any]:
        """As `socket.accept`; the connection is a cooperative socket too."""
        fd, address = self._until_done(True, 0, _accept)
        connection = Socket(_family(self), _type(self), _proto(self), fileno=fd)
        self._streak += 1
        if self._streak > _STREAK:
            self._breathe()
        return connection, address

    def connect(self, address: Any) -> None:
        """As `socket.connect`; a host name is looked up in an OS thread."""
        error = self._connect(address)
        if error:
            raise OSError(error, os.strerror(error))

    def connect_ex(self, address: Any) -> int:
        """As `socket.connect_ex`: return 0, or the errno instead of raising."""
        try:
            return self._connect(address)
        except TimeoutError:
            return errno.EWOULDBLOCK

    def _connect(self, address: Any) -> int:
        address = resolve(_family(self), address)
        if self._registration is not None:
            self._registration.hung_up = False  # an unconnected socket counts as hung up
        error = _connect_ex(self, address)
        if error not in _IN_PROGRESS or self._patience == 0.0:
            return error
        if error == errno.EAGAIN and _family(self) == getattr(socket, "AF_UNIX", None):
            return self._connect_unix(address)
        deadline = None
        while True:
            deadline = self._wait(False, deadline)
            error = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                return error
            try:
                self.getpeername()
            except OSError as cause:
                if cause.errno != errno.ENOTCONN:
                    raise
            else:
                return 0

    def _connect_unix(self, address: Any) -> int:
        """Try again until the listener's backlog has room: for that, and only that, the kernel makes no event."""
        hub = get_hub()
        deadline = None if self._patience is None else hub.clock() + self._patience
        pause, longest = _UNIX_RETRY
        while True:
            error = _connect_ex(self, address)
            if error != errno.EAGAIN:
                return error
            if deadline is not None and hub.clock() >= deadline:
                raise TimeoutError("timed out")
            hub.wait(Waiter(hub, "connect", address), pause if deadline is None else min(pause, max(0.0, deadline - hub.clock())))
            pause = min(pause * 2, longest)

    def bind(self, address: Any) -> None:
        """As `socket.bind`; a host name is looked up in an OS thread."""
        super().bind(resolve(_family(self), address))

    # -- timeouts, and the end -------------------------------------------------------------------------------------

    def settimeout(self, value: float | None) -> None:
        """As `socket.settimeout`: seconds, None to wait for ever, 0 never to wait."""
        try:
            _settimeout(self, value)  # the standard library's checks and messages
            self._patience = _base.gettimeout(self)
        finally:
            _settimeout(self, 0.0)

    def gettimeout(self) -> float | None:
        """As `socket.gettimeout`."""
        return self._patience

    @property
    def timeout(self) -> float | None:  # type: ignore[override]
        """The timeout in seconds; None waits for ever, 0.0 never waits."""
        return self._patience

    def setblocking(self, flag: bool) -> None:
        """As `socket.setblocking`: True is `settimeout(None)`, False is `settimeout(0)`."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """As `socket.getblocking`."""
        return self._patience != 0.0

    def detach(self) -> int:
        """As `socket.detach`; whoever waits gets OSError(EBADF). The fd blocks again if the socket did."""
        self._forget()
        if self.fileno() >= 0:
            _settimeout(self, self._patience)
        return super().detach()

    def _real_close(self, *args: Any) -> None:
        self._forget()
        super()._real_close(*args)  # type: ignore[misc]


def socketpair(family: int | None = None, type: int = socket.SOCK_STREAM, proto: int = 0) -> tuple[Socket, Socket]:
    """Return two connected cooperative sockets, as `socket.socketpair`."""
    return _ours(*socket.socketpair(family, type, proto))


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> Socket:
    """Return a cooperative socket over a duplicate of `fd`, as `socket.fromfd`. The file description is shared."""
    (made,) = _ours(socket.fromfd(fd, family, type, proto))
    return made


def create_server(address: Any, **options: Any) -> Socket:
    """Return a cooperative listener, as `socket.create_server` (family, backlog, reuse_port, dualstack_ipv6)."""
    address = resolve(options.get("family", socket.AF_INET), address)
    (made,) = _ours(socket.create_server(address, **options))
    return made


def _ours(*sockets: socket.socket) -> tuple[Any, ...]:
    return tuple(Socket(one.family, one.type, one.proto, fileno=one.detach()) for one in sockets)


def create_connection(
    address: tuple[str | None, int],
    timeout: float | None = _UNSET,
    source_address: Any = None,
    *,
    all_errors: bool = False,
) -> Socket:
    """Connect to `address`, trying each one that the host name has, as `socket.create_connection`.

    `timeout` (seconds) is set on the socket before connecting. Raises the last error, or with `all_errors` an ExceptionGroup.
    """
    host, port = address
    errors: list[OSError] = []
    for family, kind, proto, _, target in getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        made = None
        try:
            made = Socket(family, kind, proto)
            if timeout is not _UNSET:
                made.settimeout(timeout)
            if source_address:
                made.bind(source_address)
            made.connect(target)
            return made
        except OSError as error:
            errors.append(error)
            if made is not None:
                made.close()
        except BaseException:  # killed while connecting
            if made is not None:
                made.close()
            raise
    if not errors:
        raise OSError("getaddrinfo returns an empty list")
    try:
        if all_errors:
            raise ExceptionGroup("create_connection failed", errors)
        raise errors[-1]
    finally:
        errors.clear()  # the traceback would keep itself alive
