"""The watchdog: who keeps the thread is named once, with the line; an idle or a fair hub never."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import greenlet
import pytest

import greenswitch
from greenswitch import Event, sleep, sockets, spawn
from greenswitch.errors import HubError
from greenswitch.hub import Hub
from greenswitch.hub.bystanders import pause
from greenswitch.watchdog import Kept, Standstill, watchdog

ROOT = Path(__file__).parents[1]
LIMIT = 0.1


def looks(standstill: Standstill, seen: list[Any], passed: float = 0.025, on_cpu: float = 0.025) -> list[float]:
    return [told for one in seen if (told := standstill.look(passed, on_cpu, one)) is not None]


# -- the rule, as data -----------------------------------------------------------------------------------------------


def test_same_sight_for_longer_than_the_limit_is_told_once() -> None:
    assert looks(Standstill(LIMIT), [1] * 5) == []
    assert looks(Standstill(LIMIT), [1] * 1000) == [pytest.approx(0.125)]


def test_change_begins_anew_and_each_incident_is_told() -> None:
    assert looks(Standstill(LIMIT), [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]) == []
    assert len(looks(Standstill(LIMIT), [1] * 10 + [2] * 10 + [3] * 3 + [2] * 10)) == 3


def test_hour_of_idleness_and_of_fair_work_is_never_told() -> None:
    assert looks(Standstill(LIMIT), [None] * 144_000) == []
    assert looks(Standstill(LIMIT), list(range(144_000))) == []
    assert looks(Standstill(LIMIT), [1, 1, 1, None] * 10_000) == []


def test_look_that_comes_late_is_told_if_the_thread_had_the_cpu_and_not_if_all_stood_still() -> None:
    assert looks(Standstill(LIMIT), [1, 2], passed=0.4, on_cpu=0.4) == [0.4, 0.4]
    assert looks(Standstill(LIMIT), [1, 1, 1], passed=0.4, on_cpu=0.4) == [0.4]
    assert looks(Standstill(LIMIT), [1, 2], passed=2.0, on_cpu=0.11) == [2.0, 2.0]
    assert looks(Standstill(LIMIT), [1, 1, 1, 2], passed=60.0, on_cpu=0.01) == []
    assert looks(Standstill(LIMIT), [None, None], passed=0.4, on_cpu=0.4) == []


# -- real threads ----------------------------------------------------------------------------------------------------


class Told(list[Kept]):
    """Takes reports, and waits for them, as long as it takes on a busy machine."""

    def first(self) -> Kept:
        deadline = time.monotonic() + 20
        while not self and time.monotonic() < deadline:
            pause(0.005)
        return self[0]


@pytest.fixture
def told() -> Told:
    return Told()


def test_task_that_blocks_is_told_once_with_its_name_and_its_line(real_hub: Hub, told: Told) -> None:
    def blocks() -> None:
        time.sleep(1)

    with watchdog(LIMIT, told.append):
        task = spawn(blocks)
        task.join()
        sleep(0.3)
    assert len(told) == 1
    kept = told[0]
    line = blocks.__code__.co_firstlineno + 1
    assert kept.who == task.label
    assert kept.line == f"{__file__}:{line} in blocks"
    assert LIMIT < kept.seconds < 1 and kept.limit == LIMIT and not kept.deaf
    assert str(kept).splitlines() == [
        f"{task.label} has kept the thread for {kept.seconds:.3g} s (more than 0.1) at {__file__}:{line} in blocks",
        f'  File "{__file__}", line {line}, in blocks',
        "    time.sleep(1)",
    ]


def test_task_that_computes_and_one_that_keeps_the_gil_are_told(real_hub: Hub, told: Told) -> None:
    def computes() -> None:
        while not told:
            pass

    def keeps_the_gil() -> None:
        for power in range(22, 31):
            if len(told) > 1:
                break
            sum(range(1 << power))  # one C function; ever longer, until it is longer than the limit
            sleep(0)

    with watchdog(0.05, told.append):
        first, second = spawn(computes), spawn(keeps_the_gil)
        second.join()
    assert [kept.who for kept in told] == [first.label, second.label]
    assert "computes" in told[0].line and not told[0].deaf
    assert told[1].deaf and told[1].line.endswith(f":{keeps_the_gil.__code__.co_firstlineno + 4} in keeps_the_gil")
    assert "has kept the thread, and the GIL, for" in str(told[1])


def test_each_incident_is_told_by_itself(real_hub: Hub, told: Told) -> None:
    with watchdog(0.02, told.append):
        for number in range(3):
            before = len(told)
            task = spawn(lambda: [pause(0.005) for _ in range(1000) if len(told) == before])  # noqa: B023
            task.name = f"slow-{number}"
            task.join()
    assert [kept.who for kept in told] == [f"Task 'slow-{number}'" for number in range(3)]


def test_idle_hub_is_not_told(real_hub: Hub, told: Told) -> None:
    waiting = [spawn(Event().wait) for _ in range(3)]
    with watchdog(0.02, told.append):
        sleep(0.5)
    assert told == []
    greenswitch.killall(waiting)


@pytest.mark.slow
def test_sixty_seconds_of_idleness_are_not_told(real_hub: Hub, told: Told) -> None:
    """Shortened by as much as the limit is: three thousand times the limit."""
    with watchdog(0.001, told.append):
        sleep(3)
    assert told == []


def test_busy_but_fair_server_is_not_told(real_hub: Hub, told: Told) -> None:
    stop = time.monotonic() + 1

    def talk(conn: sockets.Socket) -> None:
        with conn:
            while data := conn.recv(1024):
                conn.sendall(data)

    def serve(listener: sockets.Socket) -> None:
        while True:
            spawn(talk, listener.accept()[0])

    def ask(address: Any) -> None:
        with sockets.create_connection(address) as conn:
            while time.monotonic() < stop:
                conn.sendall(b"x" * 100)
                conn.recv(1024)
                deadline = time.perf_counter() + 0.001
                while time.perf_counter() < deadline:
                    pass

    with watchdog(0.5, told.append), sockets.create_server(("127.0.0.1", 0)) as listener:
        server = spawn(serve, listener)
        greenswitch.joinall([spawn(ask, listener.getsockname()) for _ in range(20)])
        server.kill()
        greenswitch.wait(timeout=5)
    assert told == []


def test_callback_in_the_hub_and_a_raw_greenlet_are_called_what_they_are(real_hub: Hub, told: Told) -> None:
    def waits_to_be_told() -> None:
        before = len(told)
        while len(told) == before:
            pause(0.005)

    with watchdog(0.02, told.append):
        real_hub.call_soon(waits_to_be_told)
        sleep(0.01)
        greenlet.greenlet(waits_to_be_told).switch()
        other = spawn(sleep, 0.01)
        sleep(0)
        waits_to_be_told()
        other.join()
    assert [kept.who for kept in told] == [
        "the hub, or a callback in it,",
        "a greenlet that is no task",
        "main greenlet",
    ]
    assert {kept.stack[0][2] for kept in told} <= {"waits_to_be_told", "pause"}


def test_main_that_is_alone_is_in_nobodys_way(real_hub: Hub, told: Told) -> None:
    with watchdog(0.02, told.append):
        pause(0.2)
    assert told == []


def test_report_that_fails_is_reported_and_the_watchdog_goes_on(
    real_hub: Hub, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(kept: Kept) -> None:
        told.append(kept)
        raise ValueError("bad report")

    with watchdog(0.02, report):
        for number in range(2):
            spawn(lambda: [pause(0.005) for _ in range(1000) if len(told) == number]).join()  # noqa: B023
    assert len(told) == 2
    assert capsys.readouterr().err.count("ValueError: bad report") == 2


def test_without_a_report_it_is_written_to_standard_error(real_hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with watchdog(0.02):
        task = spawn(pause, 0.3)
        task.join()
    assert capsys.readouterr().err.startswith(f"greenswitch: {task.label} has kept the thread for 0.0")


def test_it_ends_with_the_hub_and_watches_those_that_take_its_place(no_leaked_fds: None, told: Told) -> None:
    with Hub():
        watching = watchdog(0.02, told.append).start()
        with Hub():
            spawn(lambda: told.first()).join()
        assert len(told) == 1
        assert repr(watching) == "<watchdog(0.02), running>"
    assert repr(watching) == "<watchdog(0.02), not running>"


def test_started_before_there_is_a_hub_it_watches_those_to_come(no_leaked_fds: None, told: Told) -> None:
    with watchdog(0.02, told.append):
        greenswitch.run(lambda: spawn(lambda: told.first()).join())
    assert len(told) == 1 and told[0].who.startswith("Task '<lambda>-")


def test_two_at_once_with_different_limits_and_threads_of_their_own(real_hub: Hub, told: Told) -> None:
    patient, elsewhere = Told(), Told()
    begun, end = threading.Event(), threading.Event()

    def in_thread() -> None:
        with Hub(), watchdog(0.02, elsewhere.append):
            begun.set()
            while not end.is_set():
                sleep(0.002)

    thread = threading.Thread(target=in_thread)
    thread.start()
    begun.wait()
    with watchdog(0.02, told.append), watchdog(30, patient.append):
        spawn(lambda: told.first()).join()
    end.set()
    thread.join()
    assert len(told) == 1 and patient == []
    assert [kept for kept in elsewhere if not kept.deaf] == []


def test_it_hides_no_deadlock(no_leaked_fds: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from greenswitch import *\nfrom greenswitch.watchdog import *\n"
         "watchdog(0.02).start()\n"
         "try: Event().wait()\nexcept DeadlockError: print('found')"],
        cwd=ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "found\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.parametrize("patched", [False, True])
def test_it_survives_a_fork_and_monkey_patching(patched: bool) -> None:
    program = """
    import os, sys, warnings
    from greenswitch import get_hub, run, sleep, spawn
    from greenswitch.hub.bystanders import pause
    from greenswitch.watchdog import watchdog
    warnings.simplefilter("ignore", DeprecationWarning)  # "may lead to deadlocks": here it must not
    told = []
    def of_keeps():  # on a slow machine main has kept the thread, too
        return [one for one in told if one.who.startswith("Task 'keeps-")]
    def keeps():
        while not of_keeps():
            pause(0.005)
    def main():
        watchdog(0.02, told.append).start()
        pid = os.fork()
        spawn(keeps).join()
        # In one piece: both write, and print() writes each word by itself if PYTHONUNBUFFERED is set.
        os.write(1, f"{'parent' if pid else 'child'} {len(of_keeps())}\\n".encode())
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    run(main)
    """
    first = "from greenswitch import monkey\nmonkey.patch_all()\n" if patched else ""
    done = subprocess.run(
        [sys.executable, "-c", first + textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["child 1", "parent 1"]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="POSIX signals")
def test_process_that_was_stopped_has_kept_nothing() -> None:
    program = """
    import time
    from greenswitch import *
    from greenswitch.watchdog import watchdog
    def busy():
        while time.monotonic() < end:
            sleep(0)
    def main():
        global end
        end = time.monotonic() + 1.5
        with watchdog(0.3):
            print("ready", flush=True)
            spawn(busy).join()
    run(main)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="a limit of more than 0 seconds"):
        watchdog(seconds)


def test_wrong_use_is_told(real_hub: Hub) -> None:
    with pytest.raises(TypeError, match="a function that takes a Kept"):
        watchdog(1, "loudly")  # type: ignore[arg-type]
    watching = watchdog(1)
    watching.stop()
    with watching, pytest.raises(HubError, match="watches already"):
        watching.start()
    watching.stop()
