"""What a patched program has running beside its sockets: children, executors, logging, timers, all at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow


def test_a_hundred_children_are_waited_for_at_once(script: Callable[..., str]):
    script("""
import subprocess
def child(number):
    done = subprocess.run(["sh", "-c", f"sleep 0.2; echo {number}; exit {number % 7}"], capture_output=True)
    return int(done.stdout), done.returncode
assert at_once(child) == [(n, n % 7) for n in range(100)]
""")


def test_children_are_talked_to_and_time_out(script: Callable[..., str]):
    script("""
import subprocess
def talk(number):
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        return len(cat.communicate(bytes(300_000))[0])
assert at_once(talk, range(20), seconds=5) == [300_000] * 20
def impatient(number):
    try:
        subprocess.run(["sleep", "60"], timeout=0.2)
    except subprocess.TimeoutExpired:
        return "expired"
assert at_once(impatient, range(50)) == ["expired"] * 50
victim = greenswitch.spawn(subprocess.run, ["sleep", "60"])
greenswitch.sleep(0.1)
start = time.monotonic()
victim.kill()
assert time.monotonic() - start < 20 and victim.dead
assert subprocess.check_output(["echo", "fine"]) == b"fine\\n"
""")


def test_a_thread_pool_executor_waits_at_once(script: Callable[..., str]):
    script("""
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
def work(number):
    time.sleep(0.2)
    return number
with ThreadPoolExecutor(100) as pool:
    start = time.monotonic()
    assert list(pool.map(work, range(100))) == list(range(100))
    assert time.monotonic() - start < 5
    futures = [pool.submit(work, number) for number in range(100)]
    assert sorted(future.result() for future in as_completed(futures)) == list(range(100))
    at_once(lambda number: pool.submit(work, number).result())
""")


def test_a_process_pool_executor_works_while_tasks_wait(script: Callable[..., str]):
    script("""
import math
from concurrent.futures import ProcessPoolExecutor
ticks = []
def tick():
    while True:
        greenswitch.sleep(0.01)
        ticks.append(None)
if __name__ == "__main__":
    ticker = greenswitch.spawn(tick)
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(math.factorial, range(10))) == [math.factorial(n) for n in range(10)]
    ticker.kill()
""")


def test_everybody_logs_whole_lines(script: Callable[..., str]):
    output = script("""
import logging, logging.handlers, queue, threading
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
records = queue.Queue()
logging.getLogger("queued").addHandler(logging.handlers.QueueHandler(records))
logging.getLogger("queued").propagate = False
listener = logging.handlers.QueueListener(records, *logging.getLogger().handlers)
listener.start()
def talk(number):
    logger = logging.getLogger("queued" if number % 2 else f"direct.{number}")
    for line in range(20):
        logger.info("%d says %d", number, line)
        time.sleep(0.01)
at_once(talk)
listener.stop()
""")
    assert sorted(output.splitlines()) == sorted(f"{one} says {line}" for one in range(100) for line in range(20))


def test_threads_of_all_kinds_wait_at_once(script: Callable[..., str]):
    script("""
import queue, sched, threading
def timer(number):
    rung = threading.Event()
    threading.Timer(0.2, rung.set).start()
    return rung.wait(20)
assert at_once(timer) == [True] * 100
barrier = threading.Barrier(100)
def meet(number):
    time.sleep(0.2)
    return barrier.wait(20)
assert sorted(at_once(meet)) == list(range(100))
items, results = queue.Queue(10), queue.Queue()
def work():
    while (item := items.get()) is not None:
        time.sleep(0.002)
        results.put(item * item)
        items.task_done()
workers = [threading.Thread(target=work) for _ in range(50)]
for worker in workers: worker.start()
for item in range(500): items.put(item)
items.join()
for worker in workers: items.put(None)
for worker in workers: worker.join()
assert sorted(results.get() for _ in range(500)) == [n * n for n in range(500)]
schedule = sched.scheduler()
rung = []
for delay in (0.03, 0.01, 0.02): schedule.enter(delay, 0, rung.append, (delay,))
schedule.run()
assert rung == [0.01, 0.02, 0.03]
""")
