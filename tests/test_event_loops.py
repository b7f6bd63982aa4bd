"""asyncio in a patched program: loops park, side by side with threads, tasks and each other. Each in a fresh process.

Every script runs twice, with asyncio imported after patching and before it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 30
Prints = Callable[..., list[str]]

NAMES = """
import asyncio, signal, socket, sys, threading, time
import greenswitch
from concurrent.futures import ThreadPoolExecutor

def running():
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

def thread(function, *args):
    made = threading.Thread(target=function, args=args, daemon=True)
    made.start()
    return made
"""
PATCH = "from greenswitch import monkey; monkey.patch_all()\n"


@pytest.fixture(params=["imported after", "imported before"])
def prints(request: pytest.FixtureRequest) -> Prints:
    """Run a script in a fresh process; return the lines that it prints. It must end well, and complain of nothing."""
    start = PATCH + NAMES if request.param == "imported after" else "import asyncio\n" + PATCH + NAMES

    def run(script: str, **environment: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-W", "error", "-c", start + script],
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


# -- side by side ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_threads_go_on_while_main_runs_a_loop(prints: Prints, poller: str) -> None:
    if poller == "epoll" and sys.platform != "linux":
        pytest.skip("Linux only")
    assert prints("""
async def main():
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    def tick():
        for _ in range(10):
            time.sleep(0.01)
        loop.call_soon_threadsafe(done.set)
    thread(tick)
    await asyncio.wait_for(done.wait(), 20)
    return "woken by the thread"
print(asyncio.run(main()))
""", GREENSWITCH_POLLER=poller) == ["woken by the thread"]


def test_main_hands_coroutines_to_a_loop_in_a_thread(prints: Prints) -> None:
    assert prints("""
async def double(number):
    await asyncio.sleep(0.01)
    return 2 * number
loop = asyncio.new_event_loop()
runner = thread(loop.run_forever)
futures = [asyncio.run_coroutine_threadsafe(double(number), loop) for number in range(3)]
print([future.result(20) for future in futures])
loop.call_soon_threadsafe(loop.stop)
runner.join()
loop.close()
print(running())
""") == ["[0, 2, 4]", "None"]


def test_loops_in_several_threads_and_in_main_run_at_once(prints: Prints) -> None:
    assert prints("""
met = threading.Barrier(4)
async def main():
    mine = asyncio.get_running_loop()
    await asyncio.to_thread(met.wait, 20)
    for _ in range(5):
        await asyncio.sleep(0.002)
        assert asyncio.get_running_loop() is mine and asyncio.current_task(mine) is not None
    seen.append(mine)
seen = []
threads = [thread(lambda: asyncio.run(main())) for _ in range(3)]
asyncio.run(main())
for one in threads:
    one.join()
print(len(set(map(id, seen))))
""") == ["4"]


def test_a_thread_waits_for_a_coroutine_of_the_loop_that_main_runs(prints: Prints) -> None:
    assert prints("""
async def answer():
    await asyncio.sleep(0.01)
    return 7
async def main():
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    def client():
        print(asyncio.run_coroutine_threadsafe(answer(), loop).result(20))
        loop.call_soon_threadsafe(done.set)
    thread(client)
    await done.wait()
asyncio.run(main(), debug=True)
""") == ["7"]


def test_a_loop_that_never_sleeps_lets_the_others_go_on(prints: Prints) -> None:
    assert prints("""
def work():
    near, far = socket.socketpair()
    thread(lambda: (time.sleep(0.01), far.send(b"x")))
    near.recv(1)
    near.close(), far.close()
    over.append(1)
async def main():
    thread(work)
    turns = 0
    while not over:
        await asyncio.sleep(0)
        turns += 1
    return turns > 1
over = []
print(asyncio.run(main()))
""") == ["True"]


def test_a_loop_that_sleeps_is_no_deadlock(prints: Prints) -> None:
    assert prints("""
def main():
    loop = asyncio.new_event_loop()
    greenswitch.spawn_later(0.2, lambda: loop.call_soon_threadsafe(loop.stop))
    loop.run_forever()
    loop.close()
    return "stopped"
print(greenswitch.spawn(main).get())
loop = asyncio.new_event_loop()
runner = thread(loop.run_forever)
runner.join(0.05)
print(runner.is_alive())
""") == ["stopped", "True"]


# -- the running loop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        "time.sleep(0.01)",
        "lock.acquire()",
        "near.recv(1)",
        "box.get()",
        "event.wait()",
        "greenswitch.sleep(0)",
        "greenswitch.spawn(time.sleep, 0.01).get()",
        "greenswitch.to_thread(len, '')",
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_a_coroutine_that_waits_in_a_patched_call_keeps_its_loop(prints: Prints, wait: str, debug: bool) -> None:
    assert prints(f"""
import queue
lock, box, event = threading.Lock(), queue.Queue(), threading.Event()
near, far = socket.socketpair()
lock.acquire()
async def other():
    await asyncio.sleep(0)
    return asyncio.get_running_loop()
def look():
    seen.append((running(), sys.get_asyncgen_hooks().firstiter, sys.get_coroutine_origin_tracking_depth()))
    seen.append(asyncio.run(other()) is not None)
    lock.release(), box.put(1), event.set(), far.send(b"x")
def state():
    return running(), asyncio.current_task(), sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth()
async def main():
    before = state()
    looker = thread(look)
    {wait}
    after = state()
    while looker.is_alive():
        time.sleep(0.001)
    near.close(), far.close()
    return before == after == state() and before[0] is not None
seen = []
print(asyncio.run(main(), debug={debug}), seen)
""") == ["True [(None, None, 0), True]"]


def test_a_greenlet_that_a_coroutine_switches_to_by_hand_sees_the_loop_also_after_it_has_waited(prints: Prints) -> None:
    assert prints("""
import greenlet
def work(mine):
    time.sleep(0.01)
    return running() is mine
async def main():
    return greenlet.greenlet(work).switch(asyncio.get_running_loop())
greenswitch.spawn(greenswitch.sleep, 0.005)
print(asyncio.run(main()), running())
""") == ["True None"]


def test_an_asynchronous_generator_left_half_way_is_closed_by_its_own_loop(prints: Prints) -> None:
    assert prints("""
async def numbers(name):
    try:
        yield 1
        yield 2
    finally:
        closed.append((name, running() is loops[name]))
async def main(name):
    loops[name] = asyncio.get_running_loop()
    begun = numbers(name)
    kept.append(begun)
    await asyncio.sleep(0.01)
    await begun.__anext__()
    await asyncio.sleep(0.01 * (name + 1))
closed, loops, kept = [], {}, []
threads = [thread(lambda name=name: asyncio.run(main(name))) for name in range(3)]
for one in threads:
    one.join()
print(sorted(closed), sys.get_asyncgen_hooks().firstiter)
""") == ["[(0, True), (1, True), (2, True)] None"]


def test_each_thread_has_a_current_loop_of_its_own(prints: Prints) -> None:
    assert prints("""
import warnings
warnings.simplefilter("ignore")
def work():
    try:
        asyncio.get_event_loop()
    except RuntimeError as error:
        print("no current event loop" in str(error))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    print(asyncio.get_event_loop() is loop is not mine)
    loop.close()
mine = asyncio.new_event_loop()
asyncio.set_event_loop(mine)
thread(work).join()
print(asyncio.get_event_loop() is mine)
mine.close()
""") == ["True", "True", "True"]


def test_a_task_leaves_no_running_loop_behind(prints: Prints) -> None:
    assert prints("""
def leave_it():
    asyncio._set_running_loop(loop)
    time.sleep(0.001)
    print(running() is loop)
loop = asyncio.new_event_loop()
for start in (thread, greenswitch.spawn):
    start(leave_it).join()
    start(lambda: print(running())).join()
    print(running())
loop.close()
""") == ["True", "None", "None"] * 2


def test_a_killed_task_leaves_its_loop_as_a_loop_is_left(prints: Prints) -> None:
    assert prints("""
async def forever():
    try:
        await asyncio.sleep(1000)
    finally:
        print("finally", running() is not None)
task = greenswitch.spawn(lambda: asyncio.run(forever()))
greenswitch.sleep(0.02)
task.kill()
print(running(), sys.get_asyncgen_hooks().firstiter, task.dead)
try:
    with greenswitch.timeout(0.02):
        asyncio.run(forever())
except TimeoutError:
    print("timed out", running())
""") == ["finally True", "None None True", "finally True", "timed out None"]


def test_what_interrupts_a_coroutine_in_a_patched_call_ends_the_loop_that_would_swallow_it(prints: Prints) -> None:
    assert prints("""
import logging
logging.disable(logging.CRITICAL)  # asyncio tells of a task that failed
async def blocked():
    time.sleep(1000)
async def main():
    background = asyncio.create_task(blocked())
    try:
        await asyncio.sleep(1000)
    finally:
        print("finally", background.done())
def run():
    asyncio.run(main())
task = greenswitch.spawn(run)
greenswitch.sleep(0.02)
task.kill()
print(task.state, running())
try:
    with greenswitch.timeout(0.02):
        run()
except TimeoutError:
    print("timed out", running())
with greenswitch.move_on_after(0.02) as scope:
    asyncio.run(blocked())
print(scope.expired)
""") == ["finally True", "killed None", "finally True", "timed out None", "True"]


def test_deadlines_inside_of_coroutines_end_there(prints: Prints) -> None:
    assert prints("""
async def patient():
    with greenswitch.move_on_after(0.01) as scope:
        time.sleep(1000)
    return scope.expired
async def main():
    return await asyncio.gather(patient(), patient())
with greenswitch.timeout(20):
    print(asyncio.run(main()))
with greenswitch.shield():
    task = greenswitch.spawn(lambda: greenswitch.get_hub() and asyncio.run(main()))
    print(task.get())
""") == ["[True, True]", "[True, True]"]


def test_a_shield_around_a_loop_postpones_a_kill(prints: Prints) -> None:
    assert prints("""
async def main():
    await asyncio.sleep(0.05)
    time.sleep(0.01)
    print("whole")
def run():
    with greenswitch.shield():
        asyncio.run(main())
    print("shield left")
    greenswitch.sleep(1000)
task = greenswitch.spawn(run)
greenswitch.sleep(0.01)
task.kill()
print(task.state)
""") == ["whole", "shield left", "killed"]


# -- executors, children, signals --------------------------------------------------------------------------------------


def test_executors_of_every_kind_run_what_a_coroutine_hands_them(prints: Prints) -> None:
    assert prints("""
def blocking(number):
    time.sleep(0.01)
    return number, threading.get_native_id() == main_thread
async def main():
    loop = asyncio.get_running_loop()
    print(await asyncio.gather(loop.run_in_executor(None, blocking, 1), asyncio.to_thread(blocking, 2)))
    with ThreadPoolExecutor(2) as pool:
        print([(await loop.run_in_executor(pool, blocking, number))[0] for number in (3, 4)])
    loop.set_default_executor(ThreadPoolExecutor(2))
    print((await asyncio.to_thread(blocking, 5))[0])
    try:
        loop.set_default_executor("none")
    except TypeError as error:
        print(error)
main_thread = threading.get_native_id()
asyncio.run(main())
""") == [
        "[(1, False), (2, False)]",
        "[3, 4]",
        "5",
        "executor must be ThreadPoolExecutor instance",
    ]


def test_the_default_executor_is_one_of_the_standard_librarys_kind_and_ends_with_the_loop(prints: Prints) -> None:
    assert prints("""
async def main():
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(int)
    executors.append(loop._default_executor)
    await loop.shutdown_default_executor()
    try:
        await asyncio.to_thread(int)
    except RuntimeError as error:
        print(error)
executors = []
asyncio.run(main())
print(isinstance(executors[0], ThreadPoolExecutor), [one.is_alive() for one in executors[0]._threads])
""") == ["Executor shutdown has been called", "True [False]"]


def test_a_thread_that_is_started_in_the_default_executor_runs_on_when_its_starter_has_returned(prints: Prints) -> None:
    assert prints("""
def beat():
    for _ in range(3):
        time.sleep(0.01)
    over.set()
def connect():
    thread(beat)
    return "connected"
async def main():
    print(await asyncio.to_thread(connect))
    print(await asyncio.to_thread(over.wait, 20))
over = threading.Event()
asyncio.run(main())
""") == ["connected", "True"]


@pytest.mark.parametrize("where", ["asyncio.run(main())", "thread(lambda: asyncio.run(main())).join()"])
def test_a_child_gets_what_it_is_sent_and_others_go_on_until_it_ends(prints: Prints, where: str) -> None:
    assert prints(f"""
PROGRAM = '''
import os, sys
print(os.get_blocking(0), os.get_blocking(1))
print(sys.stdin.read()[::-1])
sys.exit(3)
'''
async def main():
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdin=pipe, stdout=pipe)
    out, _ = await child.communicate(b"olleh")
    print(out, child.returncode)
    shell = await asyncio.create_subprocess_shell("sleep 0.05; exit 4")
    print(await shell.wait())
    await asyncio.sleep(0)
ticks = []
def tick():
    while True:
        time.sleep(0.005)
        ticks.append(1)
thread(tick)
{where}
print(len(ticks) > 3)
""") == [r"b'True True\nhello\n' 3", "4", "True"]


def test_signal_handlers_of_a_loop_run_in_the_loop(prints: Prints) -> None:
    assert prints("""
async def main():
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, lambda: (print(running() is loop), told.set()))
    thread(lambda: (time.sleep(0.02), signal.raise_signal(signal.SIGUSR1)))
    await asyncio.wait_for(told.wait(), 20)
    loop.remove_signal_handler(signal.SIGUSR1)
asyncio.run(main())
""") == ["True"]


def test_signal_handlers_see_the_loop_that_main_runs_wherever_they_hit(prints: Prints) -> None:
    assert prints("""
def handler(number, frame):
    if waits:
        time.sleep(0.001)
    seen.append(running() is loop)
    running().call_soon_threadsafe(woken.set)
def work():
    async def main():
        mine = running()
        for _ in range(5):
            signal.raise_signal(signal.SIGUSR1)
            seen.append(running() is mine)
            await asyncio.sleep(0.002)
            seen.append(running() is mine)
    asyncio.run(main())
    signal.raise_signal(signal.SIGUSR1)
    seen.append(running() is None)
async def main():
    global loop, woken
    loop, woken = running(), asyncio.Event()
    await asyncio.to_thread(thread(work).join)
    time.sleep(0.01)
    for send in (lambda: signal.raise_signal(signal.SIGUSR1), lambda: thread(signal.raise_signal, signal.SIGUSR1)):
        woken.clear()
        send()
        await woken.wait()
signal.signal(signal.SIGUSR1, handler)
for waits in (False, True):
    seen = []
    asyncio.run(main())
    print(len(seen), all(seen), running())
""") == ["19 True None"] * 2


def test_a_loop_in_a_thread_gets_no_signal_handlers_and_leaves_those_of_mains_loop(prints: Prints) -> None:
    assert prints("""
async def other():
    try:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print, "of the thread")
    except RuntimeError as error:
        print(error)
async def main():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
    await asyncio.to_thread(thread(lambda: asyncio.run(other())).join)
    signal.raise_signal(signal.SIGUSR1)
    await asyncio.wait_for(told.wait(), 20)
    print("told main")
asyncio.run(main())
""") == ["set_wakeup_fd only works in main thread of the main interpreter", "told main"]


def test_ctrl_c_cancels_what_asyncio_run_runs_beside_threads(prints: Prints) -> None:
    assert prints("""
async def main():
    thread(lambda: (time.sleep(0.02), signal.raise_signal(signal.SIGINT)))
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        print("cancelled")
        raise
thread(time.sleep, 1000)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", running())
""") == ["cancelled", "interrupted None"]


# -- one library with the program --------------------------------------------------------------------------------------


def test_sockets_of_asyncio_are_the_programs_sockets(prints: Prints) -> None:
    assert prints("""
async def main():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    twin = server.sockets[0].dup()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    def send():
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"to a thread's socket")
    thread(send)
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    print(isinstance(twin, socket.socket), isinstance(connection, socket.socket))
    connection.setblocking(True)
    print(connection.recv(100))
    for one in (twin, listener, connection, server):
        one.close()
    await server.wait_closed()
asyncio.run(main())
""") == ["True True", "b\"to a thread's socket\""]


def test_names_that_a_program_replaces_are_seen_by_asyncio(prints: Prints) -> None:
    assert prints("""
import os
from unittest import mock
async def main():
    loop = asyncio.get_running_loop()
    with mock.patch("socket.getaddrinfo", return_value=["mine"]):
        print(await loop.getaddrinfo("some.host", 80))
    near, far = socket.socketpair()
    await loop.connect_read_pipe(lambda: Reader(loop.create_future()), os.fdopen(near.detach(), "rb", 0))
    with mock.patch("os.read", return_value=b"mocked"):
        far.send(b"real")
        print(await reader[0].data)
    transport[0].close()
    far.close()
    await asyncio.sleep(0)
class Reader(asyncio.Protocol):
    def __init__(self, data):
        reader.append(self)
        self.data = data
    def connection_made(self, made):
        transport.append(made)
    def data_received(self, data):
        transport[0].pause_reading()
        self.data.done() or self.data.set_result(data)
reader, transport = [], []
asyncio.run(main())
""") == ["['mine']", "b'mocked'"]


def test_unpatching_gives_asyncio_its_own_back() -> None:
    script = """
import asyncio.base_events
def state():
    owners = asyncio, asyncio.events, asyncio.base_events.BaseEventLoop, asyncio.events.BaseDefaultEventLoopPolicy
    return [dict(vars(owner)) for owner in owners]
asyncio.run(asyncio.sleep(0))
before = state()
from greenswitch import monkey
monkey.patch_all()
during = state()
asyncio.run(asyncio.sleep(0))
monkey.unpatch_all()
print(before != during, before == state())
asyncio.run(asyncio.sleep(0))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("True True\n", "")


# -- loops that can't park ---------------------------------------------------------------------------------------------

BLOCKING = {
    "made before patching": "import asyncio\nloop = asyncio.new_event_loop()\n" + PATCH,
    "select not patched": PATCH.replace("()", "(select=False)") + "import asyncio\nloop = asyncio.new_event_loop()\n",
    "selectors not patched": PATCH.replace("()", "(selectors=False)")
    + "import asyncio, selectors\nloop = asyncio.SelectorEventLoop(selectors.SelectSelector())\n",
}


@pytest.mark.parametrize("start", BLOCKING)
@pytest.mark.parametrize("by", ["task", "main"])
def test_a_loop_that_cannot_park_does_not_stop_the_others(start: str, by: str) -> None:
    script = BLOCKING[start] + NAMES + """
def work():
    time.sleep(0.01)
    return running()
async def main():
    with ThreadPoolExecutor(2) as pool:
        print(await loop.run_in_executor(pool, work), await asyncio.to_thread(len, "two"))
    await loop.shutdown_default_executor()
    return asyncio.get_running_loop() is loop
def run():
    print(loop.run_until_complete(main()), running())
    loop.close()
""" + ("thread(run).join()" if by == "task" else "run()")
    command = [sys.executable, "-X", "faulthandler", "-c", script]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert (done.stdout.splitlines(), done.stderr) == (["None 3", "True None"], "")


# -- uvloop ------------------------------------------------------------------------------------------------------------


def test_a_loop_of_uvloops_in_a_thread_does_not_stop_the_others(prints: Prints) -> None:
    pytest.importorskip("uvloop")
    assert prints("""
import uvloop
async def double(number):
    await asyncio.sleep(0.05)
    return 2 * number, asyncio.get_running_loop() is loop
loop = uvloop.new_event_loop()
runner = thread(loop.run_forever)
future = asyncio.run_coroutine_threadsafe(double(2), loop)
ticks = 0
while not future.done():
    time.sleep(0.005)
    ticks += 1
print(future.result(), ticks > 1)
loop.call_soon_threadsafe(loop.stop)
runner.join()
loop.close()
task = greenswitch.spawn(lambda: uvloop.run(asyncio.sleep(1000)))
greenswitch.sleep(0.05)
task.kill()
print(task.dead, running())
""") == ["(4, True) True", "True None"]


def test_threads_go_on_while_main_runs_a_loop_of_uvloops(prints: Prints) -> None:
    pytest.importorskip("uvloop")
    assert prints("""
import uvloop
def work(number):
    time.sleep(0.01)
    return number, running()
async def main():
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, told.set)
    with ThreadPoolExecutor(2) as pool:
        futures = [loop.run_in_executor(pool, work, number) for number in range(3)]
        print(await asyncio.gather(*futures))
    signal.raise_signal(signal.SIGUSR1)
    await told.wait()
    time.sleep(0.01)  # parks
    return asyncio.get_running_loop() is loop
print(uvloop.run(main()), running())
""") == ["[(0, None), (1, None), (2, None)]", "True None"]
