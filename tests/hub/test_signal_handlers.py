"""Signal handlers: they run at once, may wait, and raise in main, whatever they hit. Programs run in a process each."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")

HEADER = """
import os, signal, sys, threading, time
import greenswitch
from greenswitch import Event, Lock, Queue, get_hub, run, sleep, spawn, spawn_later

def send(number=signal.SIGUSR1): os.kill(os.getpid(), number)
"""
PATCHED = "from greenswitch import monkey; monkey.patch_all()\n"


def output(program: str, patched: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-c", (PATCHED if patched else "") + HEADER + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


STARTS = {
    "spawn": "spawn(done.set)",
    "spawn_later": "spawn_later(0.001, done.set)",
    "call_soon": "hub.call_soon(done.set)",
    "call_later": "hub.call_later(0.001, done.set)",
    "pool": "pool.spawn(done.set)",
    "group": "group.spawn(done.set)",
    "set": "done.set()",
}


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("through_run", [True, False])
def test_what_a_handler_starts_while_the_hub_sleeps_runs_at_once(how: str, through_run: bool) -> None:
    assert (
        output(f"""
    def main():
        global hub, pool, group, done
        hub, pool, done = get_hub(), greenswitch.Pool(3), Event()
        signal.signal(signal.SIGALRM, lambda *_: {STARTS[how]})
        with greenswitch.TaskGroup() as group:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            print(done.wait(30))
    {"run(main)" if through_run else "main()"}
    """)
        == "True\n"
    )


@pytest.mark.parametrize("start", ["threading.Thread(target=done.set)", "threading.Timer(0.001, done.set)"])
def test_thread_that_a_handler_starts_runs_at_once(start: str) -> None:
    assert (
        output(
            f"""
    done = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: {start}.start())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    print(done.wait(30))
    """,
            patched=True,
        )
        == "True\n"
    )


HITS = {
    "the hub asleep": "signal.setitimer(signal.ITIMER_REAL, 0.05); wait()",
    "a task": "spawn(lambda: (send(signal.SIGALRM), log.append('went on'))); wait()",
    "a callback": "get_hub().call_soon(lambda: (send(signal.SIGALRM), log.append('went on'))); wait()",
    "main": "send(signal.SIGALRM); wait()",
}


@pytest.mark.parametrize("error", ["TimeoutError", "ValueError", "OSError", "LookupError", "KeyboardInterrupt"])
@pytest.mark.parametrize(
    ("program", "hit"),
    # In an unpatched program outside of run() Python itself calls the handlers, in whatever task runs.
    [("bare", "the hub asleep"), ("bare", "main"), *((program, hit) for program in ("run", "patched") for hit in HITS)],
)
def test_main_gets_what_a_handler_raises_whatever_it_hits(program: str, hit: str, error: str) -> None:
    text = output(
        f"""
    log = []
    def wait():
        {"time.sleep(30)" if program == "patched" else "sleep(30)"}
    def handler(*_): raise {error}("late")
    signal.signal(signal.SIGALRM, handler)
    def main():
        try:
            {HITS[hit]}
        except {error} as error:
            print("main:", error)
        sleep(0)
        print(*log)
    {"run(main)" if program == "run" and error != "KeyboardInterrupt" else "main()" if program != "run" else '''
    try:
        run(main)
    except KeyboardInterrupt as error:
        print("main:", error, *log, sep="")'''}
    """,
        patched=program == "patched",
    )
    assert text.startswith("main:") and "late" in text
    assert ("went on" in text) == (hit in ("a task", "a callback")) or error == "KeyboardInterrupt"


WAITS = {
    "sleeps": "time.sleep(0.01)",
    "takes a lock that a task holds": "with lock: pass",
    "starts a thread and joins it": "t = threading.Thread(target=time.sleep, args=(0.01,)); t.start(); t.join()",
    "logs": "logging.warning('%s', number)",
    "runs a child": "subprocess.run([sys.executable, '-c', ''], check=True)",
    "joins the thread it hit": "busy.join()",
}


@pytest.mark.parametrize("waits", WAITS)
@pytest.mark.parametrize("hit", ["hub", "thread"])
def test_handler_may_wait_whatever_it_hits(hit: str, waits: str) -> None:
    assert (
        output(
            f"""
    import logging, subprocess
    logging.basicConfig(stream=open(os.devnull, "w"))
    lock, ended, log = threading.Lock(), threading.Event(), []
    def handler(number, frame):
        log.append(threading.current_thread() is threading.main_thread())
        {WAITS[waits]}
        log.append("handled")
        ended.set()
    signal.signal(signal.SIGALRM, handler)
    def work():
        with lock:
            {"send(signal.SIGALRM)" if hit == "thread" else "signal.setitimer(signal.ITIMER_REAL, 0.02)"}
            time.sleep(0.05)
        log.append("worked")
    busy = threading.Thread(target=work)
    busy.start()
    ended.wait(30)
    busy.join()
    print(*sorted(map(str, log)))
    """,
            patched=True,
        )
        == "True handled worked\n"
    )


def test_handler_can_take_again_the_reentrant_lock_that_main_holds() -> None:
    assert (
        output(
            """
    lock = threading.RLock()
    def handler(*_):
        with lock:
            print("has it")
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with lock:
        time.sleep(0.2)
    """,
            patched=True,
        )
        == "has it\n"
    )


def test_program_sees_its_own_handlers_and_finds_them_unwrapped_after_run() -> None:
    assert (
        output("""
    import _signal
    def own(*_): pass
    before = signal.signal(signal.SIGUSR1, own)
    def main():
        print(signal.getsignal(signal.SIGUSR1) is own, signal.signal(signal.SIGUSR2, own), signal.Handlers.SIG_DFL)
        print(signal.signal(signal.SIGUSR2, signal.SIG_IGN) is own)
        signal.signal(signal.SIGUSR2, own)
    functions = signal.signal, signal.getsignal
    run(main)
    print((signal.signal, signal.getsignal) == functions)
    print(_signal.getsignal(signal.SIGUSR1) is own, _signal.getsignal(signal.SIGUSR2) is own)
    """)
        == "True 0 0\nTrue\nTrue\nTrue True\n"
    )


# A signal at each line of the kernel in turn: a tracer sends it when the line is about to run for the first time.
AT_EACH_LINE = """
import dis
HANDLER_RAISES = {raises}
seen, hits, target = set(), 0, None

class Told(Exception): pass

def tracer(frame, event, arg):
    global hits
    code = frame.f_code
    if not code.co_filename.startswith(kernel):
        return tracer if event == "call" else None
    if event == "line" and armed and (code, frame.f_lineno) not in seen:
        seen.add((code, frame.f_lineno))
        hits += 1
        if hits == target:
            sys.settrace(None)
            send(signal.SIGUSR1)
    return tracer

def handler(number, frame):
    handled.append(number)
    sleep(0)
    if HANDLER_RAISES:
        raise Told

def program():
    lock, queue, results = Lock(), Queue(1), []
    def worker(number):
        for _ in range(2):
            with lock:
                sleep(0)
            queue.put(number)
            sleep(0.0001)
        results.append(number)
    def taker():
        for _ in range(6):
            queue.get()
        results.append("taker")
    tasks = [spawn(worker, number) for number in range(3)] + [spawn(taker)]
    try:
        greenswitch.joinall(tasks)
    except Told:
        assert HANDLER_RAISES
        greenswitch.joinall(tasks)
    assert sorted(map(str, results)) == ["0", "1", "2", "taker"], results
    assert not lock.locked() and not queue.qsize(), (lock, queue)

kernel = os.path.join(os.path.dirname(greenswitch.__file__), "")
signal.signal(signal.SIGUSR1, handler)
target, missed = 0, 0
while True:
    target += 1
    seen.clear()
    hits, handled, armed = 0, [], True
    def main():
        sys.settrace(tracer)
        sys._getframe().f_trace = tracer
        try:
            program()
        finally:
            sys.settrace(None)
    try:
        run(main)
    except Told:
        missed += 1  # main had no wait left in which it could be raised
    if not handled:
        break
assert target > 100, target
print("every line", "with few after main's last wait" if missed < 30 else missed)
"""


@pytest.mark.slow
@pytest.mark.parametrize("raises", [False, True])
def test_signal_at_any_line_of_the_kernel_loses_nothing(raises: bool) -> None:
    assert output(AT_EACH_LINE.replace("{raises}", str(raises))).startswith("every line")
