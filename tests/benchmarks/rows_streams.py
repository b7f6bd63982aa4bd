"""The servers on asyncio's streams, for asyncio and uvloop. `rows_coroutines` has the rows that need no server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from rows import READ_SIZE, VOLLEY, VOLLEY_MESSAGE
from rows_coroutines import serve as serve  # how a server is run is the same

Announce = Callable[[int], None]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve_echo(announce: Announce) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(READ_SIZE):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the load client hangs up with a reset
        finally:
            writer.close()

    await _listen(announce, talk)


serve_connections = serve_echo


async def _listen(announce: Announce, talk: Talk) -> None:
    server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=1024)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def serve_recv_deadline(announce: Announce) -> None:
    deadline = asyncio.timeout
    kind, seen = b"bare", 0

    def swallow(writer: asyncio.StreamWriter, data: bytes) -> None:
        nonlocal seen
        if not data:
            raise ConnectionError("hung up")
        seen += len(data)
        if seen >= VOLLEY * VOLLEY_MESSAGE:
            seen = 0
            writer.write(b".")

    async def bare(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while kind == b"bare":
            swallow(writer, await reader.read(READ_SIZE))

    async def armed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while kind == b"armed":
            async with deadline(10):
                data = await reader.read(READ_SIZE)
            swallow(writer, data)

    readers = {b"bare": bare, b"armed": armed}  # a stream has no timeout of its own

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal kind
        try:
            if await reader.read(1) == b"!":  # not one of the readers: it says how they are to read
                while data := await reader.read(READ_SIZE):
                    kind = data if data in readers else kind
                    writer.write(kind)
            while True:
                await readers[kind](reader, writer)
        except ConnectionError:
            pass  # the load client hangs up with a reset
        finally:
            writer.close()

    await _listen(announce, talk)
