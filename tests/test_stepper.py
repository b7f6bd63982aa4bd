"""The stepper over programs that run on the hub."""

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import greenlet as raw
import pytest

import greenswitch
from greenswitch import core, sockets
from greenswitch.core import relay
from greenswitch.recorder import record
from greenswitch.stepper import Stepper
from greenswitch.testing import VirtualTime


def stepping_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stepper of")]


@pytest.fixture(autouse=True)
def nothing_is_left(no_leaked_fds):
    yield
    gc.collect()
    until = time.monotonic() + 5
    while stepping_threads() and time.monotonic() < until:
        time.sleep(0.001)
    assert stepping_threads() == []


def virtually(main, *args):
    """Run in virtual time, and take a deadlock for one though other threads run: they wake nobody here."""
    hub = VirtualTime().hub()
    hub.others_could_wake = lambda: False
    return greenswitch.run(main, *args, hub=hub)


def titles(steps):
    return [step.title for step in steps]


def cook(dish, seconds):
    greenswitch.sleep(seconds)
    return dish.upper()


def named(name, function, *args):
    task = greenswitch.spawn(function, *args)
    task.name = name
    return task


def kitchen():
    fish, soup = named("fish", cook, "fish", 2), named("soup", cook, "soup", 1)
    return fish.get() + soup.get()


# --- what a step says -------------------------------------------------------------------------------------------------


def test_tasks_are_shown_with_their_own_lines_and_never_a_carrier():
    stepper = Stepper(virtually, kitchen)
    assert titles(stepper) == [
        "main greenlet → hub",
        "hub → kitchen",
        "kitchen → hub",
        "hub → fish, passes dish='fish', seconds=2",
        "fish → hub",
        "hub → soup, passes dish='soup', seconds=1",
        "soup → hub",
        "hub → soup",
        "soup → hub",
        "hub → fish",
        "fish → kitchen, passes Task 'fish'",
        "kitchen → main greenlet, passes Task 'kitchen'",
        "main greenlet returns 'FISHSOUP': the program has ended",
    ]
    assert stepper.finish() == "FISHSOUP"
    soup_ends = stepper.steps[8]
    assert (soup_ends.left.did, soup_ends.left.source) == ("returns 'SOUP'", "return dish.upper()")


def test_a_step_says_who_is_ready_and_who_is_parked_on_what_and_where():
    with Stepper(virtually, kitchen) as stepper:
        third, *_, last = stepper.run(5)[2:]
        assert third.ready == ("fish", "soup")
        assert last.ready == ("soup",)
        assert [(side.name, side.did) for side in last.parked] == [
            ("main greenlet", "join Task 'kitchen'"), ("kitchen", "join Task 'fish'"), ("fish", "sleep 2")
        ]
        line = cook.__code__.co_firstlineno + 1
        assert str(last).splitlines()[:4] == [
            "step 5: fish → hub",
            f"  fish  waits: sleep 2       test_stepper.py:{line}  greenswitch.sleep(seconds)",
            "  hub   looks who can go on",
            "  ready: soup",
        ]
        assert "parked" in last._repr_html_() and "greenswitch.sleep(seconds)" in last._repr_html_()


def test_of_three_hundred_the_first_hundred_are_listed():
    def main():
        greenswitch.joinall([greenswitch.spawn(greenswitch.sleep, 1) for _ in range(300)])

    with Stepper(virtually, main) as stepper:
        many_ready = stepper.run(3)[-1]
        many_parked = stepper.run(250)[-1]
    assert len(many_ready.ready) == 101 and many_ready.ready[-1] == "…"
    assert len(many_parked.parked) == 101 and many_parked.parked[-1].did == "and more"


def test_main_that_runs_without_run_is_stepped_through_as_well():
    def main():
        return [task.value for task in greenswitch.joinall([named(dish, cook, dish, 0) for dish in ("soup", "fish")])]

    stepper = Stepper(main)
    assert titles(stepper) == [
        "main greenlet → hub",
        "hub → soup, passes dish='soup', seconds=0",
        "soup → hub",
        "hub → fish, passes dish='fish', seconds=0",
        "fish → soup",
        "soup → fish",
        "fish → main greenlet, passes Task 'soup'",
        "main greenlet returns ['SOUP', 'FISH']: the program has ended",
    ]
    assert stepper.steps[4].left.did == "steps aside" and stepper.steps[4].ready == ("fish",)


def test_a_carrier_that_goes_on_with_the_next_task_makes_a_step():
    def add(number):
        return number + 1

    def main():
        greenswitch.joinall([named(f"add-{number}", add, number) for number in range(3)])

    steps = list(Stepper(virtually, main))
    between = [step for step in steps if step.left.name == "add-0"]
    assert titles(between) == ["add-0 → add-1, passes number=1"]
    assert between[0].left.did == "returns 1" and between[0].entered.did == "starts"
    assert between[0].ready[0] == "add-2"


def test_a_carrier_that_has_rested_is_seen_to_start_the_next_task():
    def main():
        named("first", cook, "soup", 0).join()
        named("second", cook, "fish", 0).join()

    steps = list(Stepper(virtually, main))
    second = next(step for step in steps if step.entered is not None and step.entered.name == "second")
    assert (second.passed, second.entered.did) == ("dish='fish', seconds=0", "starts")
    assert second.entered.source == "def cook(dish, seconds):"


def test_tasks_that_fail_and_are_killed_say_so():
    def fail():
        raise KeyError("tea")

    def main():
        bad, idle = named("bad", fail), named("idle", greenswitch.sleep, 9)
        idle_too = named("cook", cook, "x", 9)
        bad.join()
        greenswitch.killall([idle, idle_too])
        return str(bad.exception)

    stepper = Stepper(virtually, main)
    did = {step.left.name: step.left.did for step in stepper}
    assert did["bad"] == "raises KeyError('tea')" and did["cook"] == "is ended by GreenletExit"
    thrown = [step for step in stepper.steps if step.thrown]
    assert {step.entered.name for step in thrown} >= {"cook"} and stepper.finish() == "'tea'"


def test_a_lock_a_queue_and_a_socket_are_named():
    def reader(end):
        with end:
            end.recv(10)

    def main():
        one, two = sockets.socketpair()
        lock, queue = greenswitch.Lock(), greenswitch.Queue()
        with lock, two:
            tasks = [named("locked", lock.acquire), named("getter", queue.get), named("reader", reader, one)]
            greenswitch.sleep(0)
            greenswitch.sleep(0)
            queue.put(5)
            two.send(b"x")
        greenswitch.joinall(tasks)

    stepper = Stepper(greenswitch.run, main)
    steps = stepper.run(100)
    reasons = {side.name: side.did for step in steps for side in step.parked}
    assert reasons["locked"].startswith("acquire <Lock") and reasons["getter"].startswith("get from <Queue")
    assert reasons["reader"].startswith("read <fd ")


def test_a_tasks_function_may_be_one_of_our_own():
    steps = list(Stepper(virtually, lambda: named("idle", greenswitch.sleep, 1).join()))
    assert any(side.name == "idle" and side.did == "sleep 1" for step in steps for side in step.parked)


def test_a_program_without_a_hub_is_shown_as_by_the_other_stepper():
    assert list(Stepper(relay.ping_pong, 3)) == list(core.Stepper(relay.ping_pong, 3))


def test_greenlets_switched_by_hand_beside_the_hub_are_told_apart_from_tasks():
    def main():
        green = raw.greenlet(lambda: raw.getcurrent().parent.switch())
        green.name = "by hand"
        green.switch()
        greenswitch.sleep(1)
        green.switch()

    steps = list(Stepper(virtually, main))
    asleep = next(step for step in steps if step.left.did == "waits: sleep 1")
    assert [side.name for side in asleep.suspended] == ["by hand"]
    assert [side.name for side in asleep.parked] == ["main greenlet", "main"]


# --- programs that hang -----------------------------------------------------------------------------------------------


def test_a_deadlock_ends_the_program_with_its_report():
    def main():
        named("waiting", greenswitch.Event().wait).join()

    stepper = Stepper(virtually, main)
    stepper.until(lambda step: step.thrown)
    with pytest.raises(greenswitch.DeadlockError, match="waiting"):
        stepper.finish()


def test_a_hub_that_sleeps_too_long_for_a_step_says_who_waits():
    with Stepper(greenswitch.run, cook, "fish", 60) as stepper:
        stepper.run(3)
        with pytest.raises(TimeoutError, match=r"'hub' still runs.*parked: .*cook \(sleep 60\)"):
            stepper.step(timeout=0.05)


def test_a_step_waits_for_what_comes_from_outside():
    def main():
        here, there = sockets.socketpair()
        outside.append(there)
        with here, there:
            return here.recv(5)

    outside = []
    stepper = Stepper(greenswitch.run, main)
    stepper.until(lambda step: any(side.did.startswith("read") for side in step.parked))
    os.write(outside[0].fileno(), b"hello")
    assert stepper.finish() == b"hello"


# --- ending early -----------------------------------------------------------------------------------------------------


def with_finally(ended, function, *args):
    try:
        function(*args)
    finally:
        greenswitch.sleep(0)
        ended.append(function.__name__)


@pytest.mark.parametrize("steps", range(1, 8))
def test_closing_runs_the_finally_blocks_of_all_tasks_wherever_it_stands(steps):
    def main():
        tasks = [greenswitch.spawn(with_finally, ended, function, 60) for function in (greenswitch.sleep, nap)]
        begun.append(True)
        with_finally(ended, greenswitch.joinall, tasks)

    def nap(seconds):
        begun.append(True)
        greenswitch.sleep(seconds)

    ended, begun, stepper = [], [], Stepper(greenswitch.run, main)
    stepper.run(steps)
    stepper.close()
    assert ("joinall" in ended) == (len(begun) > 0) and ("nap" in ended) == (len(begun) > 1)


def test_closing_while_the_hub_sleeps_wakes_it():
    ended = []
    stepper = Stepper(greenswitch.run, with_finally, ended, greenswitch.sleep, 60)
    stepper.run(3)
    with pytest.raises(TimeoutError):
        stepper.step(timeout=0.01)
    began = time.monotonic()
    stepper.close()
    assert ended == ["sleep"] and time.monotonic() - began < 5


def test_closing_reaches_a_task_that_computes_for_ever():
    def spin():
        while True:
            pass

    ended = []
    stepper = Stepper(greenswitch.run, with_finally, ended, spin)
    stepper.run(2)
    with pytest.raises(TimeoutError, match="in spin"):
        stepper.step(timeout=0.01)
    stepper.close()
    assert ended == ["spin"]


def spin(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.mark.parametrize("waits_for_step", [False, True])
@pytest.mark.parametrize("function", [greenswitch.sleep, spin])
def test_a_dropped_stepper_ends_its_tasks_and_closes_its_hub(function, waits_for_step):
    ended = []
    stepper = Stepper(greenswitch.run, with_finally, ended, function, 60)
    stepper.run(2)
    if waits_for_step:
        with pytest.raises(TimeoutError):
            for _ in range(2):
                stepper.step(timeout=0.02)
    del stepper
    until = time.monotonic() + 5
    while stepping_threads() and time.monotonic() < until:
        time.sleep(0.001)
    # One that stood just before its first line has never begun.
    assert ended == ([function.__name__] if waits_for_step else [])


# --- beside others ----------------------------------------------------------------------------------------------------


def test_a_recorded_program_can_be_stepped_through():
    def main():
        with record() as recording:
            named("soup", cook, "soup", 1).join()
        return [event.target for event in recording if event.kind == "switch"]

    stepper = Stepper(virtually, main)
    assert len(list(stepper)) > 5
    assert "soup" in stepper.finish()


def test_two_hubs_are_stepped_through_by_turns_and_from_inside_a_third(hub):
    one, two = Stepper(virtually, kitchen), Stepper(virtually, kitchen)
    for left, right in zip(one, two, strict=True):
        assert left.title == right.title
    assert one.finish() == two.finish() == greenswitch.spawn(one.finish).get() == "FISHSOUP"


INTERRUPTED = """
import os, signal, sys, threading, time
import greenswitch
from greenswitch.stepper import Stepper

def main():
    try:
        greenswitch.sleep(3600)
    finally:
        print("ended")

stepper = Stepper(greenswitch.run, main)
stepper.run(3)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    stepper.step(timeout=None)
except KeyboardInterrupt:
    print("interrupted")
try:
    stepper.step(timeout=0.01)
except TimeoutError:
    print("still runs")
stepper.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_ctrl_c_ends_the_waiting_for_a_step_and_not_the_program(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=30,
        cwd=Path(greenswitch.__file__).parent.parent, check=False,
    )
    assert (done.stdout.split("\n"), done.stderr, done.returncode) == (
        ["interrupted", "still runs", "ended", ""], "", 0
    )


def test_lines_of_the_kernel_are_nobodys_place() -> None:
    def main() -> None:
        greenswitch.joinall([greenswitch.spawn(greenswitch.sleep, 0), greenswitch.spawn(greenswitch.sleep, 0)])

    stepper = Stepper(greenswitch.run, main)
    steps = [str(step) for step in stepper.until(lambda step: False)]
    assert any("join" in step for step in steps)
    assert not [step for step in steps for file in ("running.py", "waiting.py", "tasks.py", "hub.py") if file in step]
