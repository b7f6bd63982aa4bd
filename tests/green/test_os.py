"""The twin of `os`: what waits for a descriptor or a child is ours, all else is the original's own."""

from __future__ import annotations

import os as original
import subprocess
import sys
from pathlib import Path

import pytest

from greenswitch import files, processes, sleep, spawn
from greenswitch.green import os
from greenswitch.hub import Hub

ROOT = Path(__file__).resolve().parents[2]

OURS = {
    **{name: getattr(files, name) for name in ("read", "readv", "write", "writev", "close", "fdopen")},
    **{name: getattr(files, name) for name in ("eventfd_read", "eventfd_write", "sendfile", "splice")},
    **{name: getattr(processes, name) for name in ("wait", "wait3", "wait4", "waitid", "waitpid", "system")},
}


@pytest.mark.skipif(not files.CAN_WAIT, reason="nothing is replaced here")
def test_what_waits_is_ours_and_all_else_is_the_originals_own() -> None:
    public = [name for name in dir(original) if not name.startswith("_")]
    pairs = {name: (getattr(os, name), getattr(original, name)) for name in public}
    assert {name: ours for name, (ours, theirs) in pairs.items() if ours is not theirs} == {
        name: ours for name, ours in OURS.items() if hasattr(original, name)
    }
    assert set(os.__all__) == set(public) <= set(dir(os))
    with pytest.raises(AttributeError, match="no 'nonsense'"):
        os.nonsense


@pytest.mark.skipif(not files.CAN_WAIT, reason="pipes can't be asked here")
def test_two_tasks_talk_through_a_pipe(hub: Hub) -> None:
    reading, writing = os.pipe()
    echo = spawn(lambda: os.read(reading, 10) + b"!")
    sleep(1)
    assert not echo.dead
    assert os.write(writing, b"hello") == 5
    assert echo.get() == b"hello!"
    with os.fdopen(reading) as lines, os.fdopen(writing, "w") as out:
        line = spawn(lines.readline)
        sleep(1)
        out.write("one\n")
        out.flush()
        assert line.get() == "one\n"


@pytest.mark.skipif(not files.CAN_WAIT, reason="nothing is replaced here")
def test_patched_functions_dont_become_methods_and_come_back() -> None:
    script = """
import os
before = {name: getattr(os, name) for name in ("read", "write", "close", "waitpid", "fdopen", "system")}
from greenswitch import monkey
monkey.patch_all()
class Mine:
    read, write, close = os.read, os.write, os.close
assert all(getattr(os, name) is not value for name, value in before.items())
reading, writing = os.pipe()
Mine().write(writing, b"x")
assert Mine().read(reading, 1) == b"x"
Mine().close(reading)
monkey.unpatch_all()
assert all(getattr(os, name) is value for name, value in before.items())
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=original.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


SHARED = """
from greenswitch import monkey
monkey.patch_all()
import inspect, io, os, resource, select, signal, socket, subprocess, sys, tempfile, threading, time
r, w = os.pipe()
log = []

def later(call, *args):
    threading.Timer(0.02, call, args).start()

def both(call, *args):
    threads = [threading.Thread(target=lambda: log.append(call(*args))) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""

PROGRAMS = {
    "open": "later(os.write, w, b'line\\n'); print(open(r).readline() == 'line\\n')",
    "io.open": "later(os.write, w, b'line\\n'); print(io.open(r, 'rb', 0).read(9) == b'line\\n')",
    "FileIO": "later(os.write, w, b'x'); f = io.FileIO(r); print(f.read(9) == b'x', isinstance(sys.__stdin__.buffer.raw, io.FileIO))",  # noqa: E501
    "fifo": """
path = os.path.join(tempfile.mkdtemp(), "fifo")
os.mkfifo(path)
def write():
    with open(path, "w") as file: file.write("line")
later(write)
print(open(path).read() == "line")""",
    "eventfd": "fd = os.eventfd(0); later(os.eventfd_write, fd, 3); print(os.eventfd_read(fd) == 3)",
    "splice": """
if hasattr(os, "splice"):
    out, into = os.pipe()
    later(os.write, w, b"x")
    print(os.splice(r, into, 100) == 1)
else:
    print(True)""",
    "sendfile": """
with tempfile.TemporaryFile() as file:
    file.write(b"x" * 300_000)
    file.flush()
    def send():
        sent = 0
        while sent < 300_000: sent += os.sendfile(w, file.fileno(), sent, 300_000 - sent)
        os.close(w)
    threading.Thread(target=send).start()
    count = 0
    while data := os.read(r, 65536): count += len(data)
    print(count == 300_000)""",
    "two readers of one file": """
file = os.fdopen(r, "rb")
later(os.write, w, b"one\\ntwo\\n")
both(file.readline)
print(sorted(log) == [b"one\\n", b"two\\n"])""",
    "two writers of one file": """
file = os.fdopen(w, "wb")
drained = []
def drain():
    while sum(drained) < 400_000: drained.append(len(os.read(r, 65536)))
draining = threading.Thread(target=drain)
draining.start()
both(file.write, b"x" * 200_000)
file.flush()
draining.join()
print(log == [200_000] * 2)""",
    "two readers of a socket's file": """
near, far = socket.socketpair()
file = near.makefile("rb")
later(far.sendall, b"one\\ntwo\\n")
both(file.readline)
print(sorted(log) == [b"one\\n", b"two\\n"])""",
    "a reader and a writer of one file": """
near, far = socket.socketpair()
file = near.makefile("rwb")
reading = threading.Thread(target=lambda: log.append(file.readline()))
reading.start()
time.sleep(0.02)
file.write(b"x")
file.flush()
log.append(far.recv(1))
far.sendall(b"y\\n")
reading.join()
print(log == [b"x", b"y\\n"])""",
    "Popen left while its output is read": """
with subprocess.Popen(["sh", "-c", "sleep 0.05; echo out"], stdout=subprocess.PIPE) as child:
    reading = threading.Thread(target=lambda: log.append(child.stdout.read()))
    reading.start()
    time.sleep(0.01)
reading.join()
print(log == [b"out\\n"] and child.returncode == 0)""",
    "no descriptor left": """
near, far = socket.socketpair()
threading.Thread(target=int).start(); time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
hog = []
try:
    while True: hog.append(os.dup(r))
except OSError: pass
later(far.send, b"x")
print(select.select([near], [], [], 30)[0] == [near])
[os.close(fd) for fd in hog]""",
    "bad descriptors": """
threading.Thread(target=int).start(); time.sleep(0.01)
calls = [lambda: os.read(-1, 1), lambda: os.write(-1, b"x"), lambda: os.readv(-1, [bytearray(1)])]
for call in (*calls, lambda: os.close(fd=-1)):
    try: call()
    except OSError as error: log.append(error.errno)
print(log == [9] * 4)""",
}


@pytest.mark.skipif(not hasattr(original, "eventfd"), reason="the programs are for Linux")
@pytest.mark.parametrize("program", PROGRAMS)
def test_files_of_patched_programs_are_shared_and_park_as_with_threads(program: str) -> None:
    script = SHARED + PROGRAMS[program].replace("\\\\n", "\\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "") and set(done.stdout.split()) == {"True"}
