"""What can go wrong: every exception of our own, under one base class.

Knows nothing of hubs, tasks or sockets: whoever raises an error writes its text, and the text names the cause and the
cure. Where the standard library already has the right exception (`TimeoutError`, `OSError`, `TypeError`, `ValueError`)
it is raised instead, and nothing here competes with it.
"""

from __future__ import annotations

import sys


class GreenswitchError(Exception):
    """The base of every error that greenswitch defines."""


class SwitchError(GreenswitchError, RuntimeError):
    """A switch by hand that can't work: to a finished coroutine, itself, another thread's, or a parked greenlet."""


class HubError(GreenswitchError, RuntimeError):
    """A call that the hub can't serve here: inside the hub itself, from a foreign thread, or on a closed hub."""


class BusyError(GreenswitchError, RuntimeError):
    """A second task wants to wait where only one may: both are named in the text."""


class ScopeError(GreenswitchError, RuntimeError):
    """A deadline, shield or group used outside of its `with` block, twice, or left by another task than entered it."""


class DeadlockError(GreenswitchError, RuntimeError):
    """Everybody waits and nobody is left who could wake anyone; the text lists who waits, for what and where."""


if sys.version_info >= (3, 13):
    from queue import ShutDown as ShutDown
else:

    class ShutDown(GreenswitchError):
        """The queue or channel has been shut down. From Python 3.13 on this is `queue.ShutDown`."""
