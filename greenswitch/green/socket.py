"""The twin of the standard library's `socket`: the same names, with ours where the original would block the thread.

`from greenswitch.green import socket` in place of `import socket` is all that a program written for blocking sockets
needs. Whatever is not replaced here (constants, errors, `inet_aton`, `setdefaulttimeout`, …) is the original's own.

Knows `greenswitch.sockets`, name look-up and the standard library's `socket`. Knows no task.
"""

from __future__ import annotations

import socket as original
import sys
from typing import Any

from greenswitch import sockets
from greenswitch.copies import run_over
from greenswitch.green import rest_of
from greenswitch.names import getaddrinfo, getfqdn, gethostbyaddr, gethostbyname, gethostbyname_ex, getnameinfo
from greenswitch.sockets import Socket


class socket(Socket):
    """`greenswitch.sockets.Socket`, of which several tasks may wait for the same: first come, first served.

    As with threads: a pool that accepts, workers on one UDP port, two senders.
    """

    __slots__ = ()

    _queues = True


socket._plain = SocketType = socket
_names = {**vars(sockets), "Socket": socket}


def _with_ours(function: Any) -> Any:
    """Return a function of `greenswitch.sockets`, but that it makes sockets of this module."""
    ours = _names[function.__name__] = run_over(function, _names)
    return ours


_with_ours(sockets._ours)
create_connection: Any = _with_ours(sockets.create_connection)
create_server: Any = _with_ours(sockets.create_server)
fromfd: Any = _with_ours(sockets.fromfd)
socketpair: Any = _with_ours(sockets.socketpair)

if sys.platform == "win32":

    def fromshare(info: bytes) -> socket:
        """Return a cooperative socket of what `share` has packed, as `socket.fromshare`."""
        shared = original.fromshare(info)
        return socket(shared.family, shared.type, shared.proto, fileno=shared.detach())


REPLACED = tuple(
    "fromfd getaddrinfo gethostbyaddr gethostbyname gethostbyname_ex getnameinfo socket socketpair".split()
    + (["fromshare"] if sys.platform == "win32" else [])
)
"""What monkey patching puts in the original's place: the original's other functions stand on these, and so become
cooperative, also for those who have them already, and honour what others put in the place of `socket.socket`."""

# Ours first, for those who read and check types; then whatever else this Python's original lists.
__all__ = [
    "SocketType",
    "create_connection",
    "create_server",
    "fromfd",
    "getaddrinfo",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "socket",
    "socketpair",
]
__all__ += [name for name in original.__all__ if name not in __all__]

__getattr__, __dir__ = rest_of(original, globals())
