"""The collector may run at any allocation: with a threshold of 1 it does, and no end of a program crashes it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PATCHED = """
from greenswitch import monkey
monkey.patch_all()
"""
BEGIN = """
import asyncio, concurrent.futures, gc, signal, sys, threading, time
import greenswitch
from greenswitch import Pool, TaskGroup, getcurrent, local, sleep, spawn

class Looks:
    '''Looks at its frame, and at a reference to itself, when the collector frees it.'''
    def __init__(self):
        self.me = self
    def __del__(self):
        repr(getcurrent()), sys._getframe(0).f_locals

def wait(event):
    kept = Looks()
    try:
        event.wait()
    finally:
        kept.frame = sys._getframe()

event = greenswitch.Event()
gc.set_threshold(1)
"""
BODIES = {
    "tasks that nobody keeps": "for _ in range(50): spawn(wait, event)\nsleep(0)",
    "tasks that end": "tasks = [spawn(wait, event) for _ in range(50)]\nsleep(0)\nevent.set()\nsleep(0.001)",
    "tasks that are killed": "tasks = [spawn(wait, event) for _ in range(50)]\nsleep(0)\ngreenswitch.killall(tasks)",
    "tasks that never start": "tasks = [spawn(wait, event) for _ in range(50)]",
    "a pool": "pool = Pool(5)\nresults = pool.imap_unordered(lambda one: Looks(), range(50))\nnext(results)",
    "a task group that fails": """
try:
    with TaskGroup() as group:
        for _ in range(20):
            group.spawn(wait, event)
        sleep(0)
        raise ValueError
except* ValueError:
    pass
""",
    "values of a local": """
mine = local()
def keep():
    mine.value = Looks()
    wait(event)
tasks = [spawn(keep) for _ in range(20)]
sleep(0)
""",
    "an OS thread with a hub": """
thread = greenswitch.threads.OSThread(target=lambda: spawn(wait, event) and sleep(0.001))
thread.start()
thread.join()
""",
}
PATCHED_BODIES = {
    "an asyncio loop with an executor": """
async def work():
    executor = concurrent.futures.ThreadPoolExecutor(2)
    loop = asyncio.get_running_loop()
    jobs = [loop.run_in_executor(executor, time.sleep, 0.001) for _ in range(4)]
    await jobs[0]
    pending.append(asyncio.ensure_future(asyncio.sleep(60)))
    END_IN_LOOP
pending = []
try:
    asyncio.run(work())
except KeyboardInterrupt:
    pass
""",
    "threads": """
def wait_daemon():
    wait(gate)
gate = threading.Event()
for _ in range(5):
    threading.Thread(target=wait_daemon, daemon=True).start()
time.sleep(0.001)
""",
}
ENDS = {
    "returns": "",
    "exits": "sys.exit(0)",
    "exits in a task": "spawn(sys.exit, 0)\nsleep(1)",
    "is ended by Ctrl-C": "import contextlib\nwith contextlib.suppress(KeyboardInterrupt):\n"
    "    signal.raise_signal(signal.SIGINT)\n    sleep(1)",
}
CASES = [("", what, how) for what in BODIES for how in ENDS]
CASES += [(PATCHED, what, how) for what in (*PATCHED_BODIES, "tasks that nobody keeps") for how in ENDS]


@pytest.mark.parametrize(
    ("patched", "what", "how"), CASES, ids=["-".join(("patched" if one[0] else "as it is", *one[1:])) for one in CASES]
)
def test_a_program_ends_well_however_often_the_collector_runs(patched: str, what: str, how: str) -> None:
    in_loop = "signal.raise_signal(signal.SIGINT)" if how == "is ended by Ctrl-C" else "pass"
    body = {**BODIES, **PATCHED_BODIES}[what].replace("END_IN_LOOP", in_loop)
    program = "\n".join((patched, BEGIN, body, "print('at its end', flush=True)", ENDS[how]))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program], capture_output=True, text=True, timeout=60
    )

    assert (done.stdout, done.returncode) == ("at its end\n", 0), done.stderr
    assert "Fatal" not in done.stderr
