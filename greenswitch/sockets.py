"""Cooperative sockets: the standard library's, whose every call that would block parks the task instead.

The file descriptor has the mode that the user asks for by `settimeout`, as the original's; each call says by a flag
that it must not block. There is no such flag for `accept` and for TLS: a listener that has accepted, and a TLS socket,
never block. Every call tries the system call and waits only when that would block, with one exception: a read that
returned less than was asked for has emptied a TCP stream, so the next read parks at once and saves the failing call.
Whatever changes on the fd ends that knowledge (see `Registration.notify`). It may be had of TCP only: a read of a UNIX
stream also stops where file descriptors or credentials were passed along.

Knows readiness (`greenswitch.hub`) and name look-up. Knows no task.
"""

from __future__ import annotations

import _socket
import errno
import io
import os
import socket
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, ClassVar, Self

from greenlet import getcurrent

from greenswitch.copies import Namespace, run_over
from greenswitch.errors import HubError
from greenswitch.files import BufferedReader, BufferedRWPair, BufferedWriter
from greenswitch.hub import Hub, Registration, Waiter, get_hub, has_hub, register, step_aside
from greenswitch.names import getaddrinfo, resolve

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

CAP = 65_536  # bytes read at once from a stream: a larger buffer costs its allocation at every small message
STREAK = 64  # operations in a row that never had to wait, after which a task lets others go first
_SENDFILE_MOST = 1 << 30
_UNIX_RETRY = 0.001, 0.05  # seconds between tries to reach a UNIX socket whose queue is full: first, longest
_IN_PROGRESS = {errno.EINPROGRESS, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS)}

# The C methods themselves: a method call through super() costs more than some of the system calls.
_base = _socket.socket
_recv, _recv_into, _send = _base.recv, _base.recv_into, _base.send
_recvfrom, _recvfrom_into, _sendto = _base.recvfrom, _base.recvfrom_into, _base.sendto
_settimeout, _gettimeout, _connect_ex = _base.settimeout, _base.gettimeout, _base.connect_ex
_accept: Callable[[Any], tuple[int, Any]] = _base._accept  # type: ignore[attr-defined]
_create_server, _socketpair = socket.create_server, socket.socketpair  # monkey patching puts ours in their place
_family, _type, _proto = (vars(_base)[name].__get__ for name in ("family", "type", "proto"))

_DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))  # an int: the operators of an enumeration take a microsecond
_WAITALL = getattr(socket, "MSG_WAITALL", 0)
_PEEK = socket.MSG_PEEK
_INTERNET = socket.AF_INET, socket.AF_INET6
_UNIX = getattr(socket, "AF_UNIX", None)
_UNSET: Any = socket._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]  # http.client passes it


_BUFFERS = {kind.__name__: kind for kind in (BufferedReader, BufferedWriter, BufferedRWPair)}


class Socket(socket.socket):
    """A `socket.socket` whose blocking calls park the task that makes them; all others go on.

    Signatures, results and errors are the standard library's. On top: BusyError for a second task that wants to wait
    for the same direction; OSError(EBADF) for whoever waits while it is closed; HubError for a call that would have
    to wait inside the hub. It may be used from several threads. The descriptor has the mode that the original's would
    have: it blocks unless a timeout is set. A `connect` and a `sendfile` change that for a moment, an `accept` for
    good.
    """

    __slots__ = ("_elsewhere", "_patience", "_registration", "_shared", "_streak", "_streaming")

    _may_block: ClassVar[bool] = bool(_DONTWAIT)
    """Whether each call can say that it must not block, so that the descriptor may."""
    _queues: ClassVar[bool] = False
    _plain: ClassVar[type[Socket]]
    """The class of the sockets that this one accepts."""

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        self._registration: Registration | None = None
        self._elsewhere: tuple[Registration, ...] = ()
        self._shared = False  # True: a dup() of ours has the same file description
        self._streak = 0
        super().__init__(family, type, proto, fileno)
        self._patience: float | None = _base.gettimeout(self)  # the default's, or 0.0 of SOCK_NONBLOCK
        if self._patience is not None or not self._may_block:
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
        self._registration = registration = register(hub, self.fileno())
        registration.unsure = _family(self) not in _INTERNET
        registration.queues = self._queues
        if known is not None and known.hub is not None:
            self._elsewhere = (*(one for one in self._elsewhere if one.hub not in (None, hub)), known)
        return registration

    def _until_done(self, reading: bool, flags: int, operation: Callable[..., Any], *args: Any) -> Any:
        """Return `operation(self, *args)`, trying again whenever the socket is ready."""
        if self._streak > STREAK and not flags & _DONTWAIT:
            self._breathe()
        deadline = None
        while True:
            try:
                done = operation(self, *args)
            except BlockingIOError:
                if self._patience == 0.0 or flags & _DONTWAIT:
                    raise
            else:
                self._streak += 1
                return done
            deadline = self._wait(reading, deadline)

    def _breathe(self) -> None:
        """Let others go first, after many operations that had not to wait; unless this must not switch.

        Only before an operation: whoever is killed here would lose what the kernel has handed over.
        """
        self._streak = 0
        if self._patience != 0.0:
            hub = get_hub()
            if getcurrent() is not hub.greenlet:
                step_aside()

    def _forget(self) -> None:
        """Wake whoever waits: this fd is about to close, or to be somebody else's."""
        registration, self._registration = self._registration, None
        elsewhere, self._elsewhere = self._elsewhere, ()
        for one in (registration, *elsewhere):
            if one is not None:
                one.close()
        if has_hub():
            foreign = get_hub().registrations.get(self.fileno())
            if isinstance(foreign, Registration):  # somebody waits for the bare fd
                foreign.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As `socket.recv`; from a stream at most 64 KiB at once."""
        if flags or not self._streaming:
            return self._recv_with(bufsize, flags)
        if bufsize > CAP:
            bufsize = CAP
        if self._streak > STREAK:
            self._breathe()
        deadline = None
        registration = self._registration
        if registration is not None and registration.read.drained and bufsize > 0 and self._patience != 0.0:
            try:
                deadline = self._wait(True)
            except HubError:  # inside the hub, which may not have been told yet of what is there
                pass
        while True:
            registration = self._registration
            if registration is not None:
                registration.read.drained = None
            try:
                data = _recv(self, bufsize, _DONTWAIT)
            except BlockingIOError:
                if self._patience == 0.0:
                    raise
                deadline = self._wait(True, deadline)
                continue
            self._streak += 1
            if 0 < len(data) < bufsize and registration is not None and registration.read.drained is None:
                registration.read.drained = not registration.unsure
            return data

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """As `socket.recv_into`."""
        if flags or not self._streaming:
            return self._recv_into_with(buffer, nbytes, flags)
        if self._streak > STREAK:
            self._breathe()
        room = memoryview(buffer).nbytes
        wanted = nbytes or room
        deadline = None
        registration = self._registration
        if registration is not None and registration.read.drained and 0 < wanted <= room and self._patience != 0.0:
            try:
                deadline = self._wait(True)
            except HubError:
                pass
        while True:
            registration = self._registration
            if registration is not None:
                registration.read.drained = None
            try:
                count = _recv_into(self, buffer, nbytes, _DONTWAIT)
            except BlockingIOError:
                if self._patience == 0.0:
                    raise
                deadline = self._wait(True, deadline)
                continue
            self._streak += 1
            if 0 < count < wanted and registration is not None and registration.read.drained is None:
                registration.read.drained = not registration.unsure
            return count

    def _recv_with(self, bufsize: int, flags: int) -> bytes:
        if bufsize <= 0 or not self._waits_for_all(flags):
            return self._until_done(True, flags, _recv, bufsize, flags | _DONTWAIT)  # type: ignore[no-any-return]
        buffer = bytearray(bufsize)
        return bytes(buffer[: self._recv_all(memoryview(buffer), flags)])

    def _recv_into_with(self, buffer: WriteableBuffer, nbytes: int, flags: int) -> int:
        if not (self._waits_for_all(flags) and 0 <= nbytes <= memoryview(buffer).nbytes):
            return self._until_done(True, flags, _recv_into, buffer, nbytes, flags | _DONTWAIT)  # type: ignore[no-any-return]
        return self._recv_all(memoryview(buffer).cast("B")[: nbytes or None], flags)

    def _waits_for_all(self, flags: int) -> bool:
        return bool(flags & _WAITALL and self._streaming and self._patience != 0.0 and not flags & (_DONTWAIT | _PEEK))

    def _recv_all(self, view: memoryview, flags: int) -> int:
        """Fill `view`, as MSG_WAITALL asks; the kernel does so for blocking fds only.

        As in the kernel, it is less at the end of the stream, and at a timeout if anything has come until then.
        """
        done, deadline = 0, None
        while done < len(view):
            if self._streak > STREAK:
                self._breathe()
            try:
                count = _recv_into(self, view[done:], 0, flags & ~_WAITALL | _DONTWAIT)
            except BlockingIOError:
                try:
                    deadline = self._wait(True, deadline)
                except TimeoutError:
                    if done:
                        break
                    raise
                continue
            if count == 0:
                break
            self._streak += 1
            done += count
        return done

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As `socket.recvfrom`."""
        return self._until_done(True, flags, _recvfrom, bufsize, flags | _DONTWAIT)  # type: ignore[no-any-return]

    def recvfrom_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As `socket.recvfrom_into`."""
        return self._until_done(True, flags, _recvfrom_into, buffer, nbytes, flags | _DONTWAIT)  # type: ignore[no-any-return]

    if hasattr(_base, "recvmsg"):

        def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
            """As `socket.recvmsg`."""
            return self._until_done(True, flags, _base.recvmsg, bufsize, ancbufsize, flags | _DONTWAIT)

        def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> Any:
            """As `socket.recvmsg_into`."""
            buffers = list(buffers)  # an iterator would be used up by the first try
            return self._until_done(True, flags, _base.recvmsg_into, buffers, ancbufsize, flags | _DONTWAIT)

        def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
            """As `socket.sendmsg`."""
            address = resolve(_family(self), address)
            args = list(buffers), list(ancdata), flags | _DONTWAIT, address
            return self._until_sent(address, flags, _base.sendmsg, *args)  # type: ignore[no-any-return]

    # -- writing ---------------------------------------------------------------------------------------------------

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """As `socket.send`: returns how many bytes the kernel took, at least one."""
        if self._streak > STREAK and not flags & _DONTWAIT:
            self._breathe()
        try:
            count = _send(self, data, flags | _DONTWAIT)
        except BlockingIOError:
            if self._patience == 0.0 or flags & _DONTWAIT:
                raise
        else:
            self._streak += 1
            return count
        deadline = self._wait(False)
        while True:
            try:
                return _send(self, data, flags | _DONTWAIT)
            except BlockingIOError:
                deadline = self._wait(False, deadline)

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """As `socket.sendall`; the timeout is one for all of `data`."""
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        if self._streak > STREAK and not flags & _DONTWAIT:
            self._breathe()
        try:
            sent = _send(self, data, flags | _DONTWAIT)
        except BlockingIOError:
            if self._patience == 0.0 or flags & _DONTWAIT:
                raise
            sent = 0
        self._streak += 1
        if sent >= size:
            return
        view = memoryview(data).cast("B")
        deadline = None
        while sent < size:
            try:
                sent += _send(self, view[sent:], flags | _DONTWAIT)
            except BlockingIOError:
                if self._patience == 0.0 or flags & _DONTWAIT:
                    raise
                deadline = self._wait(False, deadline)
            else:
                self._streak += 1
                if self._streak > STREAK and sent < size:
                    self._breathe()

    def sendto(self, data: ReadableBuffer, *rest: Any) -> int:
        """As `socket.sendto(data, address)` and `socket.sendto(data, flags, address)`."""
        flags = rest[0] if len(rest) > 1 and isinstance(rest[0], int) else 0
        address = resolve(_family(self), rest[-1]) if rest else None
        wrong = len(rest) != 1 and not (len(rest) == 2 and isinstance(rest[0], int))
        args = (data, *rest) if wrong else (data, flags | _DONTWAIT, address)  # the original says what is wrong
        return self._until_sent(address, flags, _sendto, *args)  # type: ignore[no-any-return]

    def _until_sent(self, address: Any, flags: int, operation: Callable[..., Any], *args: Any) -> Any:
        """Return `operation(self, *args)`, which sends to `address` if that is given, trying again until that works."""
        named = address is not None and _family(self) == _UNIX and _type(self) == socket.SOCK_DGRAM
        if not named or self._patience == 0.0 or flags & _DONTWAIT:
            return self._until_done(False, flags, operation, *args)
        return self._retry_unix("send to", address, operation, *args)

    def _retry_unix(self, verb: str, address: Any, operation: Callable[..., Any], *args: Any) -> Any:
        """Return `operation(self, *args)`, trying again until the queue at `address` has room.

        For a listener's backlog, and for datagrams to whom we aren't connected to, the kernel makes no event of that.
        """
        hub = get_hub()
        deadline = None if self._patience is None else hub.clock() + self._patience
        pause, longest = _UNIX_RETRY
        while True:
            try:
                return operation(self, *args)
            except BlockingIOError:
                left = longest if deadline is None else deadline - hub.clock()
            if left <= 0:
                raise TimeoutError("timed out")
            hub.wait(Waiter(hub, verb, address), min(pause, left))
            pause = min(pause * 2, longest)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """As `socket.sendfile`: by os.sendfile where that works, else by reading and sending. Return the bytes sent.

        The timeout is one for each wait.
        """
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
        sent = 0
        try:
            while count is None or sent < count:
                most = _SENDFILE_MOST if count is None else min(count - sent, _SENDFILE_MOST)
                try:
                    step = self._sendfile_at_once(source, offset + sent, most)
                except BlockingIOError:
                    self._wait(False)
                    continue
                except OSError as error:
                    if sent == 0 and error.errno in (errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK):
                        return None
                    raise
                if step == 0:
                    break
                sent += step
                self._streak += 1
                if self._streak > STREAK:
                    self._breathe()  # what has been sent is told by the file's position
        finally:
            if sent and hasattr(file, "seek"):
                file.seek(offset + sent)
        return sent

    def _sendfile_at_once(self, source: int, offset: int, count: int) -> int:
        if self._patience is not None:
            return os.sendfile(self.fileno(), source, offset, count)
        _settimeout(self, 0.0)
        try:
            return os.sendfile(self.fileno(), source, offset, count)
        finally:
            self._block_again()

    # The standard library's text, over buffers that several tasks may share.
    makefile: Any = run_over(socket.socket.makefile, {**vars(socket), "io": Namespace(io, _BUFFERS, {})})  # type: ignore[arg-type]

    # -- connecting ------------------------------------------------------------------------------------------------

    def accept(self) -> tuple[Socket, Any]:
        """As `socket.accept`; the connection is a cooperative socket too."""
        fd, address = self._until_done(True, 0, _accept_at_once)
        return self._plain(_family(self), _type(self), _proto(self), fileno=_above_stdio(fd)), address

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
        except OSError as error:
            if error.errno != errno.EBADF:  # names that nobody knows do raise
                raise
            return error.errno

    def _connect(self, address: Any) -> int:
        address = resolve(_family(self), address)
        if self._registration is not None:
            self._registration.unsure = _family(self) not in _INTERNET  # until now it counted as hung up
        if self._patience is None:
            _settimeout(self, 0.0)
        try:
            return self._connect_now(address)
        finally:
            if self._patience is None:
                self._block_again()

    def _connect_now(self, address: Any) -> int:
        error = _connect_ex(self, address)
        if error == errno.EAGAIN and _family(self) == _UNIX and self._patience != 0.0:
            return self._retry_unix("connect to", address, _connect_unix, address)  # type: ignore[no-any-return]
        if error not in _IN_PROGRESS or self._patience == 0.0:
            return error
        deadline = None
        while error in _IN_PROGRESS:
            deadline = self._wait(False, deadline)
            error = self._outcome(address)
        return error

    def _outcome(self, address: Any) -> int:
        """Return what has become of a connect: 0, EINPROGRESS or an error.

        To connect again also has the kernel note that this one is over: otherwise the next connect would be told of it.
        """
        error = 0 if sys.platform == "linux" else self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        error = error or _connect_ex(self, address)  # elsewhere it would begin anew after a failure
        if error == errno.EALREADY:
            return errno.EINPROGRESS
        return 0 if error == errno.EISCONN else error

    def bind(self, address: Any) -> None:
        """As `socket.bind`; a host name is looked up in an OS thread."""
        super().bind(resolve(_family(self), address))

    def _block_again(self) -> None:
        """Give a blocking socket's descriptor back the mode that others who share it expect."""
        if self._may_block and self.fileno() >= 0:
            _settimeout(self, None)

    # -- timeouts, and the end -------------------------------------------------------------------------------------

    def settimeout(self, value: float | None) -> None:
        """As `socket.settimeout`: seconds, None to wait for ever, 0 never to wait."""
        if value is None:
            _settimeout(self, None if self._may_block else 0.0)
            self._patience = None
            return
        try:
            _settimeout(self, value)  # the standard library's checks and messages
            self._patience = _base.gettimeout(self)
        finally:
            _settimeout(self, 0.0)

    def gettimeout(self) -> float | None:
        """As `socket.gettimeout`."""
        return self._patience

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds; None waits for ever, 0.0 never waits."""
        return self._patience

    def setblocking(self, flag: bool) -> None:
        """As `socket.setblocking`: True is `settimeout(None)`, False is `settimeout(0)`."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """As `socket.getblocking`."""
        return self._patience != 0.0

    def dup(self) -> Self:
        """As `socket.dup`. The two share the file description, but neither their timeouts nor who waits."""
        twin = self.__class__(_family(self), _type(self), _proto(self), fileno=_above_stdio(_socket.dup(self.fileno())))
        twin._patience = self._patience
        twin._shared = self._shared = True
        return twin

    def detach(self) -> int:
        """As `socket.detach`; whoever waits gets OSError(EBADF).

        The fd blocks again if the socket did, unless a `dup()` of it would then block too.
        """
        self._forget()
        if self.fileno() >= 0 and not self._shared:
            try:
                _settimeout(self, self._patience)
            except OSError:  # somebody has closed the fd beneath us
                pass
        return super().detach()

    def _real_close(self, *args: Any) -> None:
        self._forget()
        super()._real_close(*args)  # type: ignore[misc]


def _accept_at_once(sock: Socket) -> tuple[int, Any]:
    """Accept a connection that is there. There is no flag for it, so the listener's descriptor must not block.

    It stays so: another process may share the listener, and would freeze if the mode changed back just before it
    accepts. Only descriptors 0 to 2 block again, because those are shared with programs that are none of ours.
    """
    if _gettimeout(sock) is None:
        _settimeout(sock, 0.0)
    try:
        return _accept(sock)
    finally:
        if sock._patience is None and sock.fileno() <= 2:
            sock._block_again()


Socket._plain = Socket


def socketpair(family: int | None = None, type: int = socket.SOCK_STREAM, proto: int = 0) -> tuple[Socket, Socket]:
    """Return two connected cooperative sockets, as `socket.socketpair`."""
    near, far = _socketpair(family, type, proto)
    return _ours(near), _ours(far)


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> Socket:
    """Return a cooperative socket over a duplicate of `fd`, as `socket.fromfd`. The file description is shared."""
    return Socket(family, type, proto, fileno=_above_stdio(_socket.dup(fd)))


def create_server(address: Any, **options: Any) -> Socket:
    """Return a cooperative listener, as `socket.create_server` (family, backlog, reuse_port, dualstack_ipv6)."""
    address = resolve(options.get("family", socket.AF_INET), address)
    return _ours(_create_server(address, **options))


def _ours(sock: socket.socket) -> Socket:
    """Return `sock`, or a cooperative socket that takes it over."""
    if isinstance(sock, Socket):  # under monkey patching the standard library's functions make those
        return sock
    return Socket(sock.family, sock.type, sock.proto, fileno=_above_stdio(sock.detach()))


def _above_stdio(fd: int) -> int:
    """Return `fd`, or a duplicate: a new socket of a process without standard streams may get one of their numbers."""
    below = []
    while fd <= 2:
        below.append(fd)
        fd = os.dup(fd)
    for one in below:
        os.close(one)
    return fd


def _connect_unix(sock: Socket, address: Any) -> int:
    error = _connect_ex(sock, address)
    if error == errno.EAGAIN:
        raise BlockingIOError(error, os.strerror(error))
    return error


def create_connection(
    address: tuple[str | None, int],
    timeout: float | None = _UNSET,
    source_address: Any = None,
    *,
    all_errors: bool = False,
) -> Socket:
    """Connect to `address`, trying each one that the host name has, as `socket.create_connection`.

    `timeout` (seconds) is set on the socket before connecting. Raises the last error, or with `all_errors` an
    ExceptionGroup.
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
