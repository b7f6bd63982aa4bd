"""Blocking calls in OS threads: the hub goes on meanwhile, and a task that leaves takes no worker with it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time as clock
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import greenlet
import pytest

import greenswitch
from greenswitch import getcurrent, joinall, names, sleep, spawn, threads
from greenswitch.errors import HubError
from greenswitch.hub import Hub, get_hub
from greenswitch.hub.deadlock import others_could_wake
from greenswitch.queues import Queue
from greenswitch.threads import ThreadPool, set_thread_pool_size, to_thread, wrap_future
from greenswitch.timeouts import move_on_after, timeout

pytestmark = pytest.mark.usefixtures("real_hub")
LONG = 30.0  # seconds after which a test that hangs fails


class Gate:
    """A function for a thread that blocks until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, value: Any = None) -> Any:
        self.entered.set()
        assert self.opened.wait(LONG)
        if isinstance(value, BaseException):
            raise value
        return value


@pytest.fixture
def gate() -> Any:
    made = Gate()
    yield made
    made.opened.set()


def until(condition: Callable[[], object]) -> None:
    """Let others run until it is so."""
    with timeout(LONG):
        while not condition():
            sleep(0.001)


def parked_call(gate: Gate, value: Any = None) -> greenswitch.Task:
    task = spawn(to_thread, gate, value)
    until(gate.entered.is_set)
    return task


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_call_runs_in_another_thread_and_returns() -> None:
    def work(*args: int, by: int) -> tuple[int, int]:
        return threading.get_ident(), sum(args) * by

    ident, product = to_thread(work, 1, 2, by=3)
    assert product == 9 and ident != threading.get_ident()


def test_others_go_on_meanwhile(gate: Gate) -> None:
    task = parked_call(gate, "result")
    assert task.state == "parked" and "run in a thread" in repr(task)
    gate.opened.set()
    assert task.get(LONG) == "result"


def test_exception_comes_back_with_its_traceback() -> None:
    def deep_in_the_thread() -> None:
        raise KeyError("from the thread")

    with pytest.raises(KeyError) as caught:
        to_thread(deep_in_the_thread)
    assert "deep_in_the_thread" in "".join(traceback.format_exception(caught.value))
    with pytest.raises(SystemExit):
        to_thread(sys.exit, 3)
    with pytest.raises(StopIteration):
        to_thread(next, iter(()))


def test_context_variables_are_carried_into_the_thread_and_not_back() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")

    def work() -> str:
        seen = variable.get()
        variable.set("from the thread")
        return seen

    def task() -> tuple[str, str]:
        variable.set("mine")
        return to_thread(work), variable.get()

    assert spawn(task).get(LONG) == ("mine", "mine")
    assert to_thread(variable.get) == "unset"


def test_main_and_raw_greenlets_call_too(real_hub: Hub) -> None:
    seen: list[int] = []
    raw = greenlet.greenlet(lambda: seen.append(to_thread(int, "7")), real_hub.greenlet)
    real_hub.call_soon(raw.switch)
    assert to_thread(int, "8") == 8
    until(lambda: seen)
    assert seen == [7]


def test_hub_is_refused_before_anything_is_done(real_hub: Hub) -> None:
    called: list[int] = []
    real_hub.call_soon(to_thread, called.append, 1)
    sleep(0)
    [(_, error)] = real_hub.errors  # type: ignore[attr-defined]
    real_hub.errors.clear()  # type: ignore[attr-defined]
    assert isinstance(error, HubError) and called == [] and not real_hub.local


def test_result_is_not_kept_alive() -> None:
    class Big:
        pass

    big = weakref.ref(to_thread(Big))
    to_thread(int)  # a worker holds on to its last job until the next
    gc.collect()
    assert big() is None


# -- leaving a job behind ----------------------------------------------------------------------------------------------


def test_killed_task_abandons_its_job_and_the_worker_takes_the_next(gate: Gate) -> None:
    set_thread_pool_size(1)
    workers = [to_thread(threading.get_ident)]
    task = parked_call(gate, ValueError("dropped"))
    task.kill()
    assert task.state == "killed"
    following = spawn(to_thread, threading.get_ident)
    sleep(0)
    gate.opened.set()
    assert following.get(LONG) == workers[0]


def test_task_that_is_timed_out_abandons_its_job(gate: Gate) -> None:
    with move_on_after(0.01) as scope:
        to_thread(gate)
    assert scope.expired


def test_job_that_nobody_has_begun_is_called_off(gate: Gate) -> None:
    set_thread_pool_size(1)
    first = parked_call(gate)
    called: list[int] = []
    second = spawn(to_thread, called.append, 2)
    sleep(0)
    second.kill()
    third = spawn(to_thread, called.append, 3)
    sleep(0)
    gate.opened.set()
    joinall([first, third], LONG)
    assert called == [3]


def test_task_killed_before_it_waits_hands_in_no_job(real_hub: Hub) -> None:
    called: list[int] = []

    def work() -> None:
        real_hub.interrupt(greenlet.getcurrent(), greenlet.GreenletExit())
        to_thread(called.append, 1)

    task = spawn(work)
    task.join()
    assert task.state == "killed" and called == [] and not real_hub.local


def test_woken_and_killed_in_the_same_turn_keeps_the_result(gate: Gate, real_hub: Hub) -> None:
    def work() -> None:
        seen.append(to_thread(gate, "result"))
        sleep(LONG)

    seen: list[str] = []
    task = spawn(work)
    until(gate.entered.is_set)
    gate.opened.set()
    with timeout(LONG):
        while task.state != "ready":  # woken, its turn not come: the hub has no say while this goes on
            if task.state == "parked":
                clock.sleep(0.001)
    task.kill()
    assert seen == ["result"] and task.state == "killed"


# -- the pool ----------------------------------------------------------------------------------------------------------


def test_pool_has_as_many_threads_as_it_was_given(real_hub: Hub) -> None:
    set_thread_pool_size(2)
    running = [0, 0]
    guard = threading.Lock()

    def work() -> None:
        with guard:
            running[0] += 1
            running[1] = max(running)
        clock.sleep(0.005)
        with guard:
            running[0] -= 1

    joinall([spawn(to_thread, work) for _ in range(8)], raise_error=True)
    assert running == [0, 2]


def test_pool_is_started_at_the_first_use_and_sized_after_the_machine(real_hub: Hub) -> None:
    assert not real_hub.local
    to_thread(int)
    [pool] = real_hub.local.values()
    with ThreadPoolExecutor() as executor:
        assert repr(pool) == f"<1 threads, of at most {executor._max_workers}>"
    with pytest.raises(ValueError, match="at least one thread"):
        set_thread_pool_size(0)


def test_resizing_lets_jobs_end_as_they_would(gate: Gate) -> None:
    task = parked_call(gate, "old pool")
    set_thread_pool_size(1)
    assert to_thread(int, "3") == 3
    gate.opened.set()
    assert task.get(LONG) == "old pool"


def test_closing_the_hub_waits_for_no_job_and_lets_the_workers_go() -> None:
    gate = Gate()
    workers: list[int] = []

    def main() -> None:
        abandoned = spawn(to_thread, lambda: (workers.append(threading.get_ident()), gate()))
        until(gate.entered.is_set)
        abandoned.kill()

    thread = threading.Thread(target=greenswitch.run, args=(main,))
    thread.start()
    thread.join(LONG)
    assert not thread.is_alive()
    gate.opened.set()
    until(lambda: workers[0] not in threads.pool_threads)


def test_each_hub_has_workers_of_its_own() -> None:
    def other() -> None:
        names.append(greenswitch.run(to_thread, threading.get_ident))

    names = [to_thread(threading.get_ident)]
    thread = threading.Thread(target=other)
    thread.start()
    thread.join(LONG)
    assert len(set(names)) == 2


def run_script(script: str, limit: float = LONG) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=limit)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_child_gets_a_pool_of_its_own() -> None:
    done = run_script("""
import os, threading, time, warnings, greenswitch
from greenswitch.threads import to_thread
warnings.simplefilter("ignore", DeprecationWarning)  # "may lead to deadlocks": here it must not
def main():
    parents = to_thread(threading.get_native_id)
    busy = greenswitch.spawn(to_thread, time.sleep, 0.3)
    greenswitch.sleep(0.01)
    pid = os.fork()
    mine = to_thread(threading.get_native_id)
    assert mine != parents or pid
    if pid == 0:
        print("child has", to_thread(int, "42"), flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    busy.get()
    print("parent has", to_thread(int, "43"))
greenswitch.run(main)
""")
    assert done.stdout.split("\n") == ["child has 42", "parent has 43", ""] and done.returncode == 0, done.stderr


def test_exit_waits_for_the_job_that_runs_and_no_longer() -> None:
    begun = clock.monotonic()
    done = run_script("""
import time, greenswitch
from greenswitch.threads import to_thread
def main():
    with greenswitch.timeouts.move_on_after(0.05):
        to_thread(time.sleep, 0.5)
    print("left", flush=True)
import greenswitch.timeouts
greenswitch.run(main)
""")
    assert (done.stdout, done.stderr, done.returncode) == ("left\n", "", 0)
    assert clock.monotonic() - begun < LONG / 2


def test_exit_waits_for_no_look_up_that_was_given_up() -> None:
    done = run_script("""
import time, greenswitch
from greenswitch import names
names._getaddrinfo = lambda *address: time.sleep(1000)
with greenswitch.move_on_after(0.05):
    names.getaddrinfo("slow.example", 80)
print("left", flush=True)
""")
    assert (done.stdout, done.stderr, done.returncode) == ("left\n", "", 0)


# -- under monkey patching, where the standard library's own pool would make tasks of its workers ----------------------

PATCHED = """
from greenswitch import monkey
monkey.patch_all()
import threading, _thread, greenswitch
from greenswitch.hub import has_hub
from greenswitch.threads import count_workers, to_thread
sleep_in_thread, os_ident = monkey.get_original("time", "sleep"), monkey.get_original("_thread", "get_ident")
"""


def test_patched_program_has_os_threads_for_workers_which_need_no_hub() -> None:
    done = run_script(PATCHED + """
def job(number):
    sleep_in_thread(0.2)
    return number, os_ident(), threading.current_thread().name, has_hub()
tasks = [greenswitch.spawn(to_thread, job, number) for number in range(4)]
with greenswitch.timeout(10):
    numbers, idents, names, hubs = zip(*[task.get() for task in tasks])
assert numbers == (0, 1, 2, 3) and len(set(idents)) == 4 and os_ident() not in idents, idents
assert not any(hubs), hubs
assert count_workers() == 4 and _thread._count() == 0
print("well")
""")
    assert (done.stdout, done.stderr, done.returncode) == ("well\n", "", 0)


AT_THE_END = """
import atexit, socket, threading, time, warnings
from greenswitch.threads import ThreadPool, to_thread
def work(when):
    print(when, to_thread(abs, -3), ThreadPool(1).apply(len, ["ab"]), bool(getaddrinfo("localhost", 80)))
def late():
    {sleep}(0.1)
    work("thread")
{early}
atexit.register(work, "atexit")
threading.Thread(target=late).start()
"""


@pytest.mark.parametrize("early", ["", "work('main')"])
@pytest.mark.parametrize("patched", [True, False])
def test_threads_and_look_ups_work_when_main_has_ended(patched: bool, early: str) -> None:
    imports = "from socket import getaddrinfo" if patched else "from greenswitch.green.socket import getaddrinfo"
    script = (PATCHED if patched else "") + imports + AT_THE_END.format(early=early, sleep="time.sleep")
    done = run_script(script)
    lines = [f"{when} 3 2 True\n" for when in (["main"] if early else []) + ["thread", "atexit"]]
    assert (done.stdout, done.stderr, done.returncode) == ("".join(lines), "", 0)


def test_workers_are_not_among_the_programs_threads() -> None:
    done = run_script(PATCHED + """
import socket
to_thread(threading.current_thread)
socket.getaddrinfo("localhost", 80)
print(threading.active_count(), threading.enumerate() == [threading.main_thread()], count_workers())
""")
    assert (done.stdout, done.stderr, done.returncode) == ("1 True 2\n", "", 0)


# -- a pool of the program's own ---------------------------------------------------------------------------------------


@pytest.fixture
def threads_may_wake(real_hub: Hub) -> None:
    real_hub.others_could_wake = others_could_wake


@pytest.mark.usefixtures("threads_may_wake")
def test_pool_makes_calls_in_all_ways_and_raises_what_they_raise() -> None:
    with ThreadPool(2) as pool:
        assert pool.apply(threading.get_ident) != threading.get_ident()
        assert pool.apply(pow, (2, 3)) == 8 and pool.apply(int, kwds={}) == 0
        assert pool.spawn(pow, 2, 4).get() == 16
        assert pool.map(pow, range(5), range(5)) == [1, 1, 4, 27, 256]
        assert list(pool.imap(abs, range(-20, 0))) == list(range(20, 0, -1))
        assert sorted(pool.imap_unordered(abs, range(-20, 0))) == list(range(1, 21))
        called: list[int] = []
        results = [pool.apply_async(abs, (-number,), callback=called.append) for number in range(5)]
        assert [result.get() for result in results] == list(range(5))
        until(lambda: sorted(called) == list(range(5)))
        with pytest.raises(ZeroDivisionError):
            pool.apply(divmod, (1, 0))
        with pytest.raises(ZeroDivisionError):
            list(pool.imap(divmod, [1], [0]))
    with pytest.raises(ValueError, match="at least one"):
        ThreadPool(0)
    assert 4 < ThreadPool().size <= 32


@pytest.mark.usefixtures("threads_may_wake")
def test_pool_runs_as_many_calls_at_once_as_its_size_and_no_more() -> None:
    with ThreadPool(3) as pool:
        meeting = threading.Barrier(3)
        assert sorted(pool.map(lambda _: meeting.wait(LONG), range(6))) == [0, 0, 1, 1, 2, 2]
        assert len({*pool.map(lambda _: threading.get_ident(), range(50))}) <= 3


@pytest.mark.usefixtures("threads_may_wake")
def test_spawn_waits_for_a_thread_and_the_repr_tells_who_runs(gate: Gate) -> None:
    pool = ThreadPool(1)
    first = pool.spawn(gate, "first")
    second = spawn(pool.spawn, gate, "second")
    sleep(0)
    assert repr(pool) == "<ThreadPool of 1: 1 running, 1 waiting>" and "Gate-" in first.name
    assert not pool.join(0.01) and second.state == "parked"
    gate.opened.set()
    assert pool.join(LONG) and first.value == "first" and second.get().value == "second"


@pytest.mark.usefixtures("threads_may_wake")
def test_closed_pool_takes_no_more_calls_and_its_threads_end_when_the_calls_have(gate: Gate) -> None:
    pool = ThreadPool(2)
    busy = pool.spawn(lambda: (threading.get_ident(), gate()))
    pool.close()
    for call in (pool.spawn, pool.apply, pool.apply_async):
        with pytest.raises(RuntimeError, match="takes no more calls"):
            call(int)
    until(gate.entered.is_set)
    assert pool.free_count() == 1 and repr(pool) == "<ThreadPool of 2: closed, 1 running>"
    gate.opened.set()
    worker = busy.get()[0]
    pool.close()
    until(lambda: worker not in threads.pool_threads)
    assert pool.join() and pool.free_count() == 2


@pytest.mark.usefixtures("threads_may_wake")
def test_threads_of_a_pool_that_is_released_end() -> None:
    pool = ThreadPool(1)
    worker = pool.apply(threading.get_ident)
    assert worker in threads.pool_threads
    del pool
    gc.collect()
    until(lambda: worker not in threads.pool_threads)


@pytest.mark.usefixtures("threads_may_wake")
def test_kill_of_a_pool_calls_off_what_no_thread_has_begun_and_it_can_be_used_again(gate: Gate) -> None:
    pool, called = ThreadPool(1), list[int]()
    running = pool.spawn(gate, "dropped")
    until(gate.entered.is_set)
    waiting = pool.apply_async(called.append, (1,))
    sleep(0)
    waiting.kill()
    pool.kill()
    assert running.state == waiting.state == "killed"
    following = pool.spawn(int, "7")  # waits for the thread
    killed = spawn(pool.apply, called.append, (2,))
    sleep(0)
    killed.kill()
    gate.opened.set()
    assert following.get(LONG) == 7 and called == []


@pytest.mark.usefixtures("threads_may_wake")
def test_failure_in_map_calls_off_the_rest(gate: Gate) -> None:
    called: list[int] = []
    with pytest.raises(ZeroDivisionError):
        ThreadPool(1).map(lambda number: called.append(1 // number), [1, 0, 2, 3])
    assert called == [1]


def test_many_calls_leave_nothing_behind(real_hub: Hub) -> None:
    set_thread_pool_size(2)
    joinall([spawn(to_thread, int) for _ in range(200)], raise_error=True)
    [workers] = [value for value in real_hub.local.values() if isinstance(value, threads._Workers)]
    until(lambda: not threads.pool_calls)
    until(lambda: not threads._running)
    assert len(workers._idle) <= 2 and workers._jobs.empty()


def test_thread_that_cannot_be_started_leaves_the_call_to_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "start_new_thread", refuse)
    assert to_thread(threading.get_ident) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        to_thread(divmod, 1, 0)


def test_slow_calls_hold_up_no_look_up(gate: Gate) -> None:
    set_thread_pool_size(1)
    held_up = [parked_call(gate), spawn(to_thread, int)]
    assert names.gethostbyname("localhost") == "127.0.0.1"
    assert not held_up[1].ready()
    gate.opened.set()
    joinall(held_up, LONG)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_pool_that_is_used_goes_on_in_a_forked_child() -> None:
    done = run_script("""
import os, warnings
from greenswitch.threads import ThreadPool
warnings.simplefilter("ignore", DeprecationWarning)
pool = ThreadPool(1)
pool.apply(int)
pid = os.fork()
os.write(1, f"{'parent' if pid else 'child'} {pool.apply(int, '5')} {pool}\\n".encode())
if pid == 0:
    os._exit(0)
os.write(1, b"%d" % os.waitpid(pid, 0)[1])
""")
    lines = ["0", "child 5 <ThreadPool of 1: 0 running>", "parent 5 <ThreadPool of 1: 0 running>"]
    assert sorted(done.stdout.split("\n")) == lines, done.stderr


def test_exit_waits_for_a_job_that_waits_for_a_thread() -> None:
    done = run_script(PATCHED + """
import queue
items = queue.Queue()
def feed():
    greenswitch.sleep(0.1)
    items.put("fed")
task = greenswitch.spawn(to_thread, lambda: print(items.get()))
threading.Thread(target=feed, daemon=True).start()
greenswitch.sleep(0.01)
task.kill()
""")
    assert (done.stdout, done.stderr, done.returncode) == ("fed\n", "", 0)


# -- futures -----------------------------------------------------------------------------------------------------------


def test_future_of_any_pool_is_waited_for(gate: Gate) -> None:
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(gate, "result")
        waiter = spawn(wrap_future, future)
        until(lambda: waiter.state == "parked")
        gate.opened.set()
        assert waiter.get(LONG) == "result"
        assert wrap_future(future) == "result", "done already"
        with pytest.raises(ZeroDivisionError):
            wrap_future(executor.submit(divmod, 1, 0))


def test_future_that_is_set_by_hand_wakes_from_any_thread() -> None:
    future: Future[int] = Future()
    timer = threading.Timer(0.01, future.set_result, [5])
    timer.start()
    assert wrap_future(future, LONG) == 5
    timer.join()


def test_future_that_takes_too_long_raises_timeout_error_and_is_cancelled() -> None:
    future: Future[int] = Future()
    with pytest.raises(TimeoutError, match="not done within"):
        wrap_future(future, 0.01)
    assert future.cancelled()
    with pytest.raises(CancelledError):
        wrap_future(future)


def test_killed_waiter_cancels_a_future_that_has_not_begun(gate: Gate) -> None:
    with ThreadPoolExecutor(1) as executor:
        running, waiting = executor.submit(gate), executor.submit(gate)
        until(gate.entered.is_set)
        tasks = [spawn(wrap_future, future) for future in (running, waiting)]
        sleep(0)
        greenswitch.killall(tasks)
        assert not running.cancelled() and waiting.cancelled()
        gate.opened.set()


def test_cancelled_future_wakes_who_waits() -> None:
    future: Future[int] = Future()
    task = spawn(wrap_future, future)
    sleep(0)
    future.cancel()
    with pytest.raises(CancelledError):
        task.get(LONG)


def test_hub_may_not_wait_for_a_future(real_hub: Hub) -> None:
    future: Future[int] = Future()
    real_hub.call_soon(wrap_future, future)
    sleep(0)
    [(_, error)] = real_hub.errors  # type: ignore[attr-defined]
    real_hub.errors.clear()  # type: ignore[attr-defined]
    assert isinstance(error, HubError) and not future.cancelled()


# -- several hubs ------------------------------------------------------------------------------------------------------


def test_call_threadsafe_wakes_a_hub_that_sleeps(real_hub: Hub) -> None:
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: real_hub.call_threadsafe(seen.append, threading.get_ident()))
    with timeout(LONG):
        spawn(thread.start)
        sleep(0.01)
    until(lambda: seen)
    thread.join()
    assert seen == [thread.ident]


def test_calls_of_many_threads_all_arrive_in_the_order_of_each(real_hub: Hub) -> None:
    def call(name: int) -> None:
        assert real_hub is not None
        for number in range(1000):
            real_hub.call_threadsafe(seen.append, (name, number))

    seen: list[tuple[int, int]] = []
    threads = [threading.Thread(target=call, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(seen) == 4000)
    for thread in threads:
        thread.join()
    assert sorted(seen) == [(name, number) for name in range(4) for number in range(1000)]
    for name in range(4):
        mine = [number for other, number in seen if other == name]
        assert mine == sorted(mine)


@pytest.mark.parametrize("size", [0, 1])
def test_two_hubs_in_two_threads_exchange_through_one_queue_each_way(size: int) -> None:
    there: Queue[int | None] = Queue(size or None)
    back: Queue[int] = Queue(size or None)
    hubs: list[Hub] = []

    def echo() -> None:
        hubs.append(get_hub())
        while (number := there.get(timeout=LONG)) is not None:
            back.put(number * 2, timeout=LONG)

    def ask() -> list[int]:
        answers = []
        for number in range(500):
            there.put(number, timeout=LONG)
            answers.append(back.get(timeout=LONG))
        there.put(None, timeout=LONG)
        return answers

    thread = threading.Thread(target=greenswitch.run, args=(echo,))
    thread.start()
    assert spawn(ask).get(LONG) == [number * 2 for number in range(500)]
    thread.join(LONG)
    assert hubs[0] is not get_hub()


def test_two_hubs_share_the_items_of_one_queue_and_none_is_lost() -> None:
    queue: Queue[int] = Queue(10)
    taken: list[int] = []

    def take() -> None:
        while (number := queue.get(timeout=LONG)) >= 0:
            taken.append(number)

    def take_in_tasks() -> None:
        joinall([spawn(take) for _ in range(5)], raise_error=True)

    threads = [threading.Thread(target=greenswitch.run, args=(take_in_tasks,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in [*range(2000), *[-1] * 10]:
        queue.put(number, timeout=LONG)
    while any(thread.is_alive() for thread in threads):
        sleep(0.001)
    assert sorted(taken) == list(range(2000))


def test_task_in_a_thread_is_joined_and_killed_from_another(real_hub: Hub) -> None:
    begun: list[greenswitch.Task] = []

    def other() -> None:
        task = spawn(sleep, LONG)
        begun.append(task)
        task.join()

    thread = threading.Thread(target=greenswitch.run, args=(other,))
    thread.start()
    until(lambda: begun and begun[0].state == "parked")
    begun[0].kill(timeout=LONG)
    assert begun[0].state == "killed"
    thread.join(LONG)


def test_getcurrent_in_a_worker_is_the_workers_own_greenlet() -> None:
    me = getcurrent()
    assert to_thread(getcurrent) is not me
