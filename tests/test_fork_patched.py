"""fork in a patched program: the child goes on alone, wherever it was forked, and has a hub and poller of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

ROOT = Path(__file__).resolve().parents[1]

PRELUDE = """
from greenswitch import monkey
monkey.patch_all()
import concurrent.futures, multiprocessing, os, queue, socket, subprocess, sys, threading, time, traceback, warnings
import greenswitch
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads

PARENT = os.getpid()
ticks, gates = [], []

def tick():
    try:
        while True:
            time.sleep(0.002)
            ticks.append(1)
            while gates:
                os.write(gates.pop(), b"go")
    finally:
        if os.getpid() != PARENT:
            os.write(1, b"the parent's finally block runs in the child\\n")

def reads_for_ever():
    near, far = socket.socketpair()
    kept.append(far)
    near.recv(1)
    print("the parent's reader reads in the child")

kept = []
for target in (tick, reads_for_ever):
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.01)
parents_poller = greenswitch.get_hub().poller

def alone():
    '''In a child: nobody else is here, and everything works.'''
    before = len(ticks)
    time.sleep(0.02)
    assert len(ticks) == before, "the parent's task runs here"
    assert greenswitch.get_hub().poller is not parents_poller
    assert not [one for one in threading.enumerate() if one.name == "tick"]
    reading, writing = os.pipe()
    box = queue.Queue()
    thread = threading.Thread(target=lambda: box.put(os.read(reading, 10)))
    thread.start()
    time.sleep(0)
    os.write(writing, b"x")
    assert box.get(timeout=5) == b"x"
    thread.join()
    near, far = socket.socketpair()
    far.sendall(b"y")
    assert near.recv(1) == b"y"
    assert subprocess.run(["true"]).returncode == 0

def fork():
    ours, gate = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            alone()
            os.read(ours, 2)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(7)
    before = len(ticks)
    gates.append(gate)
    print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "others ran", len(ticks) > before)

def square(number):
    alone()
    return number * number
"""

PLACES = {
    "main": "fork()",
    "a task": "greenswitch.spawn(fork).get()",
    "a patched thread": "thread = threading.Thread(target=fork); thread.start(); thread.join()",
    "a thread pool": "with concurrent.futures.ThreadPoolExecutor(2) as pool: pool.submit(fork).result()",
    "an OS thread": "greenswitch.to_thread(fork)",
    "a child of a child": """
pid = os.fork()
if pid == 0:
    PARENT = os.getpid()
    parents_poller = greenswitch.get_hub().poller
    threading.Thread(target=tick, daemon=True).start()
    time.sleep(0.01)
    fork()
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
""",
}


def script(source: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=40,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("place", PLACES)
def test_child_of_anybody_runs_none_of_the_parents_tasks(place: str) -> None:
    status, out, err = script(PLACES[place])
    assert (status, err) == (0, "")
    assert out == "status 7 others ran True\n"


@pytest.mark.parametrize("place", ["main", "a task"])
def test_multiprocessing_forks_while_others_run(place: str) -> None:
    source = """
    context = multiprocessing.get_context("fork")
    def use():
        with context.Pool(2) as pool:
            print(pool.map(square, range(4)))
        box = context.Queue()
        process = context.Process(target=lambda: box.put(square(3)))
        process.start()
        print(box.get(timeout=20))
        process.join()
        print(process.exitcode)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            print(list(pool.map(square, range(3))))
    """
    source += "use()\n" if place == "main" else "greenswitch.spawn(use).get()\n"
    assert script(source) == (0, "[0, 1, 4, 9]\n9\n0\n[0, 1, 4]\n", "")


def test_handlers_of_a_fork_that_take_locks_let_no_task_of_the_parent_run_in_the_child() -> None:
    source = """
    from greenswitch.green import _thread
    _thread._TAKEN = 1  # every lock that is taken is an opportunity to let others go on
    sys.setswitchinterval(1e-6)
    os.register_at_fork(before=lambda: time.sleep(0))  # the handler of threading comes before the hub's in the child
    def others():
        while not done:
            time.sleep(0)
            if os.getpid() != PARENT:
                os.write(1, b"the parent's task runs in the child\\n")
                os._exit(1)
    done = []
    threads = [threading.Thread(target=others) for _ in range(3)]
    [thread.start() for thread in threads]
    def fork_often():
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    greenswitch.spawn(fork_often).get()
    done.append(1)
    [thread.join() for thread in threads]
    print("done")
    """
    assert script(source) == (0, "done\n", "")


def test_child_inherits_standard_input_that_parks() -> None:
    source = """
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    pid = os.fork()
    if pid == 0:
        PARENT = os.getpid()
        parents_poller = None
        print(input())
        sys.stdout.flush()
        os._exit(0)
    time.sleep(0.05)
    os.write(writing, b"typed\\n")
    os.waitpid(pid, 0)
    """
    assert script(source) == (0, "typed\n", "")


def test_preexec_function_runs_in_the_child_alone() -> None:
    source = """
    def preexec():
        os.write(1, b"in between\\n")
    subprocess.run(["echo", "then"], preexec_fn=preexec)
    """
    assert script(source) == (0, "in between\nthen\n", "")


def test_child_that_returns_from_main_ends_as_ever() -> None:
    source = """
    import atexit
    pid = os.fork()
    atexit.register(print, "child" if pid == 0 else "parent", "ends")
    if pid:
        os.waitpid(pid, 0)
    """
    assert script(source) == (0, "child ends\nparent ends\n", "")
