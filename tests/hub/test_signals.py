"""Ctrl-C, SystemExit and signal handlers: each in a fresh process, since they end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

ROOT = Path(__file__).parents[2]

PRELUDE = """
import os, signal, sys, threading, time
import greenswitch
from greenswitch import DeadlockError, get_hub, run, sleep, spawn

def ctrl_c_after(seconds):
    def later():
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=later, daemon=True).start()

def stubborn():
    try:
        sleep(1000)
    finally:
        sleep(0.001)
        print("cleaned up", flush=True)
"""


def script(body: str) -> subprocess.CompletedProcess[str]:
    """Run `body` after the prelude in a fresh Python."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body)], cwd=ROOT, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    "main",
    ["sleep(1000)", "spawn(sleep, 1000).join()", "[x for x in iter(int, 1)]", "[sleep(0) for x in iter(int, 1)]"],
    ids=["sleeps", "joins", "computes", "yields"],
)
@pytest.mark.parametrize("how", ["run", "bare"])
def test_ctrl_c_ends_the_program_as_it_ends_plain_python(main: str, how: str) -> None:
    body = f"""
    def main():
        spawn(stubborn)
        sleep(0)
        ctrl_c_after(0.05)
        {main}
    {"run(main)" if how == "run" else "main()"}
    """
    done = script(body)
    assert done.returncode == -signal.SIGINT, done
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    if how == "run":
        assert done.stdout == "cleaned up\n"


def test_ctrl_c_while_another_task_computes_reaches_main_which_may_go_on() -> None:
    done = script("""
    def compute():
        ctrl_c_after(0.05)
        while True:
            pass
    def main():
        spawn(stubborn)
        return spawn(compute).join()
    try:
        run(main)
    except KeyboardInterrupt:
        print("main knows")
    print(run(lambda: 5))
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned up\nmain knows\n5\n", "")


def test_ctrl_c_caught_by_main_leaves_a_hub_that_works() -> None:
    done = script("""
    ticks = []
    def tick():
        while True:
            sleep(0.001)
            ticks.append(1)
    task = spawn(tick)
    for _ in range(20):
        try:
            ctrl_c_after(0.005)
            sleep(1000)
        except KeyboardInterrupt:
            pass
        if task.dead:  # it has met the Ctrl-C in its own lines
            task = spawn(tick)
        before = len(ticks)
        while len(ticks) == before:  # for ever, if the hub or the task has lost something
            sleep(0.001)
    task.kill()
    print(task.state, len(get_hub().ready))
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "killed 0\n", "")


def test_ctrl_c_in_a_busy_hub_loses_nobody() -> None:
    done = script("""
    def busy():
        while True:
            sleep(0)
    def main():
        tasks.extend(spawn(busy) for _ in range(10))
        sleep(0)
        ctrl_c_after(n * 0.0001)
        sleep(1000)
    for n in range(30):  # no more: beside a busy hub, which polls often, a thread waits long for the GIL
        tasks = []
        before = time.monotonic()
        try:
            run(main, grace=5)
        except KeyboardInterrupt:
            pass
        states = [task.state for task in tasks]  # one may have met the Ctrl-C in its own lines
        if states.count("killed") < 9 or states.count("failed") > 1 or time.monotonic() - before > 4:
            print("round", n, states)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_handler_of_the_programs_own_stays_and_the_default_comes_back() -> None:
    done = script("""
    run(lambda: print(signal.getsignal(signal.SIGINT) is signal.default_int_handler))
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    def own(*_): pass
    signal.signal(signal.SIGINT, own)
    run(lambda: print(signal.getsignal(signal.SIGINT) is own))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    def main():
        spawn(lambda: spawn(sleep, 1).join()).kill()
        from greenswitch.hub import Waiter
        try:
            get_hub().park(Waiter(get_hub(), "wait"))
        except greenswitch.HubError:
            pass
    try:
        run(main)
    except DeadlockError:
        print("deadlock")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nTrue\nTrue\ndeadlock\n", "")


@pytest.mark.parametrize("status", ["3", "None", "'with a text'"])
@pytest.mark.parametrize("where", ["main", "task", "callback"])
def test_exit_status_is_kept_and_finally_blocks_run(where: str, status: str) -> None:
    calls = {
        "main": "sys.exit(STATUS)",
        "task": "spawn(sys.exit, STATUS); sleep(1000)",
        "callback": "get_hub().call_later(0.001, sys.exit, STATUS); sleep(1000)",
    }
    done = script(f"""
    def main():
        spawn(stubborn)
        sleep(0)
        {calls[where].replace("STATUS", status)}
    run(main)
    """)
    expected = {"3": (3, ""), "None": (0, ""), "'with a text'": (1, "with a text\n")}[status]
    assert (done.returncode, done.stderr, done.stdout) == (*expected, "cleaned up\n")


def test_second_ctrl_c_ends_the_grace_period() -> None:
    done = script("""
    def refuses():
        while True:
            try:
                sleep(1000)
            except BaseException:
                ctrl_c_after(0.05)  # the second one, when the first has led to a kill
    def main():
        spawn(refuses)
        sleep(0)
        ctrl_c_after(0.05)
        sleep(1000)
    run(main, grace=1000)
    """)
    assert done.returncode == -signal.SIGINT, done


def test_signal_handler_that_wakes_is_no_deadlock() -> None:
    done = script("""
    from greenswitch.hub import Waiter
    waiter = Waiter(get_hub(), "wait")
    signal.signal(signal.SIGALRM, lambda *_: waiter.wake("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    print(get_hub().park(waiter))
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alarm\n", "")


def test_signal_handler_that_raises_is_heard_by_main() -> None:
    done = script("""
    class Alarm(Exception): pass
    def handler(*_): raise Alarm
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        sleep(1000)
    except Alarm:
        print("heard")
    sleep(0.01)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard\n", "")


def test_nobody_left_to_wake_main_is_a_deadlock_in_a_plain_program() -> None:
    done = script("""
    def a(): b_task.join()
    def b(): a_task.join()
    a_task, b_task = spawn(a), spawn(b)
    try:
        a_task.join()
    except DeadlockError as error:
        print(str(error).count("join Task"))
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_failure_nobody_asked_for_is_reported_at_the_end_of_the_program() -> None:
    done = script("""
    def fail(): raise ValueError("lost?")
    def main():
        global kept
        kept = spawn(fail)
        sleep(0.01)
    run(main)
    """)
    assert done.returncode == 0
    assert done.stderr.count("ValueError: lost?") == 1
    assert "Task 'fail-" in done.stderr
