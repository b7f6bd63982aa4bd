"""Database drivers that wait in C, taught to park instead: psycopg2 and psycopg 3.

Drivers in pure Python (PyMySQL, pg8000, redis-py, pika) wait by the standard library's sockets, and monkey patching is
all that they need. psycopg waits by libpq, in C, where no patching reaches. But both versions let somebody else wait
for them: they say for which fd and which direction, and that is a park. Patching of the standard library isn't needed.

    import psycopg2
    from greenswitch import drivers
    drivers.patch_psycopg2()      # before the first connection

Without it a query stops the whole hub. As ever, a connection is for one task at a time: take one for each from a pool.

Knows the hub, and of each driver what it says about waiting. Must not import one that isn't asked for.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Generator
from functools import wraps
from importlib import import_module
from typing import Any, Final, TypeVar

from greenswitch.descriptors import until_ready
from greenswitch.hub import READ, WRITE, get_hub, wait_readable, wait_writable
from greenswitch.threads import to_thread
from greenswitch.timeouts import timeout as time_limit

T = TypeVar("T")

# The originals, which monkey patching replaces.
_poll: Any = getattr(select, "poll", None)
_select = select.select

CANCELLING: Final = 5.0
"""Seconds in which the server has to take back the query of a task that was killed."""


# -- psycopg2 ---------------------------------------------------------------------------------------------------------


def patch_psycopg2() -> None:
    """Have all connections of psycopg2 park the task that waits for the server.

    A task that is killed, or times out, in the midst of a query leaves its connection closed: psycopg2 sees to that,
    and its pools make a new one. The server finds out when it wants to answer. psycopg2 has one callback for the
    process, so any thread that queries gets a hub; large objects and COPY can't be used with it.
    """
    import_module("psycopg2.extensions").set_wait_callback(wait_psycopg2)


def wait_psycopg2(connection: Any) -> None:
    """Park until `connection` (psycopg2's) has done what it does. It is what `set_wait_callback` wants.

    Raises what the driver raises for it, and psycopg2.OperationalError if it says something unknown.
    """
    extensions = import_module("psycopg2.extensions")
    while (state := connection.poll()) != extensions.POLL_OK:
        if state == extensions.POLL_READ:
            wait_readable(connection.fileno())
        elif state == extensions.POLL_WRITE:
            wait_writable(connection.fileno())
        else:
            raise extensions.OperationalError(f"{connection}.poll() says {state!r}, which means nothing to greenswitch")


# -- psycopg 3 --------------------------------------------------------------------------------------------------------

# How psycopg's Wait and Ready count, in numbers of the selectors module: 1 is reading, 2 is writing, 3 is either.
_EITHER: Final = {1: READ, 2: WRITE, 3: READ | WRITE}
_NOTHING: Final = 0


def patch_psycopg() -> None:
    """Have all connections of psycopg 3 (`psycopg.Connection`, from 3.2 on) park the task that waits for the server.

    The query of a task that is killed, or times out, is cancelled on the server, and the connection can be used again;
    if the server doesn't answer to that within `CANCELLING` seconds, the connection is closed. Twice does nothing more.
    """
    waiting: Any = import_module("psycopg.waiting")
    connection_class = import_module("psycopg").Connection
    if waiting.wait is not wait_psycopg:
        waiting.wait = wait_psycopg
        waiting.wait_conn = wait_psycopg_connecting
        connection_class.wait = _taking_back(connection_class.wait)


def wait_psycopg(
    steps: Generator[int, int, T], fileno: int, interval: float = 0.0, timeout: float | None = None
) -> T:
    """Run `steps`, parked whenever they want to wait for `fileno`; return what they return. Is `psycopg.waiting.wait`.

    The steps are asked after each `interval` of waiting (in seconds; 0: never), and `timeout` limits all of it. Raises
    what they raise, and the driver's private error for a time-out.
    """
    return _run(steps, lambda wanted: (fileno, wanted), interval, timeout)


def wait_psycopg_connecting(
    steps: Generator[tuple[int, int], int, T], interval: float = 0.0, timeout: float | None = None
) -> T:
    """Do the same for steps that name the fd themselves: each address has another. Is `psycopg.waiting.wait_conn`."""
    return _run(steps, lambda wanted: wanted, interval, timeout)


def _run(
    steps: Generator[Any, int, T], what: Callable[[Any], tuple[int, int]], interval: float, timeout: float | None
) -> T:
    hub = get_hub()
    end = None if timeout is None else hub.clock() + timeout
    try:
        fd, wanted = what(next(steps))
        while True:
            seconds = interval or None
            if end is not None:
                seconds = max(0.0, min(end - hub.clock(), interval or end))
            ready = _wait(fd, wanted, seconds)
            answer = steps.send(ready)
            if ready != _NOTHING:  # to nothing, the steps answer nothing
                fd, wanted = what(answer)
            if end is not None and hub.clock() >= end:
                raise _time_out()
    except StopIteration as stop:
        result: T = stop.value
        return result


def _wait(fd: int, wanted: int, seconds: float | None) -> int:
    """Return what `fd` is ready for, `_NOTHING` after so many seconds."""
    hub = get_hub()
    try:
        if wanted == 1:
            wait_readable(fd, seconds)
        elif wanted == 2:
            wait_writable(fd, seconds)
        else:
            deadline = None if seconds is None else hub.clock() + seconds
            return until_ready(lambda: _look(fd), {fd: _EITHER[wanted]}, deadline)
    except TimeoutError:
        return _NOTHING
    return wanted


def _look(fd: int) -> int:
    if _poll is None:
        readable, writable, _ = _select([fd], [fd], [], 0)
        return len(readable) | len(writable) << 1
    poll = _poll()
    poll.register(fd, READ | WRITE)
    [events] = [events for _, events in poll.poll(0)] or [0]
    return (1 if events & ~WRITE else 0) | (2 if events & ~READ else 0)


def _time_out() -> Exception:
    errors = import_module("psycopg.errors")
    return getattr(errors, "_WaitTimeout", TimeoutError)("wait timeout expired")


def _taking_back(wait: Callable[..., T]) -> Callable[..., T]:
    """Return psycopg's `Connection.wait` so that it cancels the query of whoever is interrupted.

    Itself, it does so for KeyboardInterrupt and SystemExit only.
    """

    @wraps(wait)
    def wait_or_take_back(connection: Any, steps: Generator[int, int, T], *args: Any, **kwargs: Any) -> T:
        try:
            return wait(connection, steps, *args, **kwargs)
        except BaseException as error:
            if not isinstance(error, Exception) and _is_busy(connection):
                _take_back(connection, steps)
            raise

    return wait_or_take_back


def _is_busy(connection: Any) -> bool:
    status = import_module("psycopg.pq").TransactionStatus
    return not connection.closed and connection.pgconn.transaction_status == status.ACTIVE


def _take_back(connection: Any, steps: Generator[int, int, Any]) -> None:
    """Have the server cancel the query, and see it end; else close the connection, of which nothing is known then."""
    errors = import_module("psycopg.errors")
    try:
        with time_limit(CANCELLING):
            to_thread(connection.cancel)
            wait_psycopg(steps, connection.pgconn.socket)
    except errors.QueryCanceled:
        pass  # as we asked for
    finally:
        if _is_busy(connection):
            connection.pgconn.finish()
