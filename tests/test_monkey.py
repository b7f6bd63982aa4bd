"""Patching in place: what it changes, what it leaves, and that all of it can be undone. Each in a fresh process."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from greenswitch import monkey

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1"}
SECONDS = 30
PATCH = "from greenswitch import monkey; monkey.patch_all()\n"


def run(source: str, *args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", source, *args], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS
    )


def output(source: str, *args: str) -> list[str]:
    """Return the lines that a script prints; it must end well, and complain of nothing."""
    done = run(source, *args)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.splitlines()


# -- in place ----------------------------------------------------------------------------------------------------------


def test_sleeping_threads_sleep_side_by_side_in_one_os_thread() -> None:
    assert output(PATCH + """
import threading, time, os
def work():
    time.sleep(0.2)
    natives.add(len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1)
natives = set()
threads = [threading.Thread(target=work) for _ in range(20)]
began = time.monotonic()
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(0.2 <= time.monotonic() - began < 20 * 0.2, natives)
""") == ["True {1}"]


def test_classes_keep_their_identity() -> None:
    assert output("""
import queue, select, selectors, ssl, subprocess, threading
names = {
    threading: ["Thread", "Condition", "Event", "Semaphore", "BoundedSemaphore", "Barrier", "Timer", "RLock"],
    queue: ["Queue", "LifoQueue", "PriorityQueue", "Empty", "Full"],
    ssl: ["SSLContext", "SSLObject"], subprocess: ["Popen"], selectors: ["DefaultSelector"],
}
before = {(module, name): getattr(module, name) for module in names for name in names[module]}
from greenswitch import monkey
monkey.patch_all()
print([name for (module, name), value in before.items() if getattr(module, name) is not value])
print(isinstance(threading.Lock(), type(threading._allocate_lock())))
""") == ["[]", "True"]


def test_unpatching_restores_every_name_of_every_module() -> None:
    assert output("""
import sys, importlib
from greenswitch import monkey
for twins in monkey.SWITCHES.values():
    for twin in twins:
        importlib.import_module(f"greenswitch.green.{twin}")
import asyncio, multiprocessing.pool, concurrent.futures.process, logging, decimal, tempfile, http.client
def state():
    modules = {name: module for name, module in sys.modules.items() if hasattr(module, "__dict__")}
    return {(name, key): id(value) for name, module in modules.items() for key, value in vars(module).items()
            if not name.startswith("greenswitch") and name != "__main__"}
import greenswitch.originals, greenswitch.patches
list(map(importlib.import_module, ["greenswitch.originals"])); state()
before = state(), list(sys.meta_path)
monkey.patch_all()
during = state()
monkey.unpatch_all()
after = state(), list(sys.meta_path)
changed = {key for key in before[0] if during.get(key) != before[0][key]}
print(len(changed) > 40, ("time", "sleep") in changed, ("threading", "get_ident") in changed)
print(sorted(key for key in before[0] if after[0].get(key) != before[0][key]), before[1] == after[1])
print(monkey.is_module_patched("time"))
""") == ["True True True", "[] True", "False"]


def test_patching_twice_does_nothing_the_second_time_and_can_add() -> None:
    assert output("""
from greenswitch import monkey
import time, threading
original = time.sleep
monkey.patch_all(threading=False)
ours, lock = time.sleep, threading.Lock
print(monkey.is_module_patched("time"), monkey.is_module_patched("threading"))
monkey.patch_all()
print(time.sleep is ours, threading.Lock is lock, monkey.is_module_patched("_thread"))
print(monkey.get_original("time", "sleep") is original, monkey.get_original("time", "time") is time.time)
print(monkey.is_object_patched("time", "sleep"), monkey.is_object_patched("time", "time"))
monkey.unpatch_all()
print(time.sleep is original, threading.Lock is lock, monkey.is_object_patched("time", "sleep"))
""") == ["True False", "True False True", "True True", "True False", "True True False"]


@pytest.mark.parametrize("switch", sorted(monkey.SWITCHES))
def test_each_module_can_be_left_alone(switch: str) -> None:
    assert output(f"""
from greenswitch import monkey
import {switch} as module
before = dict(vars(module))
monkey.patch_all({switch}=False)
import sys
twins = monkey.SWITCHES[{switch!r}]
print([monkey.is_module_patched(twin) for twin in twins] == [False] * len(twins), monkey.is_module_patched(
    "time" if {switch!r} != "time" else "queue"))
""") == ["True True"]


def test_unknown_switch_is_a_type_error_that_names_those_there_are() -> None:
    with pytest.raises(TypeError, match="no switch 'sockets'; there are threading, queue, time, socket"):
        monkey.patch_all(sockets=False)


def test_patched_builtins_do_not_become_methods_and_are_pickled_by_their_names() -> None:
    assert output(PATCH + """
import pickle, time, threading, _thread
class Clock:
    sleep = time.sleep
    ident = threading.get_ident
    lock = threading.Lock
clock = Clock()
clock.sleep(0.001)
print(clock.ident() == threading.get_ident(), clock.lock().locked())
print(pickle.loads(pickle.dumps(time.sleep)) is time.sleep, time.sleep.__name__, time.sleep.__module__)
""") == ["True False", "True sleep time"]


def test_module_imported_anew_is_patched_anew() -> None:
    assert output(PATCH + """
import sys, importlib, time, queue
del sys.modules["time"], sys.modules["queue"], sys.modules["_queue"]
import time as again, queue as queue_again
print(again is not time, again.sleep is time.sleep, queue_again.SimpleQueue is queue.SimpleQueue)
""") == ["True True True"]


# -- too early, too late, in the wrong place ---------------------------------------------------------------------------


EARLY = """
import sys, types
early = types.ModuleType("early")
exec("from time import sleep as nap; from threading import Lock; import time", vars(early))
sys.modules["early"] = early
from greenswitch import monkey
"""


def test_report_names_what_was_imported_too_early() -> None:
    lines = output(EARLY + "report = monkey.patch_all(); print(report); print(len(report))")
    assert "  early.nap is still the original time.sleep" in lines
    assert any(line.startswith("  early.Lock is still the original ") for line in lines)
    assert lines[-1] == "2"


def test_nothing_too_early_is_an_empty_report() -> None:
    assert output("from greenswitch import monkey; r = monkey.patch_all(strict=True); print(bool(r), r)") == [
        "False <patched: nothing was imported too early>"
    ]


def test_strict_raises_and_changes_nothing() -> None:
    assert output(EARLY + """
import time
before = time.sleep
try:
    monkey.patch_all(strict=True)
except RuntimeError as error:
    print("early.nap" in str(error), time.sleep is before, monkey.is_module_patched("time"))
""") == ["True True False"]


def test_other_thread_a_task_and_jupyter_are_refused_with_the_reason() -> None:
    assert output("""
import sys, threading, types, greenswitch
from greenswitch import monkey
def attempt():
    try:
        monkey.patch_all()
    except greenswitch.HubError as error:
        print(str(error))
thread = threading.Thread(target=attempt)
thread.start()
thread.join()
greenswitch.spawn(attempt).join()
kernel = types.ModuleType("ipykernel.kernelapp")
kernel.IPKernelApp = types.SimpleNamespace(initialized=lambda: True)
sys.modules["ipykernel.kernelapp"] = kernel
attempt()
print(monkey.is_module_patched("time"))
monkey.patch_all(force=True)
print(monkey.is_module_patched("time"))
""") == [
        "patch_all() belongs at the top of the program, in its main thread; this is another one",
        "patch_all() belongs at the top of the program, before any task; Task 'attempt-1' calls it",
        "patch_all() in a Jupyter kernel would change what the kernel itself runs on; use `greenswitch.green` modules "
        "instead, or patch_all(force=True)",
        "False",
        "True",
    ]


def test_what_the_standard_library_took_before_is_patched_too() -> None:
    assert output("""
import functools, logging, reprlib, tempfile, threading, time
handler = logging.StreamHandler()
from greenswitch import monkey
monkey.patch_all()
ours = type(threading.RLock()), type(threading._allocate_lock())
print(isinstance(logging._lock, ours), isinstance(handler.lock, ours), isinstance(threading._active_limbo_lock, ours))
print(reprlib.get_ident is threading.get_ident, functools.RLock is type(threading.RLock()))
""") == ["True True True", "True True"]


def test_scheduler_of_the_standard_library_sleeps_beside_the_others_also_imported_before() -> None:
    assert output("import sched\n" + PATCH + """
import greenswitch, time
def other():
    time.sleep(0.01)
    order.append("other")
order = []
greenswitch.spawn(other)
scheduler = sched.scheduler()
scheduler.enter(0.1, 1, order.append, ["scheduled"])
scheduler.run()
print(order)
monkey.unpatch_all()
print(sched.scheduler().delayfunc is time.sleep)
""") == ["['other', 'scheduled']", "True"]


def test_threads_made_before_run_in_the_os_and_threads_of_the_os_may_use_what_is_patched() -> None:
    assert output("""
import threading, time
gate = threading.Event()
def work(value):
    begun.append(value)
    time.sleep(0.01)
    lock.acquire()
    ended.append((value, threading.get_native_id() != native))
begun, ended, native = [], [], threading.get_native_id()
made = threading.Thread(target=work, args=("made",))
from greenswitch import monkey
monkey.patch_all()
import greenswitch
lock = threading.Lock()
lock.acquire()
made.start()
other = greenswitch.spawn(greenswitch.to_thread, work, "in a pool")
while len(begun) < 2:
    time.sleep(0.01)
print(sorted(begun), ended)
lock.release()
while not ended:
    time.sleep(0.01)
lock.release()
made.join()
other.join()
print(sorted(ended))
""") == ["['in a pool', 'made'] []", "[('in a pool', True), ('made', True)]"]


def test_thread_of_the_os_holds_nothing_any_more_once_it_can_be_joined() -> None:
    """Or what it held is freed while the program ends: multiprocessing told of leaked semaphores then."""
    assert output(PATCH + """
import sys, threading, weakref
class InTheOS(threading.Thread):
    def run(self): pass
InTheOS.__module__ = "multiprocessing.of_a_test"
sys.setswitchinterval(1e-6)
late = 0
for _ in range(500):
    thread = InTheOS()
    thread.start()
    thread.join()
    left = weakref.ref(thread)
    del thread
    late += left() is not None
print(late)
""") == ["0"]


def test_two_tasks_import_a_module_that_sleeps_and_both_get_it_whole(tmp_path: Path) -> None:
    (tmp_path / "sleepy.py").write_text("import time\ntime.sleep(0.05)\nwhole = True\n")
    assert output(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + PATCH + """
import greenswitch
def use():
    import sleepy
    return sleepy.whole
tasks = [greenswitch.spawn(use) for _ in range(3)]
greenswitch.joinall(tasks)
print([task.value for task in tasks])
""") == ["[True, True, True]"]


# -- who keeps the originals -------------------------------------------------------------------------------------------

ASYNCIO = """
async def main():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda reader, writer: (writer.write(b"hello"), writer.close()), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = await reader.read()
    writer.close()
    await writer.wait_closed()
    server.close()
    values = await asyncio.gather(asyncio.sleep(0.01, 1), asyncio.to_thread(len, "four"),
                                  loop.run_in_executor(None, threading.get_native_id))
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(5)", stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    return data, values[:2], values[2] != threading.get_native_id(), out, child.returncode

def call():
    return asyncio.run(main())

print(call())
print(greenswitch.to_thread(call))
print(greenswitch.spawn(call).get())
"""

FUTURES = """
def double(number):
    time.sleep(0.1)
    return 2 * number

def together(number):
    everybody.wait(20)
    return 2 * number

if __name__ == "__main__":
    everybody = threading.Barrier(10)
    with futures.ThreadPoolExecutor(10) as executor:
        print(list(executor.map(together, range(10))))
    with futures.ThreadPoolExecutor(2) as executor:
        waiting = [executor.submit(double, number) for number in range(3)]
        print(sorted(future.result() for future in futures.as_completed(waiting)))
        print(greenswitch.wrap_future(executor.submit(double, 4)))
    for method in ("fork", "spawn"):
        with futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as executor:
            print(list(executor.map(abs, range(-3, 0))))
"""

PROCESSES = """
def put(queue):
    queue.put((os.getpid(), threading.current_thread().name))

def main():
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=put, args=(queue,))
        process.start()
        pid, name = queue.get()
        process.join()
        print(pid == process.pid, name, process.exitcode)
        with context.Pool(2) as pool:
            print(pool.map(abs, [-1, -2]), pool.apply_async(abs, (-9,)).get(), pool.apply(abs, (-3,)))
    with ThreadPool(3) as pool:
        print(pool.map(abs, [-1, -2]))
    one, other = multiprocessing.Pipe()
    one.send([1])
    print(other.recv())
    for end in (one, other):
        end.close()

if __name__ == "__main__":
    main()
    greenswitch.spawn(main).get()
"""

PROCESSES_PRINT = [
    *("True MainThread 0", "[1, 2] 9 3", "True MainThread 0", "[1, 2] 9 3", "[1, 2]", "[1]"),
]
IMPORTS = {
    "asyncio": "import asyncio\n",
    "futures": "import concurrent.futures as futures, concurrent.futures.process, concurrent.futures.thread\n",
    "processes": "import multiprocessing, multiprocessing.dummy\nfrom multiprocessing.pool import ThreadPool\n",
}
ALWAYS = PATCH + "import multiprocessing, os, sys, threading, time\nimport greenswitch\n"
KEEPERS = {
    "asyncio": (ASYNCIO, ["(b'hello', [1, 4], True, b'5\\n', 0)"] * 3),
    "futures": (
        FUTURES,
        ["[0, 2, 4, 6, 8, 10, 12, 14, 16, 18]", "[0, 2, 4]", "8", "[3, 2, 1]", "[3, 2, 1]"],
    ),
    "processes": (PROCESSES, PROCESSES_PRINT * 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("early", [False, True], ids=["imported after", "imported before"])
@pytest.mark.parametrize("name", KEEPERS)
def test_asyncio_futures_and_multiprocessing_keep_working(name: str, early: bool, tmp_path: Path) -> None:
    program, expected = KEEPERS[name]
    imports = IMPORTS[name]
    script = tmp_path / "script.py"
    script.write_text((imports + ALWAYS if early else ALWAYS + imports) + program)
    environment = ENVIRONMENT | {"PYTHONWARNINGS": "ignore::DeprecationWarning"}  # of forking beside threads
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=SECONDS * 2
    )
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (expected, "", 0)


def test_modules_of_ours_hold_originals_also_if_they_are_imported_after_patching() -> None:
    assert output(PATCH + """
import _thread, threading, time
from greenswitch.core import limitation, prints
print(prints.allocate_lock is monkey.get_original("_thread", "allocate_lock"), prints.get_ident is _thread.get_ident)
print(limitation.time.sleep is monkey.get_original("time", "sleep"), limitation.time.monotonic is time.monotonic)
with limitation.ThreadPoolExecutor(1) as executor:
    print(executor.submit(threading.get_native_id).result() != threading.get_native_id())
from greenswitch.green import subprocess, select
print(select.original is __import__("select"))
""") == ["True False", "True True", "True", "True"]


def test_logging_from_everywhere_loses_no_line() -> None:
    lines = output(PATCH + """
import logging, sys, threading, time, greenswitch
class Slow(logging.StreamHandler):
    def emit(self, record):
        time.sleep(0.001)  # parks with the handler's lock held
        super().emit(record)
handler = Slow(sys.stdout)
handler.setFormatter(logging.Formatter("%(threadName)s %(message)s"))
logging.getLogger().addHandler(handler)
logging.getLogger().setLevel("INFO")
def work(number):
    for step in range(3):
        logging.info("%d.%d", number, step)
threads = [threading.Thread(target=work, args=(number,), name="thread") for number in range(5)]
[thread.start() for thread in threads]
tasks = [greenswitch.spawn(work, number) for number in range(5, 10)]
tasks += [greenswitch.spawn(greenswitch.to_thread, work, number) for number in range(10, 15)]
[thread.join() for thread in threads]
greenswitch.joinall(tasks, raise_error=True)
work(15)
""")
    assert sorted(line.split()[1] for line in lines) == sorted(f"{n}.{step}" for n in range(16) for step in range(3))
    names = [line.split()[0] for line in lines]
    assert names.count("thread") == 15 and names.count("MainThread") == 3
    assert sum(name.startswith("work-") for name in names) == 15
    assert sum(name.startswith("Dummy-") for name in names) == 15  # in threads that are not the program's


# -- python -m greenswitch.monkey --------------------------------------------------------------------------------------

PROGRAM = """
import sys, threading
from pickle import dumps, loads
class Here: pass
def fail(): raise ValueError("no")
print(sys.argv, __name__, __file__, sys.path[0], type(loads(dumps(Here()))) is Here)
print(threading.current_thread().name, __spec__ and __spec__.name, __package__)
what = sys.argv[-1]
if what == "error": fail()
if what == "interrupt": raise KeyboardInterrupt
if what == "exit": sys.exit(3)
if what == "message": sys.exit("bye")
if what == "cause":
    try: fail()
    except ValueError as error: raise KeyError("yes") from error
if what == "context":
    try: fail()
    except ValueError: {}["missing"]
if what == "hook":
    sys.excepthook = lambda kind, error, at: print(kind, error, at is error.__traceback__)
    fail()
"""


def both(tmp_path: Path, *args: str) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
    """Run `python args…` as it is, and by the runner."""
    commands = [sys.executable, *args], [sys.executable, "-m", "greenswitch.monkey", *args]
    one, other = (
        subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS)
        for command in commands
    )
    return one, other


@pytest.mark.parametrize("what", ["", "error", "interrupt", "exit", "message", "cause", "context", "hook", "--help"])
@pytest.mark.parametrize("how", ["program.py", "-m program"])
def test_program_behaves_as_without_the_runner(how: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    plain, patched = both(tmp_path, *how.split(), "-x", what)
    assert patched.stdout == plain.stdout and "__main__" in plain.stdout
    # (Of -m, but for runpy's own frames.)
    expected = [line for line in plain.stderr.splitlines() if "<frozen runpy>" not in line]
    assert patched.stderr.splitlines() == expected
    assert patched.returncode == plain.returncode


APPLICATION = PROGRAM + """
import helper
print(__cached__, type(__loader__), sys.path[1:] == [one for one in sys.path if one != sys.path[0]])
"""


def built(kind: str, tmp_path: Path) -> str:
    """Make a program of some kind; return how to call it."""
    source = tmp_path / "application"
    source.mkdir()
    main = source / "__main__.py"
    main.write_text(APPLICATION)
    (source / "helper.py").write_text("print(__name__, __file__)\n")
    if kind == "zip":
        zipapp.create_archive(source, tmp_path / "application.pyz")
    elif kind != "directory":
        py_compile.compile(str(main), str(tmp_path / kind))
        (tmp_path / "helper.py").write_text("print('here')\n")
    return {"directory": "application/", "zip": "./application.pyz"}.get(kind, kind)


@pytest.mark.parametrize("what", ["", "error", "exit", "context"])
@pytest.mark.parametrize("kind", ["directory", "zip", "program.pyc", "compiled"])
def test_application_and_compiled_program_behave_as_without_the_runner(kind: str, what: str, tmp_path: Path) -> None:
    plain, patched = both(tmp_path, built(kind, tmp_path), "-x", what)
    assert patched.stdout == plain.stdout and "__main__" in plain.stdout
    assert patched.stderr.splitlines() == [line for line in plain.stderr.splitlines() if "<frozen runpy>" not in line]
    assert patched.returncode == plain.returncode


def test_safe_path_puts_an_application_on_the_path_and_no_other_directory(tmp_path: Path) -> None:
    show = "import sys; print(sys.path)"
    (tmp_path / "application").mkdir()
    (tmp_path / "application" / "__main__.py").write_text(show)
    (tmp_path / "program.py").write_text(show)
    env = {**ENVIRONMENT, "PYTHONSAFEPATH": "1"}
    for program in ("application", "program.py"):
        shown = [
            subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=SECONDS, check=True)
            for how in ([], ["-m", "greenswitch.monkey"])
            for command in [[sys.executable, *how, program]]
        ]
        assert shown[0].stdout == shown[1].stdout


SPAWNING = """
import multiprocessing
def square(number): return number * number
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(square, [2, 3]))
"""


@pytest.mark.parametrize("kind", ["program.py", "program.pyc"])
def test_program_of_any_kind_starts_processes_by_spawn(kind: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SPAWNING)
    if kind.endswith("c"):
        py_compile.compile(str(tmp_path / "program.py"), str(tmp_path / kind))
    plain, patched = both(tmp_path, kind)
    assert (patched.returncode, patched.stdout, patched.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert patched.stdout == "[4, 9]\n"


def test_program_that_cannot_run_fails_as_in_python(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("x = (\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.pyc").write_bytes(b"no compiled module at all")
    for args in (["wrong.py"], ["missing.py"], ["-m", "missing"], ["-m", "package"], ["empty"], ["wrong.pyc"]):
        plain, patched = both(tmp_path, *args)
        assert (patched.returncode, patched.stdout, patched.stderr) == (plain.returncode, plain.stdout, plain.stderr)


def test_runner_patches_before_the_program_and_its_options_come_first(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import sys\nfrom greenswitch import monkey\n"
        "print(monkey.is_module_patched('time'), monkey.is_module_patched('threading'), sys.argv[1:])\n"
    )
    arguments = ["-m", "greenswitch.monkey", "--no-threading", "--report", "program.py", "--no-time"]
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.stdout == "True False ['--no-time']\n"
    assert done.stderr == "<patched: nothing was imported too early>\n"


def test_help_teaches_and_no_program_is_an_error() -> None:
    command = [sys.executable, "-m", "greenswitch.monkey"]
    shown = subprocess.run([*command, "--help"], env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS)
    assert shown.returncode == 0 and "examples:" in shown.stdout
    assert all(f"--no-{switch} " in shown.stdout for switch in monkey.SWITCHES)
    refused = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS)
    assert refused.returncode == 2 and "which program?" in refused.stderr
