"""multiprocessing in a patched program: whoever waits for another process parks.

multiprocessing stands on the patched modules like any other code: its threads (a queue's feeder, a pool's handlers, a
manager's server) are tasks, and its processes are joined by `os.waitpid`. Its semaphores have a twin of their own
(`greenswitch.green._multiprocessing`). What remains:

- A connection reads and writes by functions of `os` that it took when its module was imported.
- A kill or a time limit may come in the midst of a message. Whoever receives finishes it, because its rest would be
  taken for the next message. Whoever sends closes the connection, because nobody may ever take the rest: then the other
  end gets an error, too.
- A pool's supervisor is told of each result, and spins until the result's handler has read it: that needs its turn.
- The server that hands out descriptors blocks all signals in its thread. Here that is main's.
- Descriptors are handed out over a connection, which has to stay as it is: a socket of ours would make it non-blocking.
- Modules that were imported before patching have locks, and values by thread, that don't know tasks.

A forked child has none of the parent's tasks. One that is spawned, or comes from a fork server, is a new interpreter:
it is patched if the main module of the program patches when it is imported there.

Knows multiprocessing's modules by name, and imports none. Must not know what else is patched.
"""

from __future__ import annotations

import signal
import socket
import threading
from _thread import RLock as _OSRLock
from _thread import allocate_lock as _allocate_os_lock
from collections.abc import Callable, Mapping
from functools import partial, wraps
from types import FunctionType
from typing import Any

from greenswitch.copies import Namespace
from greenswitch.descriptors import is_ready, wait_for
from greenswitch.files import CAN_WAIT, close, read, write
from greenswitch.green import _thread
from greenswitch.green.socket import socket as TwinSocket
from greenswitch.hub import READ, WRITE, current_hub, step_aside
from greenswitch.patches import in_its_place
from greenswitch.sockets import Socket
from greenswitch.timeouts import shield

Replace = Callable[[object, str, object], None]

_OS_LOCKS = (type(_allocate_os_lock()), _OSRLock)
_OriginalSocket = socket.socket
_fromfd = socket.fromfd


# -- connections -------------------------------------------------------------------------------------------------------


def _adapt_connection(connection: Any, replace: Replace) -> None:
    """Let a connection's reads and writes park, and let no interrupt break a message in two."""
    if not CAN_WAIT:
        return
    kind = connection.Connection
    receive, send = kind._recv_bytes, kind._send_bytes

    @wraps(receive)
    def receive_whole(self: Any, maxsize: int | None = None) -> Any:
        if current_hub() is None:
            return receive(self, maxsize)
        _until_ready(self._handle, READ)  # an interrupt here loses nothing
        with shield():
            return receive(self, maxsize)

    @wraps(send)
    def send_whole(self: Any, buf: Any) -> None:
        if current_hub() is None:
            return send(self, buf)  # type: ignore[no-any-return]
        _until_ready(self._handle, WRITE)
        try:
            send(self, buf)
        except Exception:
            raise
        except BaseException:
            self.close()
            raise

    for name, ours in {"_recv": read, "_send": write, "_close": close}.items():
        replace(getattr(kind, name), "__defaults__", (ours,))
    replace(kind, "_recv_bytes", receive_whole)
    replace(kind, "_send_bytes", send_whole)


def _until_ready(fd: int, events: int) -> None:
    while not is_ready(fd, events):
        wait_for(fd, events)


def _adapt_pool(pool: Any, replace: Replace) -> None:
    """Let a pool's supervisor give the handler of results its turn before it looks again."""
    wait_for_updates = pool.Pool._wait_for_updates

    @wraps(wait_for_updates)
    def wait_behind_others(*args: Any, **kwargs: Any) -> None:
        hub = current_hub()
        if hub is not None:
            hub.left = 0  # the hub asks the poller first
            step_aside()
        wait_for_updates(*args, **kwargs)

    replace(pool.Pool, "_wait_for_updates", staticmethod(wait_behind_others))


# -- descriptors and sockets that are sent -----------------------------------------------------------------------------


class _OverConnection(_OriginalSocket):
    """A socket over a duplicate of a connection's descriptor, which stays blocking: it parks before it may block."""

    def sendmsg(self, *args: Any) -> int:
        """As `socket.sendmsg`."""
        if current_hub() is not None:
            _until_ready(self.fileno(), WRITE)
        return super().sendmsg(*args)

    def recvmsg(self, *args: Any) -> Any:
        """As `socket.recvmsg`."""
        if current_hub() is not None:
            _until_ready(self.fileno(), READ)
        return super().recvmsg(*args)


def _over_connection(fd: int, family: int, type: int, proto: int = 0) -> socket.socket:
    return _OverConnection(family, type, proto, fileno=_fromfd(fd, family, type, proto).detach())


def _adapt_reduction(reduction: Any, replace: Replace) -> None:
    """Let descriptors go over a connection that stays blocking, and let our sockets be sent as the original's are."""
    reducers = reduction.ForkingPickler._extra_reducers
    if Socket not in reducers:
        ours = dict.fromkeys((Socket, TwinSocket), reduction._reduce_socket)
        replace(reduction.ForkingPickler, "_extra_reducers", {**reducers, **ours})
    if CAN_WAIT:
        replace(reduction, "socket", Namespace(reduction.socket, {"fromfd": _over_connection}, {}))


def _adapt_resource_sharer(resource_sharer: Any, replace: Replace) -> None:
    """Let the task that hands out descriptors leave the signals to main."""
    replace(resource_sharer, "signal", Namespace(signal, {"pthread_sigmask": lambda how, mask: set()}, {}))
    _adapt_object("_resource_sharer", resource_sharer, replace)


# -- what was imported before patching ---------------------------------------------------------------------------------


def _adapt_object(path: str, module: Any, replace: Replace) -> None:
    """Give an object that a module made when it was imported locks of ours."""
    owner = module
    for name in path.split("."):
        owner = getattr(owner, name)
    for name, value in list(vars(owner).items()):
        if isinstance(value, _OS_LOCKS):
            replace(owner, name, in_its_place(value))


def _adapt_util(util: Any, replace: Replace) -> None:
    """Let a manager's proxies have a connection for each task."""
    theirs = util.ForkAwareLocal
    if not issubclass(theirs, _thread._local):
        names = {name: value for name, value in vars(theirs).items() if isinstance(value, (FunctionType, str))}
        replace(util, "ForkAwareLocal", type(theirs.__name__, (_thread._local,), names))


def _adapt_context(context: Any, replace: Replace) -> None:
    """Let tasks that start processes at the same time not see each other's."""
    if not isinstance(context._tls, _thread._local):
        replace(context, "_tls", _thread._local())


def _adapt_managers(managers: Any, replace: Replace) -> None:
    """Let the lock of all proxies know tasks, and those that managers make."""
    mutex = managers.BaseProxy._mutex
    if isinstance(mutex._lock, _OS_LOCKS):
        ours = in_its_place(mutex._lock)
        for name, value in {"_lock": ours, "acquire": ours.acquire, "release": ours.release}.items():
            replace(mutex, name, value)
    registry = managers.SyncManager._registry
    if registry["Lock"][0] in (_allocate_os_lock, _OS_LOCKS[0]):  # from Python 3.13 on, the type
        replace(managers.SyncManager, "_registry", {**registry, "Lock": (_make_lock, *registry["Lock"][1:])})


def _make_lock() -> Any:
    """Return what `threading.Lock` is in this process. A manager's process finds this function by its name."""
    return threading.Lock()


CHANGES: Mapping[str, Callable[[Any, Replace], None]] = {
    "multiprocessing.connection": _adapt_connection,
    "multiprocessing.context": _adapt_context,
    "multiprocessing.forkserver": partial(_adapt_object, "_forkserver"),
    "multiprocessing.heap": partial(_adapt_object, "BufferWrapper._heap"),
    "multiprocessing.managers": _adapt_managers,
    "multiprocessing.pool": _adapt_pool,
    "multiprocessing.reduction": _adapt_reduction,
    "multiprocessing.resource_sharer": _adapt_resource_sharer,
    "multiprocessing.resource_tracker": partial(_adapt_object, "_resource_tracker"),
    "multiprocessing.util": _adapt_util,
}
"""By module, what changes it: `change(module, replace)`, once, before or after patching, when it is imported."""
