"""The twin of the standard library's `ssl`: the same names, with a context whose sockets park the task that waits.

`from greenswitch.green import ssl` in place of `import ssl`. Its `SSLContext` is a subclass of the original's that
differs in one attribute, `sslsocket_class`; monkey patching sets that attribute on the original and replaces no
context. A socket of ours that an original, unpatched context wraps becomes an original, blocking `SSLSocket`; any
`socket.socket` that a context of this module's wraps becomes a cooperative one. `SSLObject` (TLS over memory, without
a socket) never waits, and is the original.

Knows `greenswitch.tls` and the standard library's `ssl`. Knows no task.
"""

from __future__ import annotations

import ssl as original
from collections.abc import Callable
from typing import Any

from greenswitch.copies import run_over
from greenswitch.green import rest_of
from greenswitch.green.socket import create_connection, socket
from greenswitch.tls import TLSSocket

SSLSocket = TLSSocket


class SSLContext(original.SSLContext):
    """As `ssl.SSLContext`; the sockets that it wraps are cooperative."""

    sslsocket_class = TLSSocket


REPLACED = "SSLSocket", "socket"


def patch(replace: Callable[[object, str, object], None]) -> None:
    """Have the original's contexts, those that exist too, make cooperative sockets."""
    replace(original.SSLContext, "sslsocket_class", TLSSocket)


_globals = {
    **vars(original),
    "SSLContext": SSLContext,
    "SSLSocket": SSLSocket,
    "create_connection": create_connection,
    "socket": socket,
}


def _with_ours(name: str) -> Any:
    """Return the original's function `name`, but that SSLContext, SSLSocket, … mean ours in it."""
    ours = run_over(vars(original)[name], _globals)
    ours.__module__ = __name__
    _globals[name] = ours  # they call each other
    return ours


create_default_context = _create_default_https_context = _with_ours("create_default_context")
_create_unverified_context = _create_stdlib_context = _globals["_create_stdlib_context"] = _with_ours(
    "_create_unverified_context"
)
get_server_certificate = _with_ours("get_server_certificate")
if hasattr(original, "wrap_socket"):  # until Python 3.11
    wrap_socket = _with_ours("wrap_socket")

__all__ = [name for name in dir(original) if not name.startswith("_")]

__getattr__, __dir__ = rest_of(original, globals())
