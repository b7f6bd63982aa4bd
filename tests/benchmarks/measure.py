"""One measurement in a fresh process: one peer, one row, one line of JSON on standard output.

    python measure.py PEER ROW '{"quick": true, …}'     measure; {"figures": {…}} or {"skipped": "why"}, where an
                                                        empty reason says that the library has nothing of the kind
    python measure.py PEER                              {"version": "…"} or {"skipped": "why"}
    python measure.py --serve PEER ROW                  be the row's server; prints its port, serves until killed

`compare.py` starts it; by hand it is good for a profiler. Knows how words, rows and load meet; must not know of rounds.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import load
from rows import PEERS, ROWS, Peer, Row


class SkipError(Exception):
    """This peer can't be measured in this row, for a reason that isn't a fault."""


def words_of(peer: Peer) -> ModuleType:
    """Import the peer's words, hence its library."""
    try:
        return importlib.import_module(f"peers.{peer.words}")
    except ModuleNotFoundError as error:
        raise SkipError(f"no module {error.name} here") from error


def function_of(peer: Peer, name: str) -> tuple[ModuleType, Callable[..., Any]]:
    """Return the module of the peer's style and its function of that name."""
    style = importlib.import_module(f"rows_{peer.style}")
    function = getattr(style, name.replace("-", "_"), None)
    if function is None:
        raise SkipError("")
    return style, function


def measure(peer: Peer, row: Row, settings: dict[str, Any]) -> dict[str, float]:
    """Return the row's figures for the peer."""
    operations = row.operations(settings.get("quick", False))
    if row.served:
        return _measure_served(peer, row, operations, settings)
    style, function = function_of(peer, row.name)
    return {"cpu": style.timed(words_of(peer), function, operations)}


def _measure_served(peer: Peer, row: Row, operations: int, settings: dict[str, Any]) -> dict[str, float]:
    function_of(peer, f"serve-{row.name}")
    if sys.platform != "linux":
        raise SkipError("this row needs Linux")
    many = load.allow_files(settings.get("many", 10_000)) if row.name == "connections" else 0
    with load.Server(load.server_command(peer.name, row.name)) as server:
        if not server.answer.isdigit():
            raise SkipError(server.answer) if server.answer else load.ServerSilentError("the server didn't start")
        message = settings.get("message", 1024)
        if row.name == "connections":
            return load.connections(server, operations, many, message)
        if row.name == "recv-deadline":
            return load.recv_deadline(server, operations)
        return load.echo(server, operations, settings.get("connections", 100), message)


def serve(peer: Peer, row: Row) -> None:
    """Be the row's server until killed."""
    # glibc gives a block of over 128 KiB a mapping of its own until one such block was freed: asyncio's 256 KiB reads
    # cost 8 or 25 µs a message by that accident alone. Every server starts as one that has lived for a while.
    bytes(1 << 20)
    words = words_of(peer)
    style, function = function_of(peer, f"serve-{row.name}")
    style.serve(words, function, lambda port: print(port, flush=True))


def main(arguments: list[str]) -> None:
    """Do what the module's docstring says."""
    peers, rows = {peer.name: peer for peer in PEERS}, {row.name: row for row in ROWS}
    serving = arguments[0] == "--serve"
    peer, *rest = arguments[1:] if serving else arguments
    try:
        if serving:
            serve(peers[peer], rows[rest[0]])
        elif rest:
            settings = json.loads(rest[1]) if len(rest) > 1 else {}
            print(json.dumps({"figures": measure(peers[peer], rows[rest[0]], settings)}))
        else:
            print(json.dumps({"version": str(words_of(peers[peer]).version)}))
    except Exception as error:
        # MissingWordError is of greenswitch's words, which aren't imported for another peer
        if not isinstance(error, SkipError) and type(error).__name__ != "MissingWordError":
            raise
        print(error if serving else json.dumps({"skipped": str(error)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
