"""The twin of the standard library's `socket`: the same names, with ours where the original would block the thread.

`from greenswitch.green import socket` in place of `import socket` is all that a program written for blocking sockets
needs. Whatever is not replaced here (constants, errors, `inet_aton`, `setdefaulttimeout`, …) is the original's own.

Knows `greenswitch.sockets`, name look-up and the standard library's `socket`. Knows no task.
"""

from __future__ import annotations

import socket as original
import sys

from greenswitch.green import rest_of
from greenswitch.names import getaddrinfo, getfqdn, gethostbyaddr, gethostbyname, gethostbyname_ex, getnameinfo
from greenswitch.sockets import Socket, create_connection, create_server, fromfd, socketpair

socket = Socket
SocketType = Socket

if sys.platform == "win32":

    def fromshare(info: bytes) -> Socket:
        """Return a cooperative socket of what `share` has packed, as `socket.fromshare`."""
        shared = original.fromshare(info)
        return Socket(shared.family, shared.type, shared.proto, fileno=shared.detach())


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
