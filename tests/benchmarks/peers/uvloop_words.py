"""uvloop's words: the rows are asyncio's, the loop is uvloop's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import uvloop

version = uvloop.__version__


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run main in a fresh loop of uvloop's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
