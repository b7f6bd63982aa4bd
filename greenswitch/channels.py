"""Channels: an item passes from hand to hand, and nothing is ever kept.

Knows exchanges; everything that holds for them holds here. Either getters wait, or putters, or nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from queue import Full
from typing import Any

from greenswitch.errors import ShutDown
from greenswitch.exchanges import IN_LINE, NOTHING, SHUT, Exchange, Item, Offer, check_timeout, refuse_in_hub
from greenswitch.hub import TIMED_OUT, Waiter, get_hub, new_waiter


class Channel(Exchange[Item]):
    """A meeting point: `put` waits for one who gets, `get` for one who puts. Iterating ends when it is closed."""

    __slots__ = ()

    # -- putting ---------------------------------------------------------------------------------------------------

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Pass `item` to a getter; wait up to `timeout` seconds (None: no limit) until there is one.

        Raises queue.Full when the time is over, or at once with `block=False` (such a call never switches, and may be
        made anywhere); ShutDown when the channel is closed; ValueError for a negative timeout.
        """
        if timeout is not None and block:
            check_timeout(timeout)
        while (getter := self._getters.popleft() if self._getters else SHUT if self.is_shutdown else None) is not None:
            if self._pass(getter, item):
                return
        if not block or timeout == 0:
            raise Full
        self._wait_to_put(item, timeout)

    def put_nowait(self, item: Item) -> None:
        """Pass `item` to a getter that waits, or raise queue.Full (or ShutDown) at once. Never switches; any thread."""
        self.put(item, False)

    def _pass(self, getter: Any, item: Any) -> bool:
        if getter is SHUT:
            raise ShutDown(self._why_shut())
        return getter.wake(item)  # type: ignore[no-any-return]

    def _wait_to_put(self, item: Any, timeout: float | None) -> None:
        offer = Offer(get_hub(), self, item)
        refuse_in_hub(offer)
        getters, putters = self._getters, self._putters
        while True:
            found = getters.popleft() if getters else SHUT if self.is_shutdown else putters.append(offer) or IN_LINE
            if found is IN_LINE:
                break
            if self._pass(found, item):
                return
        self._tell_links()
        try:
            woken = putters.stay(offer, timeout)
        except BaseException:
            offer.take_back()
            raise
        if woken is TIMED_OUT and offer.take_back():
            raise Full

    # -- getting ---------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Take the next item from its putter; wait up to `timeout` seconds (None: no limit) until there is one.

        Raises queue.Empty when the time is over, or at once with `block=False` (such a call never switches, and may be
        made anywhere); ShutDown when the channel is closed; ValueError for a negative timeout.
        """
        if timeout is not None and block:
            check_timeout(timeout)
        item = self._look()
        if item is NOTHING and block and timeout != 0:
            item = self._wait_to_get(timeout)
        if item is NOTHING or item is SHUT:
            self._raise(item)
        return item  # type: ignore[no-any-return]

    def _look(self) -> Any:
        while (offer := self._putters.popleft() if self._putters else None) is not None:
            item = self._take(offer)
            if item is not NOTHING:
                return item
        return SHUT if self.is_shutdown else NOTHING

    def _take(self, offer: Any) -> Any:
        item = offer.take()
        if item is not NOTHING:
            offer.wake()
        return item

    def _wait_to_get(self, timeout: float | None) -> Any:
        waiter = new_waiter("get from", self)
        refuse_in_hub(waiter)
        putters, getters = self._putters, self._getters
        while True:
            found = putters.popleft() if putters else SHUT if self.is_shutdown else getters.append(waiter) or IN_LINE
            if found is SHUT or found is IN_LINE:
                break
            item = self._take(found)
            if item is not NOTHING:
                return item
        if found is SHUT:
            return SHUT
        try:
            found = getters.stay(waiter, timeout)
        except BaseException:
            self._give_up(waiter)
            raise
        return NOTHING if found is TIMED_OUT else found

    def _line_up_unless_ready(self, waiter: Waiter) -> bool:
        return not (self._putters or self.is_shutdown or self._getters.append(waiter))

    def _give_back(self, item: Any) -> None:
        self._getters.give(item)  # its putter has gone on: only another getter can have it

    # -- the end, and looking at it ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Let nobody put or get any more; everybody who waits here gets ShutDown. Closing twice does nothing."""
        self._shut()

    @property
    def closed(self) -> bool:
        """True once it has been closed."""
        return self.is_shutdown

    def ready(self) -> bool:
        """Return whether a get would go on at once, with an item or with ShutDown."""
        return self.is_shutdown or any(offer.greenlet is not None for offer in list(self._putters))

    @property
    def balance(self) -> int:
        """How many wait to put, as a positive number, or to get, as a negative one."""
        return len(self._putters) - len(self._getters)

    def qsize(self) -> int:
        """Return 0: it never keeps anything."""
        return 0

    def empty(self) -> bool:
        """Return True: it never keeps anything. See `ready`."""
        return True

    def full(self) -> bool:
        """Return True: it has no room to keep anything. See `balance`."""
        return True

    def _traits(self) -> Iterator[str]:
        yield from super()._traits() if self.balance or self.is_shutdown else ["idle"]
