"""Cooperative TLS: the standard library's `SSLSocket` over a socket of ours; the cryptography stays OpenSSL's.

OpenSSL never blocks here, because the fd doesn't: it says that it wants to read or to write, then the task parks until
that is worth a try. Only then: what OpenSSL holds decrypted, no poller knows of.

A reader may want to write (to answer a key update) and a writer to read, so the two directions of the fd can't simply
belong to one reader and one writer, as they do in `Socket`. Whoever finds that another operation of the same TLS
connection waits for the direction that it wants, stands behind that one and tries again after it. And since any
operation may take in, or send off, what another one waited for, each that ends has those try again who wait for an
unusual direction, or behind somebody.

Several tasks may read from one connection, and several may write: first come, first served. A write begins when the
one before it has ended, because OpenSSL wants each write finished before the next.

Knows `Socket`, locks and the standard library's `ssl`. Knows no task. Never replaces `ssl.SSLContext`: a context makes
sockets of its `sslsocket_class`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

from greenswitch.hub import TIMED_OUT, Direction, Hub, OutsideWaiter, Waiter, closed_error, get_hub
from greenswitch.locks import Lock
from greenswitch.sockets import CAP, STREAK, Socket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class _Plain:
    """Makes the socket beneath: `SSLSocket` refuses to be made but by `wrap_socket`, which calls what comes after it.

    Under monkey patching `ssl.SSLSocket` names ours, and what comes after that is this.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        Socket.__init__(self, *args, **kwargs)  # type: ignore[arg-type]


class TLSSocket(_Plain, ssl.SSLSocket, Socket):  # type: ignore[misc]
    """An `ssl.SSLSocket` whose handshake, reads and writes park the task that makes them; all others go on.

    `wrap_socket` of a context with this as `sslsocket_class` makes it, of a `Socket` or of any `socket.socket`, which
    it takes over, as the original does. Signatures, results and errors are the standard library's; on top come those
    that `Socket` names. An SNI callback runs inside OpenSSL, and must not wait.
    """

    _may_block = False  # OpenSSL has no flag for a single call
    _queues = True

    _sslobj: Any
    _connected: bool
    _check_connected: Callable[[], None]
    do_handshake_on_connect: bool
    suppress_ragged_eofs: bool
    _writing: Lock
    """Held while a task writes."""
    _others: list[Waiter]
    """Who waits for an unusual direction, and who stands behind somebody."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{type(self).__name__} has no public constructor: SSLContext.wrap_socket() makes one")

    @classmethod
    def _create(
        cls, sock: Any, server_side: bool = False, do_handshake_on_connect: bool = True, *args: Any, **kwargs: Any
    ) -> Self:
        """Take over the fd of `sock`; `SSLContext.wrap_socket` calls it."""
        # The handshake is made here: before 3.13 the original leaves the socket open if the task is killed meanwhile.
        create: Callable[..., Self] = super()._create  # type: ignore[misc]
        made = create(sock, server_side, False, *args, **kwargs)
        made._others = []
        made._writing = Lock()
        made.do_handshake_on_connect = do_handshake_on_connect
        if do_handshake_on_connect and made._connected:
            try:
                if made._patience == 0.0:
                    raise ValueError("do_handshake_on_connect should not be specified for non-blocking sockets")
                made.do_handshake()
            except BaseException:
                made.close()
                raise
        return made

    # -- the operations --------------------------------------------------------------------------------------------

    def do_handshake(self, block: bool = False) -> None:
        """As `SSLSocket.do_handshake`; with `block`, a non-blocking socket waits too, without limit."""
        self._check_connected()
        self._attempt("handshake", self._sslobj.do_handshake, block=block)

    def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> Any:
        """As `SSLSocket.read`: return at most `len` bytes, or read them into `buffer` and return how many."""
        if self._sslobj is None:
            raise ValueError("Read on closed or unwrapped SSL socket.")
        try:
            if buffer is not None:
                return self._attempt("read", self._sslobj.read, len, buffer)
            return self._attempt("read", self._sslobj.read, min(len, CAP))
        except ssl.SSLError as error:
            if error.args[0] != ssl.SSL_ERROR_EOF or not self.suppress_ragged_eofs:
                raise
        return b"" if buffer is None else 0

    def write(self, data: ReadableBuffer) -> int:
        """As `SSLSocket.write`: send all of `data`; return its size in bytes."""
        if self._sslobj is None:
            raise ValueError("Write on closed or unwrapped SSL socket.")
        self._begin_to_write()
        try:
            return self._attempt("write", self._sslobj.write, data)  # type: ignore[no-any-return]
        finally:
            self._writing.release()

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """As `SSLSocket.send`."""
        if self._sslobj is None or flags:
            return super().send(data, flags)  # plain, or refused
        return self.write(data)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """As `SSLSocket.sendall`; the timeout is one for all of `data`."""
        if self._sslobj is None or flags:
            return super().sendall(data, flags)
        deadline = self._deadline()
        self._begin_to_write()
        try:
            write = self._sslobj.write
            # In pieces: OpenSSL would encrypt all of it before anybody else has a turn, if the peer is quick.
            with memoryview(data) as view, view.cast("B") as octets:
                for start in range(0, len(octets), CAP):
                    self._attempt("write", write, octets[start : start + CAP], deadline=deadline)
        finally:
            self._writing.release()
        return None

    def _begin_to_write(self) -> None:
        if self._writing.acquire(False):
            return
        if self._patience == 0.0:
            raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "The operation did not complete: another task writes")
        if not self._writing.acquire(timeout=-1 if self._patience is None else self._patience):
            raise TimeoutError("The write operation timed out")
        if self._sslobj is None:
            self._writing.release()
            raise closed_error()

    def unwrap(self) -> Any:
        """As `SSLSocket.unwrap`: end TLS, waiting for the peer's word that it does; return the plain socket."""
        if not self._sslobj:
            raise ValueError(f"No SSL wrapper around {self}")
        plain = self._attempt("shutdown", self._sslobj.shutdown)
        self._sslobj = None
        return plain

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _attempt(
        self, what: str, operation: Callable[..., Any], *args: Any, deadline: float | None = None, block: bool = False
    ) -> Any:
        """Return `operation(*args)`, an operation of OpenSSL's, trying again whenever it may have what it wants."""
        if self._streak > STREAK:
            self._breathe()
        while True:
            try:
                done = operation(*args)
            except ssl.SSLWantReadError:
                if self._patience == 0.0 and not block:
                    raise
                reading = True
            except ssl.SSLWantWriteError:
                if self._patience == 0.0 and not block:
                    raise
                reading = False
            else:
                self._streak += 1
                if self._others:
                    self._have_others_try(self._others)
                return done
            if deadline is None:
                deadline = self._deadline()
            self._wait_for(what, reading, deadline)

    def _deadline(self) -> float | None:
        return get_hub().clock() + self._patience if self._patience else None

    def _wait_for(self, what: str, reading: bool, deadline: float | None) -> None:
        """Park until what (a read, a write, …) is worth a try, which wants to read or to write."""
        hub = get_hub()
        registration = self._registration
        if registration is None or registration.hub is not hub:
            registration = self._register(hub)
        direction = registration.read if reading else registration.write
        self._streak = 0
        usual = what == direction.verb
        try:
            if usual and direction not in self._others:
                self._wait_first(direction, deadline)  # refused if another one waits for the same: two readers
            elif direction.holder is None:
                self._among_others(direction, self._wait_first, direction, deadline)
            else:
                waiter = OutsideWaiter(hub, what, registration)
                self._among_others(waiter, self._wait_behind, hub, waiter, deadline)
        except TimeoutError:
            if deadline is None or hub.clock() < deadline:
                raise  # not ours: somebody has thrown it in
            raise TimeoutError(f"The {what} operation timed out") from None

    def _among_others(self, waiter: Waiter, wait: Callable[..., None], *args: Any) -> None:
        self._others.append(waiter)
        try:
            wait(*args)
        finally:
            self._others.remove(waiter)

    def _wait_first(self, direction: Direction, deadline: float | None) -> None:
        try:
            direction.wait(deadline)
        finally:
            # Not those that stand first elsewhere: two that do would wake each other in turn, for ever.
            self._have_others_try([one for one in self._others if not isinstance(one, Direction)])

    @staticmethod
    def _have_others_try(waiters: Iterable[Waiter]) -> None:
        for waiter in tuple(waiters):
            waiter.wake()

    def _wait_behind(self, hub: Hub, waiter: Waiter, deadline: float | None) -> None:
        if hub.wait(waiter, None if deadline is None else deadline - hub.clock()) is TIMED_OUT:
            raise TimeoutError("timed out")
        if self.fileno() < 0:
            raise closed_error()
