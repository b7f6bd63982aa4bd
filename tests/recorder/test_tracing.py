"""What is recorded is exactly what happened: by hand and by the hub, who left whom for whom, why, and with what."""

from __future__ import annotations

import itertools
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import greenlet
import pytest

import greenswitch
from greenswitch import Event as Happening
from greenswitch import Lock, Pool, Queue, TaskGroup, joinall, sleep, spawn, spawn_later
from greenswitch.core import Coroutine, hand_back, relay
from greenswitch.hub import Hub, Waiter
from greenswitch.recorder import Event, Recording, record
from greenswitch.testing import VirtualTime

MAIN = "main greenlet"


def named(name: str, function: Callable[..., Any], *args: Any) -> greenswitch.Task:
    task = spawn(function, *args)
    task.name = name
    return task


def switches(recording: Recording) -> list[tuple[str, str, str]]:
    return [(event.source, event.target, event.passed) for event in recording if event.kind in ("switch", "throw")]


def wakes(recording: Recording) -> list[tuple[float, str, str, str, str]]:
    found = [event for event in recording if event.kind in ("wake", "spawn")]
    return [(event.time, event.kind, event.source, event.target, event.why) for event in found]


def became(recording: Recording, who: str) -> list[tuple[str, str]]:
    """Return what became of `who` each time it was left."""
    return [(event.state, event.why) for event in recording if event.source == who and event.kind in ("switch", "end")]


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_ping_pong_is_recorded_exactly() -> None:
    with record(clock=itertools.count().__next__) as recording:
        relay.ping_pong(2)
    ping, pong = "play_ping", "play_pong"
    assert list(recording) == [
        Event(1, "switch", MAIN, ping, "suspended", "", "0"),
        Event(2, "switch", ping, pong, "suspended", "", "1"),
        Event(3, "switch", pong, ping, "suspended", "", "2"),
        Event(4, "switch", ping, pong, "suspended", "", "3"),
        Event(5, "switch", pong, ping, "suspended", "", "4"),
        Event(6, "switch", ping, MAIN, "done", "", "its result"),
        Event(7, "throw", MAIN, pong, "suspended", "", "raises GreenletExit"),
        Event(8, "switch", pong, MAIN, "done", "", "its result"),
    ]


def test_pipeline_shows_every_hand_that_an_item_goes_through() -> None:
    with record() as recording:
        relay.pipeline("ab", str.upper)
    assert switches(recording)[5:] == [
        ("produce", "transform", "'a'"),
        ("transform", "consume", "`stage(item)`"),
        ("consume", "produce", ""),
        ("produce", "transform", "'b'"),
        ("transform", "consume", "`stage(item)`"),
        ("consume", "produce", ""),
        ("produce", MAIN, "its result"),
        (MAIN, "consume", "raises GreenletExit"),
        ("consume", MAIN, "its result"),
        (MAIN, "transform", "raises GreenletExit"),
        ("transform", MAIN, "its result"),
    ]


def test_coroutines_go_by_their_names_and_what_they_pass_is_known() -> None:
    def waiter(order: str) -> None:
        while True:
            order = hand_back(f"here is your {order}")

    with record() as recording:
        kitchen = Coroutine(waiter, name="kitchen")
        kitchen.switch("soup")
        kitchen.switch("fish")
        with pytest.raises(KeyError):
            kitchen.throw(KeyError("no fish"))
    assert [(event.kind, *one) for event, one in zip(recording, switches(recording), strict=True)] == [
        ("switch", MAIN, "kitchen", "'soup'"),
        ("switch", "kitchen", MAIN, "'here is your soup'"),
        ("switch", MAIN, "kitchen", "'fish'"),
        ("switch", "kitchen", MAIN, "'here is your fish'"),
        ("throw", MAIN, "kitchen", "raises KeyError('no fish')"),
        ("throw", "kitchen", MAIN, "raises its exception"),
    ]
    assert list(recording)[-1].state == "failed"


def test_recording_that_begins_and_ends_inside_greenlets() -> None:
    recording = record()
    main = greenlet.getcurrent()

    def begin() -> None:
        recording.__enter__()
        main.switch("begun")

    def end() -> None:
        recording.__exit__(None, None, None)

    beginner = greenlet.greenlet(begin)
    beginner.switch()
    greenlet.greenlet(end).switch()
    assert switches(recording) == [("begin", MAIN, "'begun'"), (MAIN, "greenlet", "")]


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_tasks_are_recorded_exactly(hub: Hub) -> None:
    with record() as recording:
        one, two = named("one", sleep, 2), named("two", sleep, 1)
        joinall([one, two])
    assert list(recording) == [
        Event(0, "spawn", MAIN, "one", "ready", "", ""),
        Event(0, "spawn", MAIN, "two", "ready", "", ""),
        Event(0, "switch", MAIN, "hub", "parked", "join Task 'one'", ""),
        Event(0, "switch", "hub", "one", "suspended", "", "2"),
        Event(0, "switch", "one", "hub", "parked", "sleep 2", ""),
        Event(0, "switch", "hub", "two", "suspended", "", "1"),
        Event(0, "switch", "two", "hub", "parked", "sleep 1", ""),
        Event(1, "wake", "hub", "two", "ready", "sleep 1", ""),
        Event(1, "switch", "hub", "two", "suspended", "", ""),
        Event(1, "switch", "two", "hub", "done", "", ""),
        Event(2, "wake", "hub", "one", "ready", "sleep 2", ""),
        Event(2, "switch", "hub", "one", "suspended", "", ""),
        Event(2, "wake", "one", MAIN, "ready", "join Task 'one'", ""),
        Event(2, "switch", "one", MAIN, "done", "", "Task 'one'"),
    ]


def test_carrier_that_goes_from_task_to_task_changes_lanes(hub: Hub) -> None:
    with record() as recording:
        joinall([named(name, lambda: None) for name in "abc"])
    assert [event[1:5] for event in recording if event.kind == "switch"] == [
        ("switch", MAIN, "hub", "parked"),
        ("switch", "hub", "a", "suspended"),
        ("switch", "a", "b", "done"),
        ("switch", "b", "c", "done"),
        ("switch", "c", MAIN, "done"),
    ]


def test_carrier_that_comes_from_its_rest_is_its_new_task(hub: Hub) -> None:
    spawn(sleep, 0).join()
    assert hub.carriers.idle
    with record() as recording:
        named("rested", sleep, 0).join()
    assert switches(recording) == [(MAIN, "rested", "0"), ("rested", MAIN, "Task 'rested'")]


def test_recording_goes_on_with_tasks_when_one_inside_of_it_ends(hub: Hub) -> None:
    with record() as outer:
        with record():
            pass
        joinall([named(name, lambda: None) for name in "abc"])
    assert [became(outer, name) for name in "abc"] == [[("done", "")]] * 3


def test_what_became_of_each_task_is_told(hub: Hub) -> None:
    def fail() -> None:
        raise ValueError("failed: on purpose")

    with record() as recording:
        failing, killed, done = named("failing", fail), named("killed", sleep, 9), named("done", sleep, 0)
        joinall([failing, done])
        killed.kill()
    assert became(recording, "failing") == [("failed", "ValueError('failed: on purpose')")]
    assert became(recording, "killed") == [("parked", "sleep 9"), ("killed", "")]
    assert became(recording, "done") == [("ready", ""), ("done", "")]
    assert isinstance(failing.exception, ValueError)


def test_recording_a_failure_is_not_looking_at_it(hub: Any) -> None:
    with record():
        spawn(lambda: 1 / 0).join()
    assert [type(error) for _, error in hub.errors] == [ZeroDivisionError]
    hub.errors.clear()


def test_task_that_is_killed_before_it_starts_never_runs(hub: Hub) -> None:
    with record() as recording:
        before, never, after = named("before", sleep, 0), named("never", sleep, 0), named("after", sleep, 0)
        never.kill(block=False)
        joinall([before, after])
    mentions = [event for event in recording if "never" in (event.source, event.target)]
    assert [event[1:5] for event in mentions] == [("spawn", MAIN, "never", "ready"), ("end", "never", "", "killed")]


def test_stepping_aside_is_no_wake(hub: Hub) -> None:
    with record() as recording:
        spawn(sleep, 0)
        sleep(0)
        sleep(0)
    assert {event.kind for event in recording if event.target == MAIN} == {"switch"}
    assert became(recording, MAIN) == [("ready", "")] * 2


def test_value_that_a_task_is_woken_with_is_told(hub: Hub) -> None:
    queue: Queue[Any] = Queue()

    def wait() -> None:
        queue.get()
        with pytest.raises(TimeoutError, match="too late"):
            hub.park(waiter())

    def waiter() -> Waiter:
        made = Waiter(hub, "wait for trouble")
        hub.call_later(1, made.fail, TimeoutError("too late"))
        return made

    with record() as recording:
        task = named("waiting", wait)
        sleep(1)
        queue.put("x" * 1000)
        task.join()
    given = [passed for _, target, passed in switches(recording) if target == "waiting"]
    assert given[0] == "" and given[2] == "raises TimeoutError('too late')"
    assert given[1].startswith("'xxx") and len(given[1]) <= 60


def test_timeout_is_what_woke_it(hub: Hub) -> None:
    with record() as recording:
        Happening().wait(timeout=3)
    assert [found[:4] for found in wakes(recording)] == [(3, "wake", "hub", MAIN)]
    assert switches(recording)[-1] == ("hub", MAIN, "TIMED_OUT")


# --- who woke it, and when --------------------------------------------------------------------------------------------


def by_event(hub: Hub, wait: Callable[[Callable[[], Any]], None]) -> Callable[[], Any]:
    happening = Happening()
    wait(happening.wait)
    return happening.set


def by_lock(hub: Hub, wait: Callable[[Callable[[], Any]], None]) -> Callable[[], Any]:
    lock = Lock()
    lock.acquire()
    wait(lock.acquire)
    return lock.release


def by_queue(hub: Hub, wait: Callable[[Callable[[], Any]], None]) -> Callable[[], Any]:
    queue: Queue[int] = Queue()
    wait(queue.get)
    return lambda: queue.put_nowait(1)


def by_error(hub: Hub, wait: Callable[[Callable[[], Any]], None]) -> Callable[[], Any]:
    waiters: list[Waiter] = []

    def park() -> None:
        waiters.append(Waiter(hub, "wait to fail"))
        with pytest.raises(KeyError):
            hub.park(waiters[0])

    wait(park)
    return lambda: waiters[0].fail(KeyError())


@pytest.mark.parametrize("by", [by_event, by_lock, by_queue, by_error])
def test_wake_is_noted_when_it_happens_not_when_its_waker_stops(
    hub: Hub, time: VirtualTime, by: Callable[[Hub, Callable[[Callable[[], Any]], None]], Callable[[], Any]]
) -> None:
    with record() as recording:
        waiting: list[greenswitch.Task] = []
        wake = by(hub, lambda wait: waiting.append(named("waiting", wait)))
        sleep(1)
        wake()
        time.now += 10  # computing
        waiting[0].join()
    [(when, _, who, _, why)] = [found for found in wakes(recording) if found[1:4:2] == ("wake", "waiting")]
    assert (when, who) == (1, MAIN)
    assert ("parked", why) in became(recording, "waiting")
    assert [span[0::2] for span in recording.spans()["waiting"]][-2:] == [("ready", 1), ("running", 11)]


def test_second_wake_of_the_same_task_is_noted_when_it_happens_too(hub: Hub, time: VirtualTime) -> None:
    events = [Happening(), Happening()]

    def wait() -> None:
        for event in events:
            event.wait()

    with record() as recording:
        waiting = named("waiting", wait)
        sleep(1)
        for event in events:
            event.set()
            time.now += 10  # computing
            sleep(1)
        waiting.join()
    assert [found[0] for found in wakes(recording) if found[1:4:2] == ("wake", "waiting")] == [1, 12]


def test_spawn_is_noted_when_it_happens(hub: Hub, time: VirtualTime) -> None:
    with record() as recording:
        sleep(1)
        task = named("spawned", sleep, 0)
        time.now += 10
        later = spawn_later(5, sleep, 0)
        later.name = "later"
        time.now += 10
        joinall([task, later])
    assert [found for found in wakes(recording) if found[1] == "spawn"] == [
        (1, "spawn", MAIN, "spawned", ""),
        (21, "spawn", "hub", "later", ""),
    ]


def test_who_was_ready_before_the_recording_is_woken_by_nobody(hub: Hub) -> None:
    early, sleeper = named("early", sleep, 0), named("sleeper", sleep, 1)
    sleep(0)
    event = Happening()
    waiting = named("waiting", event.wait)
    sleep(0)
    event.set()
    with record() as recording:
        joinall([early, waiting, sleeper])
    assert [found[1:] for found in wakes(recording) if found[3] != MAIN] == [("wake", "hub", "sleeper", "sleep 1")]


def test_wake_in_the_midst_of_noting_is_noted_too(hub: Hub) -> None:
    event = Happening()

    class Ringing:
        def __repr__(self) -> str:
            event.set()
            return "a bell"

    with record() as recording:
        waiting = named("waiting", event.wait)
        sleep(0)
        ringing = Ringing()
        other = greenlet.greenlet(lambda bell: None)
        other.switch(ringing)
        waiting.join()
    assert [found[1:4] for found in wakes(recording)][:2] == [("spawn", MAIN, "waiting"), ("wake", MAIN, "waiting")]


def test_other_threads_may_call_in_while_the_queue_is_looked_at(real_hub: Hub) -> None:
    def call() -> None:
        for _ in range(20_000):
            real_hub.call_threadsafe(int)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=call)
    thread.start()
    try:
        with record(limit=100) as recording:
            tasks = [spawn(lambda: [sleep(0) for _ in range(200)]) for _ in range(5)]
            joinall(tasks)
    finally:
        thread.join()
        sys.setswitchinterval(interval)
    assert recording.complete
    assert [task.successful() for task in tasks] == [True] * 5


def test_tasks_of_groups_and_pools_are_tasks(hub: Hub) -> None:
    with record() as recording:
        with TaskGroup() as group:
            group.spawn(sleep, 0).name = "child"
        Pool(1).spawn(sleep, 0).join()
    spawned = [event.target for event in recording if event.kind == "spawn"]
    assert spawned[0] == "child" and spawned[1].startswith("sleep-")


def test_task_woken_by_another_thread_is_woken_at_the_hubs_turn(real_hub: Hub) -> None:
    waiters: list[Waiter] = []

    def park() -> None:
        waiters.append(Waiter(real_hub, "wait for a thread"))
        real_hub.park(waiters[0])

    def wake() -> None:
        while not real_hub.asleep:
            pass
        waiters[0].wake("from afar")

    real_hub.others_could_wake = lambda: True
    with record() as recording:
        task = named("parked", park)
        sleep(0.001)
        thread = threading.Thread(target=wake)
        thread.start()
        task.join()
        thread.join()
    assert [found[1:3] for found in wakes(recording) if found[3] == "parked"] == [("spawn", MAIN), ("wake", "hub")]
    assert "'from afar'" in [passed for _, _, passed in switches(recording)]


# --- both, and any program --------------------------------------------------------------------------------------------


def test_greenlets_switched_by_hand_inside_a_task_have_lanes_of_their_own(hub: Hub) -> None:
    with record() as recording:
        named("player", relay.ping_pong, 1).join()
    assert switches(recording)[1:7] == [
        ("hub", "player", "1"),
        ("player", "play_ping", "0"),
        ("play_ping", "play_pong", "1"),
        ("play_pong", "play_ping", "2"),
        ("play_ping", "player", "its result"),
        ("player", "play_pong", "raises GreenletExit"),
    ]


def test_task_named_hub_is_not_the_hub(hub: Hub) -> None:
    with record() as recording:
        named("hub", sleep, 1).join()
    assert recording.lanes == [MAIN, "'hub'", "hub"]


def test_recording_may_be_made_by_a_task_of_what_all_do(hub: Hub) -> None:
    recordings: list[Recording] = []

    def look() -> None:
        with record() as recording:
            sleep(5)
        recordings.append(recording)

    looking = named("looking", look)
    sleep(1)
    named("seen", sleep, 1).join()
    looking.join()
    assert recordings[0].lanes[:2] == ["looking", "hub"]
    assert "seen" in recordings[0].lanes
    assert [span.state for span in recordings[0].spans()["looking"]] == ["running", "parked", "ready", "running"]


@pytest.mark.parametrize("seed", range(20))
def test_any_program_runs_in_the_order_that_is_recorded(seed: int, hub: Hub) -> None:
    chance = random.Random(seed)
    lock, queue = Lock(), Queue[int]()
    log: list[str] = []
    children: list[greenswitch.Task] = []

    def step(name: str, depth: int) -> None:
        match chance.randrange(6):
            case 0:
                sleep(chance.randrange(3))
            case 1:
                with lock:
                    log.append(name)
                    sleep(chance.randrange(2))
            case 2:
                queue.put(1)
            case 3 if not queue.empty():
                queue.get()
            case 4 if depth < 3:
                start(f"{name}.{len(children)}", depth + 1)
            case 5 if chance.random() < 0.2:
                chance.choice(children).kill(block=False)
            case _:
                sleep(0)

    def work(name: str, depth: int) -> None:
        log.append(name)
        for _ in range(chance.randrange(8)):
            try:
                step(name, depth)
            finally:
                log.append(name)

    def start(name: str, depth: int) -> None:
        children.append(named(name, work, name, depth))

    with record() as recording:
        for number in range(6):
            start(str(number), 0)
        while not all(child.ready() for child in children):
            joinall(children)
    ran = [event for event in recording if event.kind == "switch"]
    assert all(before.target == after.source for before, after in itertools.pairwise(ran))
    tasks = [event.target for event in ran if event.target not in (MAIN, "hub")]
    assert [name for name, _ in itertools.groupby(tasks)] == [name for name, _ in itertools.groupby(log)]
    woken = [event.target for event in recording if event.kind in ("wake", "spawn")]
    left = [event.source for event in ran if event.state == "parked" and event.source != "hub"]
    assert sorted(woken) == sorted(left + [child.name for child in children])
