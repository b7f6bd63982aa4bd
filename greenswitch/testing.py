"""Testing programs that wait: a hub whose time passes in jumps, and a check that nothing was left behind.

`VirtualTime` stands on nothing but the hub's two injected parts, its clock and its poller. Whenever nobody can go on,
time jumps to the next timer: an hour of `sleep` takes a millisecond, and always the same one.
"""

from __future__ import annotations

import math

from greenswitch.hub import Hub, Poller, make_poller


class VirtualTime:
    """A clock that stands still while anybody runs, and jumps to the next timer when nobody can.

    >>> import greenswitch
    >>> time = VirtualTime()
    >>> greenswitch.run(greenswitch.sleep, 3600, hub=time.hub())
    >>> time()
    3600.0

    It knows of file descriptors (a socket that is ready goes first), but not of other threads and processes: while one
    of them is still at work and a timer is due, time jumps to the timer.
    """

    def __init__(self, start: float = 0.0) -> None:
        self.now = start

    def __call__(self) -> float:
        """Return the seconds that have passed, as a hub's clock."""
        return self.now

    def hub(self, poller: Poller | None = None) -> Hub:
        """Return a new hub that lives in this time."""
        return Hub(_JumpingPoller(self, make_poller() if poller is None else poller), clock=self)

    def __repr__(self) -> str:
        return f"<VirtualTime {self.now} s>"


class _JumpingPoller:
    """A poller that never waits for a timer: it lets time jump there."""

    def __init__(self, time: VirtualTime, inner: Poller) -> None:
        self._time = time
        self._inner = inner
        self.keeps = inner.keeps
        self.register = inner.register
        self.arm = inner.arm
        self.unregister = inner.unregister
        self.close = inner.close

    def __repr__(self) -> str:
        return f"{self._inner!r} in {self._time!r}"

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        if not timeout or timeout == math.inf:
            return self._inner.poll(timeout)
        events = self._inner.poll(0)
        if not events:
            self._time.now += timeout
        return events


def left_behind(hub: Hub) -> list[str]:
    """Return what is still parked, timed or alive in `hub`, a line each; an empty list is what a test wants."""
    return [
        *(f"parked: {waiter!r}" for waiter in hub.parked.values()),
        *(f"alive: {job!r}" for job in hub.carriers.jobs()),
        *([f"timed: {len(hub.timers)} timers"] if len(hub.timers) else []),
    ]
