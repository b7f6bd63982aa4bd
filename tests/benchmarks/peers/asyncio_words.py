"""asyncio's words: its rows are written against asyncio itself, only the loop is asked for."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Coroutine
from typing import Any

version = f"of Python {platform.python_version()}"


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run main in a fresh loop of asyncio's own."""
    return asyncio.run(main)
