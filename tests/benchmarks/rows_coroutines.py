"""The same rows as coroutines and, for the servers, a Protocol: what asyncio and uvloop run.

The functions mirror those of `rows_blocking`. A row of that file that is missing here has no counterpart in asyncio.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from rows import TASKS

Words = Any
Start = Callable[[], None]
Announce = Callable[[int], None]


def timed(words: Words, row: Callable[[int, Start], Awaitable[int]], operations: int) -> float:
    """Run a row, a tenth of it as warm-up first; return the CPU seconds of one operation."""

    async def main() -> float:
        begun = 0.0

        def start() -> None:
            nonlocal begun
            begun = time.process_time()

        await row(operations // 10, start)
        done = await row(operations, start)
        return (time.process_time() - begun) / done

    return float(words.run(main()))


def serve(words: Words, server: Callable[[Announce], Any], announce: Announce) -> None:
    """Run a server until the process is killed."""
    words.run(server(announce))


async def nothing() -> None:
    """Be the empty body."""


async def spawn(operations: int, start: Start) -> int:
    create_task = asyncio.create_task
    start()
    for _ in range(operations):
        await create_task(nothing())
    return operations


async def spawn_batch(operations: int, start: Start) -> int:
    return await _batches(operations, start, nothing)


async def spawn_sleep0(operations: int, start: Start) -> int:
    return await _batches(operations, start, asyncio.sleep, 0)


async def spawn_sleep1ms(operations: int, start: Start) -> int:
    return await _batches(operations, start, asyncio.sleep, 0.001)


async def _batches(operations: int, start: Start, body: Callable[..., Any], *args: object) -> int:
    batches = max(1, operations // TASKS)
    create_task = asyncio.create_task
    start()
    for _ in range(batches):
        await asyncio.wait([create_task(body(*args)) for _ in range(TASKS)])
    return batches * TASKS


async def sleep0(operations: int, start: Start) -> int:
    each = max(1, operations // TASKS)
    sleep = asyncio.sleep

    async def sleeper() -> None:
        await sleep(0)
        for _ in range(each):
            await sleep(0)

    tasks = [asyncio.create_task(sleeper()) for _ in range(TASKS)]
    await sleep(0)  # every sleeper is now in its first sleep: their start isn't counted
    start()
    await asyncio.wait(tasks)
    return each * TASKS


async def queue(operations: int, start: Start) -> int:
    there: asyncio.Queue[int] = asyncio.Queue()
    back: asyncio.Queue[int] = asyncio.Queue()

    async def answer() -> None:
        for _ in range(operations):
            await back.put(await there.get())

    start()
    task = asyncio.create_task(answer())
    for number in range(operations):
        await there.put(number)
        await back.get()
    await task
    return operations


async def lock(operations: int, start: Start) -> int:
    tasks, each = 10, max(1, operations // 10)
    guard, order = asyncio.Lock(), []

    async def worker(name: int) -> None:
        for _ in range(each):
            await guard.acquire()
            order.append(name)
            await asyncio.sleep(0)
            guard.release()
            await asyncio.sleep(0)

    start()
    await asyncio.wait([asyncio.create_task(worker(name)) for name in range(tasks)])
    if order != list(range(tasks)) * each:
        raise RuntimeError(f"the lock wasn't handed over in turn: {order[:30]}…")
    return each * tasks


async def event(operations: int, start: Start) -> int:
    ping, pong = asyncio.Event(), asyncio.Event()
    each = max(1, operations // 2)

    async def answer() -> None:
        for _ in range(each):
            await ping.wait()
            ping.clear()
            pong.set()

    start()
    task = asyncio.create_task(answer())
    for _ in range(each):
        ping.set()
        await pong.wait()
        pong.clear()
    await task
    return each * 2


async def deadlines(operations: int, start: Start) -> int:
    deadline = asyncio.timeout
    start()
    for _ in range(operations):
        async with deadline(10):
            pass
    return operations


class Echo(asyncio.Protocol):
    """Write back what arrives."""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport's write."""
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        """Echo."""
        self.write(data)


async def serve_echo(announce: Announce) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


serve_connections = serve_echo
