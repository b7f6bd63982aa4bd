"""Looking up names: the C library's resolver blocks, so it runs in OS threads; numeric addresses need no look-up.

Each hub looks up at most 32 names at once, in threads of their own: neither a job of `to_thread` nor one slow name
server holds up the others.

Knows the standard library's resolver and thread pools. Knows no socket.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from socket import getaddrinfo as _getaddrinfo  # the originals, also when monkey patching has put ours there
from socket import gethostbyaddr as _gethostbyaddr
from socket import gethostbyname as _gethostbyname
from socket import gethostbyname_ex as _gethostbyname_ex
from socket import gethostname
from socket import getnameinfo as _getnameinfo
from typing import Any, ParamSpec, TypeVar

from greenswitch.threads import in_pool

P = ParamSpec("P")
T = TypeVar("T")

_AT_ONCE = 32


def _look_up(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    return in_pool("greenswitch.names", _AT_ONCE, function, *args, **kwargs)


def is_numeric(host: object) -> bool:
    """Return whether `host` needs no look-up: None, empty, or a numeric IPv4 or IPv6 address (maybe with %scope)."""
    if host is None or host == "" or host == b"":
        return True
    text = host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else host
    if not isinstance(text, str):
        return True  # wrong type: the standard library's call says so better than we can
    if text in ("<broadcast>", "<any>"):
        return True
    for family, digits in ((socket.AF_INET, text), (socket.AF_INET6, text.partition("%")[0])):
        try:
            socket.inet_pton(family, digits)
        except (OSError, ValueError):  # ValueError: a NUL inside
            continue
        return True
    return False


def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:
    """As `socket.getaddrinfo`; names are looked up in an OS thread while the task parks. Not from inside the hub."""
    plain_port = port is None or isinstance(port, int) or (isinstance(port, (str, bytes)) and port.isdigit())
    if is_numeric(host) and plain_port:
        return _getaddrinfo(host, port, family, type, proto, flags)
    return _look_up(_getaddrinfo, host, port, family, type, proto, flags)


def gethostbyname(hostname: str) -> str:
    """As `socket.gethostbyname`, in an OS thread unless `hostname` is numeric."""
    if is_numeric(hostname):
        return _gethostbyname(hostname)
    return _look_up(_gethostbyname, hostname)


def gethostbyname_ex(hostname: str) -> tuple[str, list[str], list[str]]:
    """As `socket.gethostbyname_ex`, in an OS thread."""
    return _look_up(_gethostbyname_ex, hostname)


def gethostbyaddr(ip_address: str) -> tuple[str, list[str], list[str]]:
    """As `socket.gethostbyaddr`, in an OS thread."""
    return _look_up(_gethostbyaddr, ip_address)


def getnameinfo(sockaddr: Any, flags: int) -> tuple[str, str]:
    """As `socket.getnameinfo`, in an OS thread unless only numbers are wanted."""
    if flags & socket.NI_NUMERICHOST and flags & socket.NI_NUMERICSERV:
        return _getnameinfo(sockaddr, flags)
    return _look_up(_getnameinfo, sockaddr, flags)


def getfqdn(name: str = "") -> str:
    """As `socket.getfqdn`; the look-up goes on in an OS thread."""
    name = name.strip()
    if name in ("", "0.0.0.0", "::"):
        name = gethostname()
    try:
        known, aliases, _ = gethostbyaddr(name)
    except OSError:
        return name
    return next((one for one in (known, *aliases) if "." in one), known)


def resolve(family: int, address: Any) -> Any:
    """Return `address` with its host looked up, for a socket of `family`: C's connect and bind would block over it."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return address
    if not isinstance(address, tuple) or len(address) < 2 or is_numeric(address[0]):
        return address
    found = getaddrinfo(address[0], None, family)
    return (found[0][4][0], *address[1:])
