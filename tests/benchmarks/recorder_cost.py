"""What recording costs: each program with and without, in turns, best of several, CPU time.

    python tests/benchmarks/recorder_cost.py [--quick]

A round runs every program both ways, so that whatever else the machine does disturbs both alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import greenswitch
from greenswitch import Queue, joinall, sleep, sockets, spawn
from greenswitch.core import relay
from greenswitch.recorder import record

ROUNDS = 7
SWITCHES = 20_000
QUICK = 200


def by_hand(switches: int) -> None:
    """Ping-pong: nothing but switches and a number that is passed."""
    relay.ping_pong(switches // 2)


def stepping_aside(switches: int) -> None:
    """Ten tasks that do nothing but let each other go first."""

    def work() -> None:
        for _ in range(switches // 10):
            sleep(0)

    joinall([spawn(work) for _ in range(10)])


def queues(switches: int) -> None:
    """Two tasks that hand an item to each other through queues."""
    there, back = Queue[int](), Queue[int]()

    def answer() -> None:
        for _ in range(switches // 2):
            back.put(there.get())

    answering = spawn(answer)
    for number in range(switches // 2):
        there.put(number)
        back.get()
    answering.join()


def short_tasks(switches: int) -> None:
    """Tasks that end at once, a hundred at a time."""
    for _ in range(switches // 100):
        joinall([spawn(int) for _ in range(100)])


def echo(switches: int) -> None:
    """An echo over a pair of sockets, 1 KiB messages."""
    near, far = sockets.socketpair()

    def talk() -> None:
        with far:
            while data := far.recv(4096):
                far.sendall(data)

    talking = spawn(talk)
    with near:
        for _ in range(switches // 2):
            near.sendall(bytes(1024))
            near.recv(4096)
    talking.join()


PROGRAMS: tuple[Callable[[int], None], ...] = (by_hand, stepping_aside, queues, short_tasks, echo)


def run_once(program: Callable[[int], None], switches: int, recorded: bool) -> tuple[float, int]:
    """Return the CPU seconds that it took, and how many events were recorded."""
    with record(limit=1000) if recorded else nullcontext() as recording:
        began = time.process_time()
        greenswitch.run(program, switches)
        took = time.process_time() - began
    return took, 0 if recording is None else len(recording) + recording.dropped


def main(arguments: list[str]) -> None:
    """Print a line for each program."""
    switches, rounds = (QUICK, 1) if "--quick" in arguments else (SWITCHES, ROUNDS)
    best = {(program, recorded): 1e9 for program in PROGRAMS for recorded in (False, True)}
    events = dict.fromkeys(PROGRAMS, 0)
    for _ in range(rounds):
        for program, recorded in best:
            took, counted = run_once(program, switches, recorded)
            best[program, recorded] = min(best[program, recorded], took)
            events[program] = max(events[program], counted)
    print(f"{'program':<16}{'plain':>10}{'recorded':>12}{'ratio':>9}{'an event':>12}")
    for program in PROGRAMS:
        plain, slow = best[program, False], best[program, True]
        print(
            f"{program.__name__.replace('_', ' '):<16}{plain * 1e3:>7.1f} ms{slow * 1e3:>9.1f} ms"
            f"{slow / plain:>8.1f}x{(slow - plain) / events[program] * 1e6:>9.1f} µs"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
