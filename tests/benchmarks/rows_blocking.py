"""The rows in blocking style: what greenswitch and gevent run, the very same code for both.

A row is a function of a peer's words (a module of peers/), the number of operations wanted, and `start`, which it
calls when its set-up is done. It returns the number of operations that it really did. A server takes `announce`
instead, which it calls with its port. Must not know which library the words come from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rows import READ_SIZE, TASKS, VOLLEY, VOLLEY_MESSAGE

Words = Any
Start = Callable[[], None]
Announce = Callable[[int], None]


def timed(words: Words, row: Callable[[Words, int, Start], int], operations: int) -> float:
    """Run a row, a tenth of it as warm-up first; return the CPU seconds of one operation."""

    def main() -> float:
        begun = 0.0

        def start() -> None:
            nonlocal begun
            begun = time.process_time()

        row(words, operations // 10, start)
        done = row(words, operations, start)
        return (time.process_time() - begun) / done

    return float(words.run(main))


def serve(words: Words, server: Callable[[Words, Announce], None], announce: Announce) -> None:
    """Run a server until the process is killed."""
    words.run(server, words, announce)


def nothing(*_: object) -> None:
    """Be the empty body."""


def spawn(words: Words, operations: int, start: Start) -> int:
    start()
    for _ in range(operations):
        words.spawn(nothing).join()
    return operations


def spawn_batch(words: Words, operations: int, start: Start) -> int:
    return _batches(words, operations, start, nothing)


def spawn_sleep0(words: Words, operations: int, start: Start) -> int:
    return _batches(words, operations, start, words.sleep, 0)


def spawn_sleep1ms(words: Words, operations: int, start: Start) -> int:
    return _batches(words, operations, start, words.sleep, 0.001)


def _batches(words: Words, operations: int, start: Start, body: Callable[..., None], *args: object) -> int:
    batches = max(1, operations // TASKS)
    start()
    for _ in range(batches):
        words.join_all([words.spawn(body, *args) for _ in range(TASKS)])
    return batches * TASKS


def sleep0(words: Words, operations: int, start: Start) -> int:
    each = max(1, operations // TASKS)
    sleep = words.sleep

    def sleeper() -> None:
        sleep(0)
        for _ in range(each):
            sleep(0)

    tasks = [words.spawn(sleeper) for _ in range(TASKS)]
    sleep(0)  # every sleeper is now in its first sleep: their start isn't counted
    start()
    words.join_all(tasks)
    return each * TASKS


def queue(words: Words, operations: int, start: Start) -> int:
    there, back = words.Queue(), words.Queue()

    def answer() -> None:
        for _ in range(operations):
            back.put(there.get())

    start()
    task = words.spawn(answer)
    for number in range(operations):
        there.put(number)
        back.get()
    task.join()
    return operations


def lock(words: Words, operations: int, start: Start) -> int:
    # The sleep after release gives the lock to a waiter in every library: gevent's would else be taken again by the
    # task that has just released it, and nothing would be handed over.
    tasks, each = 10, max(1, operations // 10)
    guard, order = words.Lock(), []

    def worker(name: int) -> None:
        for _ in range(each):
            guard.acquire()
            order.append(name)
            words.sleep(0)
            guard.release()
            words.sleep(0)

    start()
    words.join_all([words.spawn(worker, name) for name in range(tasks)])
    if order != list(range(tasks)) * each:
        raise RuntimeError(f"the lock wasn't handed over in turn: {order[:30]}…")
    return each * tasks


def event(words: Words, operations: int, start: Start) -> int:
    ping, pong = words.Event(), words.Event()
    each = max(1, operations // 2)

    def answer() -> None:
        for _ in range(each):
            ping.wait()
            ping.clear()
            pong.set()

    start()
    task = words.spawn(answer)
    for _ in range(each):
        ping.set()
        pong.wait()
        pong.clear()
    task.join()
    return each * 2


def pool_map(words: Words, operations: int, start: Start) -> int:
    pool = words.Pool(100)
    start()
    results = pool.map(nothing, range(operations))
    if len(results) != operations:
        raise RuntimeError(f"{len(results)} results of {operations} calls")
    return operations


def deadlines(words: Words, operations: int, start: Start) -> int:
    deadline = words.deadline
    start()
    for _ in range(operations):
        with deadline(10):
            pass
    return operations


def serve_echo(words: Words, announce: Announce) -> None:
    _accept(words, announce, _echo)


serve_connections = serve_echo


def _accept(words: Words, announce: Announce, talk: Callable[..., None], *args: object) -> None:
    listener = words.listen()
    announce(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        words.spawn(talk, connection, *args)


def _echo(connection: Any) -> None:
    with connection:
        try:
            while data := connection.recv(READ_SIZE):
                connection.sendall(data)
        except ConnectionError:
            pass  # the load client hangs up with a reset


def serve_recv_deadline(words: Words, announce: Announce) -> None:
    deadline = words.deadline
    deadline(10)  # a word that isn't there yet is refused before the client connects
    kind, seen = b"bare", 0

    def swallow(connection: Any, data: bytes) -> None:
        nonlocal seen
        if not data:
            raise ConnectionError("hung up")
        seen += len(data)
        if seen >= VOLLEY * VOLLEY_MESSAGE:
            seen = 0
            connection.send(b".")

    def bare(connection: Any) -> None:
        while kind == b"bare":
            swallow(connection, connection.recv(READ_SIZE))

    def armed(connection: Any) -> None:
        while kind == b"armed":
            with deadline(10):
                data = connection.recv(READ_SIZE)
            swallow(connection, data)

    def own(connection: Any) -> None:
        connection.settimeout(10)
        while kind == b"own":
            swallow(connection, connection.recv(READ_SIZE))
        connection.settimeout(None)

    readers = {b"bare": bare, b"armed": armed, b"own": own}

    def talk(connection: Any) -> None:
        nonlocal kind
        with connection:
            try:
                if connection.recv(1) == b"!":  # not one of the readers: it says how they are to read
                    while data := connection.recv(READ_SIZE):
                        kind = data if data in readers else kind
                        connection.sendall(kind)
                while True:
                    readers[kind](connection)
            except ConnectionError:
                pass  # the load client hangs up with a reset

    _accept(words, announce, talk)
