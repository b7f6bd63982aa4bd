"""A dump at a signal, and one for another process. Each in a fresh process, since signals are everybody's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from greenswitch.dump import Report
from greenswitch.dump.on_signal import CannotAsk, _allowed, _mailbox_of, ask

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="POSIX signals")
LINUX = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="a memfd in /proc")
ROOT = Path(__file__).parents[2]

PRELUDE = """
import os, signal, sys, threading, time
from greenswitch import *
from greenswitch.dump import *

def ring(number=signal.SIGUSR1):
    os.kill(os.getpid(), number)

def ring_once(ready, then=lambda: None):
    def later():
        while not ready():
            time.sleep(0.001)
        ring()
        then()
    threading.Thread(target=later, daemon=True).start()
"""


def script(body: str, prelude: str = PRELUDE) -> subprocess.CompletedProcess[str]:
    """Run `body` after the prelude in a fresh Python."""
    command = [sys.executable, "-c", prelude + textwrap.dedent(body)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


@contextmanager
def running(body: str) -> Iterator[subprocess.Popen[str]]:
    """Run `body` beside the test, from the time on when it has said so, until the test is done with it."""
    command = [sys.executable, "-u", "-c", PRELUDE + textwrap.dedent(body)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_dump_while_the_hub_sleeps_goes_to_standard_error() -> None:
    done = script("""
    def main():
        install_dump_signal()
        def waits():
            sleep(1000)
        task, hub = spawn(waits), get_hub()
        def end():
            hub.call_threadsafe(lambda: task.kill(block=False))
        ring_once(lambda: task.state == "parked" and hub.asleep, end)
        task.join()
    run(main)
    """)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("<Hub of thread") == 1 and "(MainThread), asleep, turn " in done.stderr
    assert re.search(r"Task 'waits-2': parked for \d\S* s, sleep 1000, 1,000 s left\n +at   <string>", done.stderr)
    assert re.search(r"Task 'main': parked for \d\S* s, join Task 'waits-2' in Task.join\n", done.stderr)


@pytest.mark.parametrize("call", ["pass", "time.sleep(0.05)", "sum(n * n for n in range(300_000))"])
def test_dump_while_a_task_keeps_the_thread_says_where_it_is(call: str) -> None:
    done = script(f"""
    begun, caught = [], []
    def keeps_the_thread():
        begun.append(1)
        while not caught:
            {call}
    def main():
        signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
        with install_dump_signal(times=False):
            ring_once(lambda: begun)
            spawn(keeps_the_thread).join()
    run(main)
    """)
    assert (done.returncode, done.stdout) == (0, "")
    assert re.search(r"'keeps_the_thread-2': running\n +at   <string>:\d+ in (keeps_the_thread|<gen)", done.stderr)
    assert "Task 'main': parked, join" in done.stderr


def test_earlier_handler_is_called_too_and_comes_back() -> None:
    done = script("""
    def earlier(number, frame):
        print("earlier", number == signal.SIGUSR1, frame.f_code.co_name)
    signal.signal(signal.SIGUSR1, earlier)
    def main():
        installed = install_dump_signal()
        ring()
        print(installed)
        installed.uninstall()
        installed.uninstall()
        print(installed)
        ring()
    main()
    print(signal.getsignal(signal.SIGUSR1) is earlier)
    """)
    assert done.stdout.splitlines() == [
        "earlier True ring",
        "<DumpSignal SIGUSR1>",
        "<DumpSignal SIGUSR1, not installed>",
        "earlier True ring",
        "True",
    ]
    assert done.stderr.count("no hub in process") == 1


def test_handler_that_came_later_is_left_alone_and_hears_no_dump_after_the_end() -> None:
    done = script("""
    installed = install_dump_signal()
    before = signal.getsignal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, lambda *both: (print("later"), before(*both)))
    later = signal.getsignal(signal.SIGUSR1)
    ring()
    installed.uninstall()
    ring()
    print(signal.getsignal(signal.SIGUSR1) is later)
    """)
    assert (done.returncode, done.stdout) == (0, "later\nlater\nTrue\n")
    assert done.stderr.count("no hub") == 1


def test_installed_twice_it_dumps_once_and_the_last_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "dumps"
    done = script(f"""
    first = install_dump_signal()
    second = install_dump_signal(file={str(path)!r})
    ring()
    ring()
    print(first)
    second.uninstall()
    print(signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL, len(os.listdir("/proc/self/fd")) <= 4)
    """)
    assert (done.stdout, done.stderr) == ("<DumpSignal SIGUSR1, not installed>\nTrue True\n", "")
    assert path.read_text().count("no hub in process") == 2


def test_file_without_a_descriptor_and_another_signal() -> None:
    done = script("""
    import io
    file = io.StringIO()
    with install_dump_signal(signal.SIGUSR2, file, times=False):
        ring(signal.SIGUSR2)
    print(file.getvalue().count("no hub in process"))
    """)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_dump_that_fails_harms_nobody() -> None:
    done = script("""
    install_dump_signal(file="/nowhere/at/all")
    ring()
    print("alive")
    """)
    assert (done.returncode, done.stdout) == (0, "alive\n")
    assert "greenswitch: no dump: FileNotFoundError" in done.stderr


def test_interrupted_print_to_standard_error_is_not_entered_again() -> None:
    done = script("""
    def main():
        install_dump_signal()
        stop = time.monotonic() + 0.3
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        signal.signal(signal.SIGALRM, lambda *_: ring())
        while time.monotonic() < stop:
            print("x" * 50, file=sys.stderr)
        signal.setitimer(signal.ITIMER_REAL, 0)
    run(main)
    """)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "reentrant" not in done.stderr
    assert done.stderr.count("<Hub of thread") > 5


def test_deadlock_is_found_though_the_signal_is_installed_and_not_if_an_earlier_handler_may_wake() -> None:
    done = script("""
    install_dump_signal()
    try:
        Event().wait()
    except DeadlockError as error:
        print("found")
    event = Event()
    signal.signal(signal.SIGUSR2, lambda *_: event.set())
    install_dump_signal(signal.SIGUSR2)
    threading.Timer(0.05, ring, [signal.SIGUSR2]).start()
    while threading.active_count() > 1:
        time.sleep(0.01)  # the handler runs here
    event.clear()
    signal.signal(signal.SIGALRM, lambda *_: ring(signal.SIGUSR2))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    print(event.wait())
    """)
    assert (done.returncode, done.stdout) == (0, "found\nTrue\n")


def test_outside_the_main_thread_it_says_where_it_belongs() -> None:
    done = script("""
    def try_it():
        try:
            install_dump_signal()
        except HubError as error:
            print(error)
    from greenswitch.errors import HubError
    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    """)
    assert done.stdout == (
        "signal handlers are installed in the main thread: call install_dump_signal() there\n"
    )


def test_under_monkey_patching_nothing_of_it_parks() -> None:
    done = script(
        """
        def waits():
            time.sleep(1000)
        def main():
            def install():
                install_dump_signal()
            spawn(install).join()
            task = spawn(waits)
            sleep(0.05)
            ring()
            sleep(0.05)
            os.kill(os.getpid(), signal.SIGUSR1)
        run(main)
        """,
        prelude="from greenswitch import monkey\nmonkey.patch_all()\n" + PRELUDE,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.count("Task 'waits-") == 2


# -- asked by another process ----------------------------------------------------------------------------------------

SERVER = """
def waits():
    sleep(1000)
def main():
    install_dump_signal()
    spawn(waits)
    sleep(0)
    print("ready")
    sleep(1000)
run(main)
"""


@LINUX
def test_another_process_gets_the_dump_and_standard_error_stays_quiet() -> None:
    with running(SERVER) as process:
        for _ in range(3):
            report = ask(process.pid)
            assert report.data["pid"] == process.pid
            assert "Task 'waits-2': parked for" in str(report)
        command = [sys.executable, "-m", "greenswitch.dump", str(process.pid)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Task 'waits-2': parked for" in done.stdout
        done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert json.loads(done.stdout)["pid"] == process.pid
        process.kill()
        assert process.stderr is not None and process.stderr.read() == ""


@LINUX
@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("print('ready'); time.sleep(1000)", "has installed no dump signal"),
        ("signal.signal(signal.SIGUSR1, print); print('ready'); time.sleep(1000)", "has installed no dump signal"),
        (
            "install_dump_signal(); signal.signal(signal.SIGUSR1, signal.SIG_DFL); print('ready'); time.sleep(1000)",
            "does not handle SIGUSR1 any more",
        ),
        (
            "install_dump_signal(); signal.signal(signal.SIGUSR1, lambda *_: None); print('ready'); time.sleep(1000)",
            "has not answered within 0.2 seconds",
        ),
    ],
)
def test_process_that_would_not_answer_is_left_alive(body: str, why: str) -> None:
    with running(body) as process:
        with pytest.raises(CannotAsk, match=why):
            ask(process.pid, seconds=0.2)
        time.sleep(0.05)
        assert process.poll() is None


@LINUX
def test_answer_that_comes_too_late_goes_where_dumps_go() -> None:
    with running(SERVER) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(CannotAsk, match=r"has not answered within 0\.1 seconds"):
            ask(process.pid, seconds=0.1)
        os.kill(process.pid, signal.SIGCONT)
        assert process.stderr is not None and process.stderr.readline().startswith("<Hub of thread")
        assert isinstance(ask(process.pid), Report)


@LINUX
def test_forked_child_answers_for_itself() -> None:
    with running("""
    def main():
        install_dump_signal()
        if os.fork() == 0:
            def child():
                print("ready too")
                sleep(1000)
            spawn(child)
        else:
            print("ready")
        sleep(1000)
    run(main)
    """.replace("\n    ", "\n")) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # the other of the two; `running` has read one
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        mailboxes = [_mailbox_of(pid) for pid in (process.pid, int(children[0]))]
        assert len({os.stat(found[0]).st_ino for found in mailboxes if found is not None}) == 2
        child, parent = ask(int(children[0])), ask(process.pid)
        os.kill(int(children[0]), signal.SIGKILL)
        assert child.data["pid"] == int(children[0]) and "Task 'child-" in str(child)
        assert parent.data["pid"] == process.pid and "Task 'child-" not in str(parent)


@LINUX
def test_command_says_what_is_wrong_with_a_status_and_no_traceback() -> None:
    command = [sys.executable, "-m", "greenswitch.dump", "999999999"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "greenswitch.dump: there is no process 999999999\n"


def test_process_of_somebody_else_is_called_that() -> None:
    def refuse() -> None:
        raise PermissionError

    with pytest.raises(CannotAsk, match="process 7 belongs to somebody else"):
        _allowed(refuse, 7)
