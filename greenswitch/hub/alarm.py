"""Getting a sleeping hub out of its poller, from any thread or signal handler.

Knows file descriptors and a poller. An eventfd where the platform has one (Linux), else a socket pair.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from socket import socket, socketpair  # the originals, also after monkey patching

from greenswitch.hub.pollers import READ, Poller


class Alarm:
    """An fd that the poller watches and that `ring` makes readable.

    `lost()` is called if the poller reports the fd although it is closed: the program has closed all descriptors. A
    poller over poll or select does not fail then, as epoll does.
    """

    def __init__(self, poller: Poller, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._pair: tuple[socket, socket] | None = None
        if hasattr(os, "eventfd"):
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self._pair = socketpair()
            for end in self._pair:
                end.setblocking(False)
            self.fd = self._pair[0].fileno()
        poller.arm(self.fd, READ)

    def ring(self) -> None:
        """Wake the poller, now or at its next poll; ringing more than once is ringing once. Any thread."""
        # BlockingIOError: it rings already. Other OSErrors: closed in the meantime, nobody sleeps there any more.
        with suppress(OSError):
            if self._pair is None:
                os.eventfd_write(self.fd, 1)
            else:
                self._pair[1].send(b"!")

    def notify(self, events: int) -> None:
        """Fall silent: the poller has reported the ring."""
        try:
            if self._pair is None:
                os.eventfd_read(self.fd)
            else:
                self._pair[0].recv(4096)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno == errno.EBADF and self.fd >= 0:
                self._lost()

    def forsake(self) -> None:
        """Nothing to do: nobody waits for an alarm."""

    def close(self) -> None:
        """Close what it opened. Closing twice does nothing."""
        if self.fd < 0:
            return
        if self._pair is None:
            os.close(self.fd)
        else:
            for end in self._pair:
                end.close()
        self.fd = -1
