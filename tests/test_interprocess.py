"""multiprocessing in a patched program: who waits for another process parks, and whatever is sent arrives whole.

Each program runs in a fresh process. A wait that stopped the others would stop what ends it, too: a program that ends
is a proof.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="for pipes and semaphores of POSIX")

ROOT = Path(__file__).resolve().parent.parent
# 3.12 and later warn of a fork beside OS threads.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error,ignore::DeprecationWarning"}
SECONDS = 30
METHODS = ["fork", "spawn", "forkserver"]
PATCH = "from greenswitch import monkey\nmonkey.patch_all()\n"
IMPORTS = """
import multiprocessing.connection, multiprocessing.heap, multiprocessing.managers, multiprocessing.pool
import concurrent.futures, concurrent.futures.process, contextlib, logging.handlers, os, queue, signal, socket, sys
import threading, time
from multiprocessing import forkserver, reduction, resource_sharer, synchronize
"""
PRELUDE = """
import greenswitch
from greenswitch import spawn, timeout

ctx = multiprocessing.get_context(sys.argv[1])

def side_by_side(wait, end):
    '''Wait in a thread, and end it in main; then wait in main, and end it in a thread.'''
    ended = []
    thread = threading.Thread(target=lambda: ended.append(wait()))
    thread.start()
    while not is_parked(thread):
        time.sleep(0)
    end()
    thread.join()
    begun = []
    thread = threading.Thread(target=lambda: (wait_until_main_is_parked(begun), end()))
    thread.start()
    begun.append(True)
    ended.append(wait())
    thread.join()
    return ended

def is_parked(thread):
    parked = greenswitch.get_hub().parked
    return any(getattr(one, "job", None) is not None and id(one.job) == thread.ident for one in parked)

def wait_until_main_is_parked(begun):
    hub = greenswitch.get_hub()
    while not begun or hub.main not in hub.parked:
        time.sleep(0)
"""


def output(program: str, *args: str, directory: Path, early: bool = False, poller: str = "") -> list[str]:
    """Run a program in a fresh process, as its main module; it must end well, and complain of nothing."""
    script = directory / "program.py"
    script.write_text((IMPORTS + PATCH if early else PATCH + IMPORTS) + PRELUDE + program)
    environment = ENVIRONMENT | ({"GREENSWITCH_POLLER": poller} if poller else {})
    done = subprocess.run(
        [sys.executable, str(script), *args], env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.splitlines()


# -- each wait parks ---------------------------------------------------------------------------------------------------

WAITS = """
box, full, joined, simple = ctx.Queue(), ctx.Queue(1), ctx.JoinableQueue(), ctx.SimpleQueue()
near, far = ctx.Pipe()
reading, writing = ctx.Pipe(duplex=False)
listener = multiprocessing.connection.Listener(authkey=b"key")
events = [ctx.Event(), ctx.Event()]
condition, semaphore, bounded = ctx.Condition(), ctx.Semaphore(0), ctx.BoundedSemaphore(1)
lock, recursive, barrier = ctx.Lock(), ctx.RLock(), ctx.Barrier(2)
MUCH = bytes(1_000_000)
for holder in (bounded, lock):
    holder.acquire()
full.put(0)
joined.put(1)
joined.get()

def wait_for_condition():
    with condition:
        return condition.wait(20)

def notify():
    with condition:
        condition.notify()

def join():
    joined.join()
    joined.put(1)
    joined.get()

def wait_for_event():
    happened = events[0].wait(20)
    del events[0]
    return happened

def connect():
    with multiprocessing.connection.Client(listener.address, authkey=b"key") as client:
        client.send("hello")

def accept():
    with listener.accept() as connection:
        return connection.recv()

def send_socket():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        near.send(theirs)
        ours.sendall(b"over a socket")
        near.recv()

def receive_socket():
    with far.recv() as sock:
        data = sock.recv(100)
        far.send("done")
    return data

WAITS = {
    "Queue.get": (box.get, lambda: box.put("from the feeder")),
    "Queue.get with a time limit": (lambda: box.get(timeout=20), lambda: box.put("from the feeder")),
    "Queue.put": (lambda: full.put(1), full.get),
    "JoinableQueue.join": (join, joined.task_done),
    "SimpleQueue.get": (simple.get, lambda: simple.put(1)),
    "Connection.recv": (far.recv, lambda: near.send([1])),
    "Connection.recv of one way": (reading.recv, lambda: writing.send([1])),
    "Connection.recv_bytes of much": (lambda: len(far.recv_bytes()), lambda: near.send_bytes(MUCH)),
    "Connection.send_bytes of much": (lambda: near.send_bytes(MUCH), far.recv_bytes),
    "Connection.poll": (lambda: far.poll(20) and far.recv(), lambda: near.send(1)),
    "connection.wait": (lambda: multiprocessing.connection.wait([far, reading]) == [far] and far.recv(),
                        lambda: near.send(1)),
    "Listener.accept": (accept, connect),
    "Client": (connect, accept),
    "a socket": (receive_socket, send_socket),
    "Event.wait": (wait_for_event, lambda: events[0].set()),
    "Condition.wait": (wait_for_condition, notify),
    "Semaphore.acquire": (semaphore.acquire, semaphore.release),
    "BoundedSemaphore.acquire": (bounded.acquire, bounded.release),
    "Lock.acquire": (lock.acquire, lock.release),
    "Barrier.wait": (lambda: barrier.wait() in (0, 1), lambda: barrier.wait() in (0, 1)),
}
if __name__ == "__main__":
    for name, (wait, end) in WAITS.items():
        print(name, side_by_side(wait, end))
    listener.close()
    for one in (box, full, joined):
        one.close()
        one.join_thread()
"""

ANSWERS = {
    "Queue.get": "from the feeder",
    "Queue.get with a time limit": "from the feeder",
    "Queue.put": None,
    "JoinableQueue.join": None,
    "SimpleQueue.get": 1,
    "Connection.recv": [1],
    "Connection.recv of one way": [1],
    "Connection.recv_bytes of much": 1_000_000,
    "Connection.send_bytes of much": None,
    "Connection.poll": 1,
    "connection.wait": 1,
    "Listener.accept": "hello",
    "Client": None,
    "a socket": b"over a socket",
    "Event.wait": True,
    "Condition.wait": True,
    "Semaphore.acquire": True,
    "BoundedSemaphore.acquire": True,
    "Lock.acquire": True,
    "Barrier.wait": True,
}


@pytest.mark.parametrize("early", [False, True], ids=["imported after", "imported before"])
@pytest.mark.parametrize("poller", ["epoll", "poll", "select"])
def test_each_wait_parks_in_a_thread_and_in_main(poller: str, early: bool, tmp_path: Path) -> None:
    lines = output(WAITS, "fork", directory=tmp_path, early=early, poller=poller)
    assert lines == [f"{name} {[answer] * 2}" for name, answer in ANSWERS.items()]


PROCESSES = """
def wait_for(number):
    events[number].wait()
    return number

def begin(*handed_over):
    global events
    events = handed_over

def child(event, box):
    event.wait()
    box.put((os.getpid(), threading.current_thread().name))

def process():
    event, box = ctx.Event(), ctx.Queue()
    one = ctx.Process(target=child, args=(event, box))
    one.start()
    side = side_by_side(lambda: one.join(), event.set)
    return box.get() == (one.pid, "MainThread"), one.exitcode, side

def pool():
    events = ctx.Event(), ctx.Event()
    numbers = iter((0, 1))
    to_end = iter(events)
    with ctx.Pool(2, begin, events) as workers:
        return side_by_side(lambda: workers.apply(wait_for, (next(numbers),)), lambda: next(to_end).set())

def executor():
    events = ctx.Event(), ctx.Event()
    numbers = iter((0, 1))
    to_end = iter(events)
    with concurrent.futures.ProcessPoolExecutor(2, ctx, begin, events) as workers:
        return side_by_side(
            lambda: workers.submit(wait_for, next(numbers)).result(), lambda: next(to_end).set())

def manager():
    with ctx.Manager() as server:
        box, shared, lock = server.Queue(), server.dict(), server.Lock()
        lock.acquire()
        side = side_by_side(box.get, lambda: box.put("by a proxy")) + side_by_side(lock.acquire, lock.release)
        threads = [threading.Thread(target=shared.update, args=({n: n},)) for n in range(5)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return side, sorted(shared.keys())

if __name__ == "__main__":
    for case in (process, pool, executor, manager):
        print(case.__name__, case())
    print("in a thread")
    for case in (process, pool, executor, manager):
        print(case.__name__, spawn(case).get())
"""

PROCESSES_ANSWER = [
    "process (True, 0, [None, None])",
    "pool [0, 1]",
    "executor [0, 1]",
    "manager (['by a proxy', 'by a proxy', True, True], [0, 1, 2, 3, 4])",
]


@pytest.mark.parametrize("early", [False, True], ids=["imported after", "imported before"])
@pytest.mark.parametrize("method", METHODS)
def test_processes_pools_and_managers_work_beside_tasks(method: str, early: bool, tmp_path: Path) -> None:
    lines = output(PROCESSES, method, directory=tmp_path, early=early)
    assert lines == [*PROCESSES_ANSWER, "in a thread", *PROCESSES_ANSWER]


LOGGING = """
class Seen(logging.Handler):
    lines = []
    def emit(self, record):
        self.lines.append(record.getMessage())

def work(box, number):
    root = logging.getLogger()
    root.handlers[:] = [logging.handlers.QueueHandler(box)]
    root.setLevel("INFO")
    for step in range(5):
        logging.info("%d.%d", number, step)

if __name__ == "__main__":
    box = ctx.Queue(-1)
    listener = logging.handlers.QueueListener(box, Seen())
    listener.start()
    workers = [ctx.Process(target=work, args=(box, number)) for number in range(3)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    listener.stop()
    print(sorted(Seen.lines) == [f"{number}.{step}" for number in range(3) for step in range(5)])
"""


@pytest.mark.parametrize("method", METHODS)
def test_queue_listener_hears_the_processes_that_log_to_its_queue(method: str, tmp_path: Path) -> None:
    assert output(LOGGING, method, directory=tmp_path) == ["True"]


# -- nothing is lost ---------------------------------------------------------------------------------------------------


def test_what_was_put_into_a_queue_is_flushed_before_the_process_ends(tmp_path: Path) -> None:
    program = """
def put(box):
    for number in range(100):
        box.put(bytes(1000) + bytes([number]))

if __name__ == "__main__":
    box = ctx.Queue()
    process = ctx.Process(target=put, args=(box,))
    process.start()
    print([box.get()[-1] for _ in range(100)] == list(range(100)))
    process.join()
    print(process.exitcode)
"""
    assert output(program, "fork", directory=tmp_path) == ["True", "0"]


def test_receiver_that_gives_up_before_a_message_takes_nothing_of_it(tmp_path: Path) -> None:
    program = """
near, far = ctx.Pipe()
for wait in (far.recv, lambda: far.poll(None), lambda: multiprocessing.connection.wait([far])):
    try:
        with timeout(0.01):
            wait()
    except TimeoutError:
        print("gave up")
    killed = spawn(wait)
    time.sleep(0.001)
    killed.kill()
near.send("whole")
print(far.recv(), greenswitch.get_hub().timers)
"""
    lines = output(program.replace(", greenswitch.get_hub().timers", ""), "fork", directory=tmp_path)
    assert lines == ["gave up"] * 3 + ["whole"]


def test_receiver_that_is_interrupted_amid_a_message_gets_the_whole_of_it_first(tmp_path: Path) -> None:
    program = """
import struct
near, far = ctx.Pipe()
def receive():
    with timeout(0.01):
        messages.append(far.recv_bytes())
        time.sleep(1)

messages = []
task = spawn(receive)
os.write(near.fileno(), struct.pack("!i", 4) + b"ha")
time.sleep(0.02)
os.write(near.fileno(), b"lf")
try:
    task.get()
except TimeoutError:
    print(messages)
near.send("next")
print(far.recv())
"""
    assert output(program, "fork", directory=tmp_path) == ["[b'half']", "next"]


def test_sender_that_is_interrupted_amid_a_message_closes_the_connection(tmp_path: Path) -> None:
    program = """
near, far = ctx.Pipe()
try:
    with timeout(0.01):
        near.send_bytes(bytes(10_000_000))
except TimeoutError:
    print("gave up", near.closed)
try:
    far.recv_bytes()
except OSError as error:
    print(error)
"""
    assert output(program, "fork", directory=tmp_path) == ["gave up True", "got end of file during message"]


def test_interrupted_wait_for_a_condition_leaves_the_lock_to_its_block(tmp_path: Path) -> None:
    program = """
condition = ctx.Condition()
for _ in range(3):
    try:
        with timeout(0.01), condition:
            condition.wait()
    except TimeoutError:
        print("gave up", condition._lock._semlock._count())
def wait():
    with condition:
        print(condition.wait(20))
waiting = spawn(wait)
time.sleep(0)
with condition:
    condition.notify()
waiting.get()
"""
    assert output(program, "fork", directory=tmp_path) == ["gave up 0"] * 3 + ["True"]


# -- owners, signals and sockets ---------------------------------------------------------------------------------------


def test_recursive_lock_belongs_to_one_thread_and_says_so(tmp_path: Path) -> None:
    program = """
lock = ctx.RLock()
print(lock)
def other():
    print(lock.acquire(False), lock)
    try:
        lock.release()
    except AssertionError as error:
        print(error)
with lock, lock:
    print(lock)
    thread = threading.Thread(target=other, name="other")
    thread.start()
    thread.join()
"""
    assert output(program, "fork", directory=tmp_path) == [
        "<RLock(None, 0)>",
        "<RLock(MainProcess, 2)>",
        "False <RLock(SomeOtherThread, nonzero)>",
        "attempt to release recursive lock not owned by thread",
    ]


@pytest.mark.parametrize("company", ["", "threading.Thread(target=time.sleep, args=(1,), daemon=True).start()"])
def test_signal_handler_ends_a_wait_for_a_semaphore_by_what_it_raises_or_starts(company: str, tmp_path: Path) -> None:
    program = f"""
class Alarm(Exception):
    pass

def fail(number, frame):
    raise Alarm

def start(number, frame):
    threading.Thread(target=lock.release).start()

lock = ctx.Lock()
lock.acquire()
{company}
for handler in (fail, start):
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        print(lock.acquire(timeout=20))
    except Alarm:
        print("alarm")
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
signal.setitimer(signal.ITIMER_REAL, 0.02)
try:
    lock.acquire()
except KeyboardInterrupt:
    print("Ctrl-C", lock)
"""
    assert output(program, "fork", directory=tmp_path) == ["alarm", "True", "Ctrl-C <Lock(owner=MainProcess)>"]


@pytest.mark.parametrize("method", METHODS)
def test_socket_and_connection_sent_to_another_process_arrive(method: str, tmp_path: Path) -> None:
    program = """
def child(connection):
    sock, other = connection.recv()
    with sock, other:
        sock.sendall(sock.recv(100).upper())
        other.send(os.getpid())

if __name__ == "__main__":
    near, far = ctx.Pipe()
    process = ctx.Process(target=child, args=(far,))
    process.start()
    ours, theirs = socket.socketpair()
    reading, writing = ctx.Pipe(duplex=False)
    with ours, theirs:
        near.send((theirs, writing))
        ours.sendall(b"over a socket")
        print(ours.recv(100), reading.recv() == process.pid)
    print(os.get_blocking(near.fileno()), signal.pthread_sigmask(signal.SIG_BLOCK, []))
    process.join()
    print(process.exitcode)
"""
    assert output(program, method, directory=tmp_path) == ["b'OVER A SOCKET' True", "True set()", "0"]


def test_two_threads_fork_while_others_run_and_each_child_is_alone(tmp_path: Path) -> None:
    program = """
def tick():
    while not done:
        ticks.append(os.getpid())
        time.sleep(0.001)

def child(box, number):
    del ticks[:]
    time.sleep(0.01)
    box.put((number, len(ticks), len(greenswitch.get_hub().parked) <= 1))

def start(number):
    process = ctx.Process(target=child, args=(box, number))
    process.start()
    process.join()
    codes.append(process.exitcode)

done, ticks, codes, box = [], [], [], ctx.Queue()
ticker = threading.Thread(target=tick)
ticker.start()
starters = [threading.Thread(target=start, args=(number,)) for number in range(4)]
[one.start() for one in starters]
print(sorted(box.get() for _ in starters))
[one.join() for one in starters]
done.append(True)
ticker.join()
print(codes, set(ticks) == {os.getpid()})
"""
    answer = str([(number, 0, True) for number in range(4)])
    assert output(program, "fork", directory=tmp_path) == [answer, "[0, 0, 0, 0] True"]
