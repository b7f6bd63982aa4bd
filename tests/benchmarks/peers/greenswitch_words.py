"""greenswitch's words for the rows of `rows_blocking`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import greenswitch


class MissingWordError(Exception):
    """A row needs a word that this greenswitch hasn't got."""


def _word(module: str, name: str) -> Any:
    """Return greenswitch.<module>.<name>, or something that says that it is missing as soon as a row calls it."""

    def missing(*_: object, **__: object) -> None:
        raise MissingWordError(f"this greenswitch has no {module}.{name}")

    try:
        return getattr(importlib.import_module(f"greenswitch.{module}"), name)
    except (ModuleNotFoundError, AttributeError):
        return missing


version = greenswitch.__version__
run: Callable[..., Any] = greenswitch.run
spawn = greenswitch.spawn
sleep = greenswitch.sleep
join_all = greenswitch.joinall
_create_server = _word("sockets", "create_server")
deadline = _word("timeouts", "timeout")
Event = _word("locks", "Event")
Lock = _word("locks", "Lock")
Queue = _word("queues", "Queue")
Pool = _word("pools", "Pool")


def listen() -> Any:
    """Return a listener on a free port of the loopback."""
    return _create_server(("127.0.0.1", 0), backlog=1024)
