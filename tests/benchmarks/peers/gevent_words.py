"""gevent's words for the rows of `rows_blocking`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
from gevent.event import Event as Event
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool as Pool
from gevent.queue import Queue as Queue

version = gevent.__version__
spawn = gevent.spawn
sleep = gevent.sleep
join_all = gevent.joinall
deadline = gevent.Timeout


def run(main: Callable[..., Any], *args: object) -> Any:
    """Call main: gevent's hub starts by itself."""
    return main(*args)


def listen() -> gevent.socket.socket:
    """Return a listener on a free port of the loopback."""
    listener = gevent.socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    return listener


def Lock() -> BoundedSemaphore:
    """Return what gevent puts in threading.Lock's place."""
    return BoundedSemaphore(1)
