"""fork: the child has a hub of its own, and none of the parent's tasks. Each in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

ROOT = Path(__file__).parents[2]

PRELUDE = """
import gc, os, socket, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
from greenlet import greenlet
from greenswitch import get_hub, joinall, run, sleep, spawn, wait_readable

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

PARENT = os.getpid()

def others():
    '''Tasks of the parent's: parked for a timer, for a descriptor, ready, and new.'''
    def with_finally(wait, *args):
        try:
            wait(*args)
        finally:
            if os.getpid() != PARENT:
                say("the parent's finally block runs in the child")
    reading, writing = os.pipe()
    tasks = [spawn(with_finally, sleep, 0.02), spawn(with_finally, wait_readable, reading), spawn(with_finally, sleep)]
    sleep(0)
    tasks.append(spawn(with_finally, sleep))
    return tasks, writing

def finish(tasks, writing):
    os.write(writing, b"x")
    joinall(tasks, raise_error=True)
    say("parent fine")

def reap(pid):
    say("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def in_child():
    sleep(0.03)
    reading, writing = os.pipe()
    spawn(os.write, writing, b"x")
    wait_readable(reading, 5)
    joinall([spawn(sleep, 0.001) for _ in range(5)])
    gc.collect()
    say("child fine")
"""


def script(body: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body)], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def test_child_forked_by_main() -> None:
    said = script("""
    tasks = others()
    pid = os.fork()
    if not pid:
        in_child()
        os._exit(7)
    reap(pid)
    finish(*tasks)
    """)
    assert said == ["child fine", "status 7", "parent fine"]


@pytest.mark.parametrize("start", ["spawn(forks).join()", "run(forks)", "greenlet(forks).switch()"])
def test_child_forked_by_a_task_or_greenlet(start: str) -> None:
    said = script(f"""
    def forks():
        tasks = others()
        pid = os.fork()
        if not pid:
            in_child()
            os._exit(7)
        reap(pid)
        finish(*tasks)
    {start}
    """)
    assert said == ["child fine", "status 7", "parent fine"]


def test_child_forked_by_the_main_task_of_run_ends_as_run_ends() -> None:
    said = script("""
    def main():
        tasks = others()
        pid = os.fork()
        if not pid:
            in_child()
            spawn(sleep, 1000)
            sys.exit(5)
        reap(pid)
        finish(*tasks)
    run(main)
    """)
    assert said == ["child fine", "status 5", "parent fine"]


def test_child_forked_by_a_callback() -> None:
    said = script("""
    def forks():
        global pid
        pid = os.fork()
        if not pid:
            spawn(lambda: (in_child(), os._exit(7)))
    tasks = others()
    get_hub().call_soon(forks)
    sleep(0.01)
    reap(pid)
    finish(*tasks)
    """)
    assert said == ["child fine", "status 7", "parent fine"]


def test_child_forked_in_another_thread() -> None:
    said = script("""
    def forks():
        pid = os.fork()
        if not pid:
            in_child()
            os._exit(7)
        reap(pid)
    tasks = others()
    thread = threading.Thread(target=forks)
    thread.start()
    thread.join()
    finish(*tasks)
    """)
    assert said == ["child fine", "status 7", "parent fine"]


def test_child_of_a_child_works_too() -> None:
    said = script("""
    def forks(depth):
        pid = os.fork()
        if not pid:
            if depth:
                forks(depth - 1)
            in_child()
            os._exit(depth)
        reap(pid)
    tasks = others()
    spawn(forks, 2).join()
    finish(*tasks)
    """)
    assert said == ["child fine", "status 0", "child fine", "status 1", "child fine", "status 2", "parent fine"]


def test_main_that_waits_for_a_descriptor_looks_again_in_the_child() -> None:
    said = script("""
    one, other = socket.socketpair()
    one.setblocking(False)
    def forks():
        global pid
        pid = os.fork()
        if not pid:
            sleep(0.01)
            other.send(b"child")
        else:
            reap(pid)
            other.send(b"parent")
    spawn(forks)
    while True:
        wait_readable(one, 5)
        try:
            say(one.recv(10).decode(), "read")
            break
        except BlockingIOError:
            continue
    if not pid:
        os._exit(0)
    """)
    assert said == ["child read", "status 0", "parent read"]


def test_hubs_beneath_a_nested_one_are_fresh_too() -> None:
    said = script("""
    from greenswitch import Hub
    with Hub():
        tasks = others()
        with Hub() as inner:
            pid = os.fork()
            if not pid:
                inner.close()
        if not pid:
            in_child()
            os._exit(7)
        reap(pid)
        finish(*tasks)
    """)
    assert said == ["child fine", "status 7", "parent fine"]


def test_lock_that_another_threads_hub_stood_in_line_for_goes_to_the_child() -> None:
    said = script("""
    from greenswitch import Lock, timeout

    lock = Lock()
    lock.acquire()
    other = threading.Thread(target=lock.acquire, daemon=True)
    other.start()
    while "1 waiting" not in repr(lock):
        sleep(0.001)
    pid = os.fork()
    if not pid:
        lock.release()
        with timeout(5):
            lock.acquire()
        say("child got it")
        os._exit(0)
    reap(pid)
    lock.release()
    other.join()
    """)
    assert said == ["child got it", "status 0"]


@pytest.mark.parametrize("wait", ["sleep(0)", "event.wait()"])
def test_main_that_was_ready_goes_on_in_the_child_too(wait: str) -> None:
    said = script(f"""
    from greenswitch import Event
    event, pid = Event(), None
    def forks():
        global pid
        event.set()
        pid = os.fork()
    forking = spawn(forks)
    {wait}
    forking.join()
    if not pid:
        in_child()
        os._exit(7)
    reap(pid)
    say("parent fine")
    """)
    assert said == ["child fine", "status 7", "parent fine"]


@pytest.mark.parametrize("end", ["return", "sys.exit(3)", "raise SystemExit"])
@pytest.mark.parametrize("main", ["pass", "time.sleep(0.3)", "[time.sleep(0) for _ in iter(thread.is_alive, False)]"])
def test_child_that_a_patched_thread_has_forked_ends_with_its_threads(main: str, end: str) -> None:
    said = script(f"""
    from greenswitch import monkey; monkey.patch_all()
    import time
    def forks():
        time.sleep(0.01)
        pid = os.fork()
        if not pid:
            threading.Thread(target=lambda: (time.sleep(0.02), say("child's other thread"))).start()
            {end}
        reap(pid)
    thread = threading.Thread(target=forks)
    thread.start()
    {main}
    thread.join()
    say("main in", "parent" if os.getpid() == PARENT else "child")
    """)
    assert said == ["child's other thread", "status 0", "main in parent"]


@pytest.mark.parametrize("hit", ["sleep(30)", "spawn(sleep, 30).join()", "while True: sleep(0)", "while True: pass"])
def test_child_forked_by_a_signal_handler(hit: str) -> None:
    said = script(f"""
    import signal
    class Forked(Exception):
        pass
    def forks(number, frame):
        global pid
        pid = os.fork()
        raise Forked
    signal.signal(signal.SIGALRM, forks)
    get_hub()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        {hit}
    except Forked:
        pass
    if not pid:
        in_child()
        os._exit(7)
    reap(pid)
    """)
    assert said == ["child fine", "status 7"]
