"""The end of the interpreter with patched threads: the same output and status as unpatched, and no slower to speak of.

Each program runs twice in a fresh process, as it is and patched. Tracebacks are compared without our own frames.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1"}
SECONDS = 20

PROGRAMS = {
    "nothing at all": "print('main ends')",
    "a thread that main doesn't wait for": """
import threading, time
def work():
    time.sleep(0.05)
    print("worker ends")
print("main ends")
threading.Thread(target=work).start()
""",
    "a thread that starts another one at the end": """
import threading, time
def work(level):
    time.sleep(0.01)
    print("worker", level)
    if level:
        threading.Thread(target=work, args=(level - 1,)).start()
print("main ends")
threading.Thread(target=work, args=(3,)).start()
""",
    "a daemon with a finally block": """
import threading, time
def work():
    try:
        time.sleep(30)
    finally:
        print("never printed")
threading.Thread(target=work, daemon=True).start()
print("main ends")
""",
    "daemons that never stop": """
import threading, time
def work():
    while True:
        time.sleep(0.001)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.01)
print("main ends")
""",
    "a daemon that holds a lock for which another waits": """
import threading, time
lock, held = threading.Lock(), threading.Event()
def hold():
    with lock:
        held.set()
        time.sleep(30)
for _ in range(2):
    threading.Thread(target=hold, daemon=True).start()
held.wait()
print(lock.acquire(timeout=0.05))
""",
    "daemons that get from a queue": """
import threading, queue
items = queue.Queue()
def work():
    while True:
        done.append(items.get())
        items.task_done()
done = []
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
for number in range(4):
    items.put(number)
items.join()
print(sorted(done))
""",
    "main that fails": """
import threading, time
def work():
    time.sleep(0.05)
    print("worker ends")
threading.Thread(target=work).start()
raise ValueError("main")
""",
    "a status of main's, which a thread's can't change": """
import threading, time, sys
def work():
    time.sleep(0.05)
    sys.exit(4)
threading.Thread(target=work).start()
sys.exit(3)
""",
    "a thread that fails": """
import threading, time
def work():
    time.sleep(0.01)
    raise ValueError("in the thread")
threading.Thread(target=work, name="worker").start()
""",
    "hooks of atexit and of threading": """
import atexit, threading, time
atexit.register(print, "atexit, first in")
atexit.register(lambda: print("atexit, last in", threading.active_count(), threading.current_thread().name))
threading._register_atexit(print, "threading's own")
print("main ends")
threading.Timer(0.05, print, ["timer"]).start()
""",
    "atexit that sleeps and takes locks": """
import atexit, threading, time
lock = threading.Lock()
def last():
    time.sleep(0.01)
    with lock:
        print("last", threading.Event().wait(0.01))
atexit.register(last)
""",
    "logging by threads, daemons and atexit": """
import atexit, logging, sys, threading, time
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(threadName)s %(levelname)s %(message)s")
begun, waits, ended = threading.Event(), threading.Event(), threading.Event()
def work():
    logging.info("begin")
    begun.set()
    waits.wait()
    logging.warning("end")
    ended.set()
def wait():
    logging.info("waits")
    waits.set()
    threading.Event().wait()
threading.Thread(target=work, name="worker").start()
begun.wait()
threading.Thread(target=wait, daemon=True, name="daemon").start()
atexit.register(logging.info, "atexit")
ended.wait()
logging.info("main ends")
""",
    "thread that joins main": """
import threading
def work():
    threading.main_thread().join()
    print(f"main is over, alive {threading.main_thread().is_alive()}\n", end="")
for _ in range(3):
    threading.Thread(target=work).start()
print("main ends")
""",
    "many that join one": """
import threading, time
first = threading.Thread(target=time.sleep, args=(0.02,))
first.start()
def work():
    first.join()
    ended.append(first.is_alive())
ended = []
threads = [threading.Thread(target=work) for _ in range(5)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(ended)
""",
    "executor with jobs left": """
import threading, time
from concurrent.futures import ThreadPoolExecutor
executor = ThreadPoolExecutor(3)
turns = [threading.Event() for _ in range(5)]
def late(number):
    turns[number].wait()
    time.sleep(0.01)
    print("late", number)
    turns[number + 1].set()
for number in range(1, 4):
    executor.submit(late, number)
print("main ends")
turns[1].set()
""",
    "Ctrl-C while main sleeps and a thread works": """
import os, signal, threading, time
def work():
    interrupted.join()
    time.sleep(0.05)
    print("worker ends")
interrupted = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
for one in (interrupted, threading.Thread(target=work)):
    one.start()
time.sleep(10)
""",
    "_exit in a thread": """
import os, threading, time
def work():
    print("leaves", flush=True)
    os._exit(7)
threading.Thread(target=work).start()
time.sleep(30)
""",
    "finalisers that take locks": """
import threading
class Guarded:
    def __init__(self):
        self.lock, self.again = threading.Lock(), threading.RLock()
    def __del__(self):
        with self.lock, self.again:
            print("deleted")
kept = Guarded()
local = threading.local()
local.kept = Guarded()
""",
    "forked child with a thread of its own": """
import os, threading, time, warnings
warnings.simplefilter("ignore")
stay = threading.Thread(target=time.sleep, args=(0.1,))
stay.start()
pid = os.fork()
if pid:
    print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
else:
    own = threading.Thread(target=print, args=("thread of the child",))
    own.start()
    own.join()
    print(threading.active_count(), stay.is_alive(), threading.current_thread() is threading.main_thread(), flush=True)
    raise SystemExit(5)
""",
}


def run(program: str, patched: bool) -> tuple[int, str, list[str], float]:
    first = "from greenswitch import monkey; monkey.patch_all()\n" if patched else "\n"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", first + program], env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS
    )
    return done.returncode, done.stdout, without_our_frames(done.stderr), time.monotonic() - began


def without_our_frames(text: str) -> list[str]:
    """Drop from tracebacks the frames of this package, with the lines of source beneath them."""
    frames = re.compile(rf'  File "{re.escape(str(ROOT))}.*\n(    .*\n)*')
    return frames.sub("", text).splitlines()


@pytest.mark.parametrize("name", PROGRAMS)
def test_patched_program_ends_as_the_plain_one_does(name: str) -> None:
    if name == "a thread that starts another one at the end" and sys.version_info[:2] == (3, 12):
        pytest.skip("3.12 refuses that, until 3.12.2; ours never does")
    program = PROGRAMS[name].lstrip("\n")
    *plain, seconds = run(program, patched=False)
    *patched, patched_seconds = run(program, patched=True)
    assert patched == plain
    assert patched_seconds < 3 * seconds + 4, "most of it is the import; a hang would take 30 s, a grace period 5"
