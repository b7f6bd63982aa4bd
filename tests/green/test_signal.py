"""The twin of `signal`: handlers run and tasks wake, and waiting for a signal parks. Each in a fresh process."""

from __future__ import annotations

import os
import signal as original
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from greenswitch.green import signal

pytestmark = pytest.mark.skipif(not hasattr(original, "pause"), reason="no pause() here")

ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
import os, sys, threading, time
import greenswitch
from greenswitch import spawn, sleep, timeout
from greenswitch.green import signal

ticks = []
def tick():
    while True:
        sleep(0.005)
        ticks.append(1)
ticking = spawn(tick)

def later(number=signal.SIGUSR1):
    '''Have another process send a signal once others have run, as they can while the caller is parked, and all sleep.

    From here it would come in the midst of the task that sends it.
    '''
    ours, its = os.pipe()
    command = ["sh", "-c", f"read go; sleep 0.05; kill -{int(number)} {os.getpid()}"]
    os.posix_spawn("/bin/sh", command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, ours, 0)])
    os.close(ours)
    def let_it():
        turns = 0
        while turns < 5 or (len(ticks) < 5 and not ticking.dead):
            sleep(0.001)
            turns += 1
        os.write(its, b"go\\n")
        os.close(its)
    spawn(let_it)

heard = []
def handler(number, frame):
    heard.append(number)
"""


def script(source: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(source)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("who", ["signal.pause()", "spawn(signal.pause).get()"])
def test_pause_parks_until_a_handler_has_run_and_leaves_the_handlers_as_they_were(who: str) -> None:
    assert (
        script(f"""
    signal.signal(signal.SIGUSR1, handler)
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    later()
    {who}
    print(heard == [signal.SIGUSR1], ticks != [])
    print(before == [signal.getsignal(number) for number in signal.valid_signals()])
    """)
        == "True True\nTrue\n"
    )


def test_all_who_pause_go_on_and_ignored_signals_wake_nobody() -> None:
    assert (
        script("""
    signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    tasks = [spawn(signal.pause) for _ in range(3)]
    sleep(0)
    os.kill(os.getpid(), signal.SIGUSR2)
    sleep(0.02)
    print([task.dead for task in tasks])
    os.kill(os.getpid(), signal.SIGUSR1)
    sleep(0.02)
    print([task.dead for task in tasks], signal.getsignal(signal.SIGUSR1) is handler)
    """)
        == "[False, False, False]\n[True, True, True] True\n"
    )


@pytest.mark.parametrize("who", ["signal.pause()", "spawn(signal.pause).get()"])
def test_what_a_handler_raises_comes_through_in_main(who: str) -> None:
    assert (
        script(f"""
    class Told(Exception): pass
    def tell(number, frame): raise Told
    signal.signal(signal.SIGUSR1, tell)
    ticking.kill()
    later()
    try:
        {who}
    except Told:
        print("told")
    sleep(0.01)
    print(signal.getsignal(signal.SIGUSR1) is tell)
    """)
        == "told\nTrue\n"
    )


def test_handler_that_fails_while_the_pause_begins_leaves_the_handlers_as_they_were() -> None:
    assert (
        script("""
    import signal as original
    class Told(Exception): pass
    def tell(number, frame): raise Told
    signal.signal(signal.SIGUSR1, tell)
    valid_signals = original.valid_signals
    def then_one_comes():
        yield from valid_signals()
        os.kill(os.getpid(), signal.SIGUSR1)
    original.valid_signals = then_one_comes
    try:
        signal.pause()
    except Told:
        print("told", signal.getsignal(signal.SIGUSR1) is tell, signal._pausing)
    """)
        == "told True []\n"
    )


def test_error_of_a_handler_that_hits_a_task_comes_to_main_which_pauses() -> None:
    assert (
        script("""
    def tell(number, frame): raise OSError("told")
    signal.signal(signal.SIGUSR1, tell)
    sending = greenswitch.spawn_later(0.02, os.kill, os.getpid(), signal.SIGUSR1)
    try:
        signal.pause()
    except OSError as error:
        print(error, sending.state)
    """)
        == "told done\n"
    )


def test_ctrl_c_ends_a_pause() -> None:
    assert (
        script("""
    later(signal.SIGINT)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """)
        == "interrupted True\n"
    )


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
def test_ctrl_c_in_the_midst_of_a_task_comes_to_main_which_pauses(error: str) -> None:
    assert (
        script(f"""
    def tell(number, frame): raise {error}
    signal.signal(signal.SIGINT, tell)
    sending = greenswitch.spawn_later(0.02, os.kill, os.getpid(), signal.SIGINT)
    pausing = spawn(signal.pause)
    try:
        signal.pause()
    except {error}:
        pausing.join()
        print("interrupted", sending.state, pausing.state)
    """)
        == "interrupted done done\n"
    )


@pytest.mark.parametrize("end", ["task.kill()", "sleep(0.05)"])
def test_pause_that_is_given_up_leaves_the_handlers_as_they_were(end: str) -> None:
    assert (
        script(f"""
    signal.signal(signal.SIGUSR1, handler)
    def pause():
        with timeout(0.02):
            signal.pause()
    task = spawn(pause)
    task.link(lambda _: None)  # so its TimeoutError is not reported
    sleep(0)
    print(signal.getsignal(signal.SIGUSR1) is handler)
    {end}
    task.join()
    task.exception
    print(signal.getsignal(signal.SIGUSR1) is handler)
    os.kill(os.getpid(), signal.SIGUSR1)
    print(heard == [signal.SIGUSR1])
    """)
        == "False\nTrue\nTrue\n"
    )


@pytest.mark.skipif(not hasattr(original, "sigtimedwait"), reason="no sigtimedwait() here")
@pytest.mark.parametrize(
    "call",
    ["signal.sigwait({number})", "signal.sigwaitinfo({number}).si_signo", "signal.sigtimedwait({number}, 20).si_signo"],
)
def test_sigwait_parks_until_a_blocked_signal_is_pending(call: str) -> None:
    assert (
        script(f"""
    number = signal.SIGUSR1
    signal.pthread_sigmask(signal.SIG_BLOCK, {{number}})
    later()
    print({call} == number, len(ticks) > 3, signal.sigpending())
    """)
        == "True True set()\n"
    )


@pytest.mark.skipif(not hasattr(original, "sigtimedwait"), reason="no sigtimedwait() here")
def test_sigtimedwait_keeps_to_its_time_and_takes_nothing_that_came_later() -> None:
    assert (
        script("""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    print(signal.sigtimedwait([signal.SIGUSR1], 0), signal.sigtimedwait([signal.SIGUSR1], 0.05), len(ticks) > 3)
    task = spawn(signal.sigwait, [signal.SIGUSR1])
    sleep(0.01)
    task.kill()
    os.kill(os.getpid(), signal.SIGUSR1)
    print(signal.sigwait([signal.SIGUSR1]).name)
    try:
        signal.sigtimedwait([signal.SIGUSR1], -1)
    except ValueError as error:
        print("refused")
    """)
        == "None None True\nSIGUSR1\nrefused\n"
    )


def test_handler_that_wakes_a_task_while_all_wait_for_descriptors() -> None:
    assert (
        script("""
    from greenswitch.green import select
    event = greenswitch.Event()
    signal.signal(signal.SIGUSR1, lambda *_: event.set())
    ticking.kill()
    reading, writing = os.pipe()
    looking = spawn(select.select, [reading], [], [])
    waiting = spawn(event.wait)
    sleep(0)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    print(waiting.get(), looking.dead)
    os.write(writing, b"x")
    print(len(looking.get()[0]))
    """)
        == "True False\n1\n"
    )


def test_handlers_exception_ends_a_select_in_main_and_leaves_nothing_watched() -> None:
    assert (
        script("""
    from greenswitch.green import select
    class Told(Exception): pass
    def tell(number, frame): raise Told
    signal.signal(signal.SIGUSR1, tell)
    reading, writing = os.pipe()
    ticking.kill()
    watched = len(os.listdir("/proc/self/fd"))
    later()
    try:
        select.select([reading], [], [], 20)
    except Told:
        print("told", len(os.listdir("/proc/self/fd")) == watched)
    """)
        == "told True\n"
    )


def test_signal_in_a_thread_without_a_hub_and_in_another_thread_is_the_originals() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, threading\nfrom greenswitch.green import signal\nfrom greenswitch.hub import has_hub\n"
            "signal.signal(signal.SIGALRM, lambda *_: print('heard'))\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\n"
            "signal.pause()\nprint(has_hub())",
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("heard\nFalse\n", "")


def test_every_public_name_of_the_original_is_there() -> None:
    public = [name for name in dir(original) if not name.startswith("_")]
    differing = {name for name in public if getattr(signal, name) is not getattr(original, name)}
    ours = {"pthread_kill", "pause", "sigwait", "sigwaitinfo", "sigtimedwait"}
    assert differing == set(signal.REPLACED) <= ours
    assert set(signal.__all__) == set(public) <= set(dir(signal))
    with pytest.raises(AttributeError, match="no 'nonsense'"):
        signal.nonsense


def test_signal_for_a_patched_thread_goes_to_its_os_thread() -> None:
    program = """
from greenswitch import monkey
monkey.patch_all()
import os, signal, sys, threading, time
got = []
signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
thread = threading.Thread(target=time.sleep, args=(0.05,))
thread.start()
signal.pthread_kill(thread.ident, signal.SIGUSR1)
os.sched_getaffinity(thread.native_id)
time.pthread_getcpuclockid(thread.ident)
thread.join()
try:
    signal.pthread_kill(thread.ident, 0)
except ProcessLookupError:
    print(got == [signal.SIGUSR1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("True\n", "")
