"""Virtual time, and the check that nothing was left behind."""

from __future__ import annotations

import math
import os
import threading

from greenswitch import run, sleep, spawn, spawn_later
from greenswitch.hub import Hub, Waiter, wait_readable
from greenswitch.testing import VirtualTime, left_behind


def test_an_hour_passes_at_once(hub: Hub, time: VirtualTime) -> None:
    sleep(3600)
    assert time() == 3600


def test_time_stands_still_while_anybody_runs(hub: Hub, time: VirtualTime) -> None:
    other = spawn(lambda: [sleep(0) for _ in range(1000)])
    timed = spawn(sleep, 1)
    other.join()
    assert time() == 0
    timed.join()
    assert time() == 1


def test_time_stops_at_each_timer_on_its_way(hub: Hub, time: VirtualTime) -> None:
    seen: list[float] = []
    tasks = [spawn_later(seconds, lambda: seen.append(time())) for seconds in (3, 0.1, 2, 0.1)]
    sleep(10)
    assert seen == [0.1, 0.1, 2, 3]
    assert all(task.ready() for task in tasks)


def test_same_program_takes_the_same_turns_every_time() -> None:
    def program() -> list[str]:
        log: list[str] = []

        def one(name: str, pause: float) -> None:
            for _ in range(5):
                sleep(pause)
                log.append(name)

        def main() -> None:
            for task in [spawn(one, "a", 0.3), spawn(one, "b", 0.1), spawn(one, "c", 0.2)]:
                task.join()

        run(main, hub=VirtualTime().hub())
        return log

    assert program() == program()


def test_descriptor_that_is_ready_goes_before_a_timer(hub: Hub, time: VirtualTime) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x")
    wait_readable(reading, 100)
    assert time() == 0
    os.close(reading)
    os.close(writing)


def test_time_may_start_anywhere() -> None:
    time = VirtualTime(start=1e9)
    run(sleep, 0.5, hub=time.hub())
    assert time() == 1e9 + 0.5


def test_who_sleeps_for_ever_does_not_take_time_there(hub: Hub, time: VirtualTime) -> None:
    sleeper = spawn(sleep, math.inf)
    sleep(1)
    thread = threading.Timer(0.01, lambda: hub.call_threadsafe(lambda: sleeper.kill(block=False)))
    thread.start()
    sleeper.join()
    thread.join()
    assert time() == 1


def test_reprs_tell_the_time(hub: Hub, time: VirtualTime) -> None:
    sleep(2)
    assert repr(time) == "<VirtualTime 2.0 s>"
    assert repr(hub.poller).endswith("in <VirtualTime 2.0 s>")


def test_left_behind_lists_parked_alive_and_timed(hub: Hub) -> None:
    assert left_behind(hub) == []
    task = spawn(sleep, 1)
    assert left_behind(hub) == [f"alive: {task!r}"]
    sleep(0)
    waiter = hub.parked[task.carrier]  # type: ignore[index]
    assert isinstance(waiter, Waiter)
    assert left_behind(hub) == [f"parked: {waiter!r}", f"alive: {task!r}", "timed: 1 timers"]
    task.kill()
    assert left_behind(hub) == []
