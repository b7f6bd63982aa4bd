"""A signal at every step of this package: no turn is lost, whatever the handler does. Each kind in a fresh process.

A trace function counts the places of the package where the interpreter may call a handler, as a small program passes
them: the start of a function, the end of a call, the end of a loop's turn, and each line, where a debugger may stop. It
trips a signal at one of them: at the first in the first run, and so on. The usual test tries a share of them;
`GREENSWITCH_EVERY_STEP=1` tries all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

ROOT = Path(__file__).parents[2]

PROGRAM = '''
import _thread, dis, functools, os, signal, sys
import greenswitch
from greenswitch import Event, Lock, Queue, get_hub, run, sleep, spawn, timeout

def trace(frame, event, arg):
    if event == "call":
        if not frame.f_globals.get("__name__", "").startswith("greenswitch."):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return trace
    if event == "opcode" and frame.f_lasti in steps_of(frame.f_code):
        count[0] += 1
        if count[0] == when[0]:
            _thread.interrupt_main(signal.SIGUSR1)
    return trace

count, when = [0], [0]

@functools.cache
def steps_of(code):
    found, before = set(), ""
    for instruction in dis.get_instructions(code):
        if instruction.starts_line or before.startswith(("CALL", "RESUME", "JUMP_BACKWARD")):
            found.add(instruction.offset)
        before = instruction.opname
    return found

class Told(Exception):
    pass

def a_program(state):
    lock, queue, event = state.lock, Queue(1), Event()
    def worker(number):
        state.begun += 1
        try:
            with lock:
                sleep(0)
            queue.put(number)
            queue.get()
            with timeout(5):
                event.wait()
            sleep(0.0001)
        finally:
            state.ended += 1
    tasks = [spawn(worker, number) for number in range(3)]
    sleep(0.0001)
    event.set()
    for task in tasks:
        task.get()
    state.whole = True

class State:
    def __init__(self):
        self.lock, self.begun, self.ended, self.whole, self.handled = Lock(), 0, 0, False, 0
        self.wrong = []

def once(handler):
    state = State()
    def handle(number, frame):
        handler(state)
    signal.signal(signal.SIGUSR1, handle)
    hub = greenswitch.Hub()
    hub.on_error = lambda what, error: state.wrong.append(f"{what} failed: {error!r}")
    count[0], told = 0, None
    alarm = hub.call_later(20, sys.exit, "nobody goes on")
    sys._getframe().f_trace_opcodes = True  # on Python 3.12 it must be set before
    sys.settrace(trace)
    try:
        run(a_program, state, hub=hub, grace=5)
    except Told as error:
        told = error
    finally:
        sys.settrace(None)
    if state.lock.locked() or state.begun != state.ended:
        state.wrong.append(f"{state.begun} begun, {state.ended} ended, locked: {state.lock.locked()}")
    return state, told

def raises(state):
    state.handled += 1
    raise Told

def waits(state):
    sleep(0.0002)
    with state.lock:
        sleep(0)
    state.handled += 1

def spawns(state):
    spawn(sleep, 0).link(lambda task: get_hub().call_later(0.0001, note, state))

def note(state):
    state.handled += 1

handler = {"raises": raises, "waits": waits, "spawns": spawns}[sys.argv[1]]
once(handler)
every, steps = int(sys.argv[2]), count[0]
for number in range(1, steps, every):
    when[0] = number
    state, told = once(handler)
    if count[0] < number:
        break  # the runs differ by a few steps
    if (handler is raises) != (told is not None) and not (handler is raises and state.whole and not state.handled):
        state.wrong.append(f"raised: {told!r}")
    if handler is not raises and not state.whole:
        state.wrong.append("the program has not come to its end")
    if state.wrong:
        print("at", number, "of", steps, state.wrong, flush=True)
print("steps", steps)
'''


@pytest.mark.parametrize("handler", ["raises", "waits", "spawns"])
def test_signal_at_any_step_of_ours_loses_nothing(handler: str) -> None:
    every = 1 if os.environ.get("GREENSWITCH_EVERY_STEP") else 7
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, handler, str(every)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("steps "), done.stdout
    assert int(done.stdout.split()[1]) > 500
