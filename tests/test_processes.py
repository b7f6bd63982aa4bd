"""Waiting for children: one task parks, the others go on, and whoever reaps gets the status."""

from __future__ import annotations

import os
import signal
import time as real_time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from greenswitch import processes, sleep, spawn, timeout
from greenswitch.errors import HubError
from greenswitch.hub import Hub

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_spawn") or not hasattr(os, "waitid"), reason="no children here")


@pytest.fixture(params=["pidfd", "thread"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a child's end is noticed."""
    if request.param == "thread":
        monkeypatch.setattr(processes, "_pidfd_open", None)
    elif not hasattr(os, "pidfd_open"):
        pytest.skip("no pidfd here")
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def nobody_left(real_hub: Hub) -> Iterator[None]:
    """Fail the test that leaves a child behind, or a thread that waits for one."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    patience = real_time.monotonic() + 5
    while processes._asked and real_time.monotonic() < patience:
        real_time.sleep(0.001)
    assert not processes._asked


pytestmark = [pytestmark, pytest.mark.usefixtures("nobody_left")]  # type: ignore[assignment]


def child(command: str, stdin: int = 0) -> int:
    return os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0)])


def child_until_told(code: int = 0) -> tuple[int, int]:
    """Return the pid of a child that ends with `code` when the fd beside it is closed."""
    reading, writing = os.pipe()
    pid = child(f"read line; exit {code}", reading)
    os.close(reading)
    return pid, writing


@pytest.mark.parametrize(
    "reap",
    [
        lambda pid: processes.waitpid(pid, 0),
        lambda pid: processes.waitpid(-1, 0),
        lambda pid: processes.waitpid(0, 0),
        lambda pid: processes.waitpid(-os.getpgrp(), 0),
        lambda pid: processes.wait(),
        lambda pid: processes.wait3(0)[:2],
        lambda pid: processes.wait4(pid, 0)[:2],
        lambda pid: (processes.waitid(os.P_PID, pid, os.WEXITED).si_pid, 3 << 8),
        lambda pid: (processes.waitid(os.P_ALL, 0, os.WEXITED).si_pid, 3 << 8),
    ],
    ids=["waitpid", "any", "own group", "group", "wait", "wait3", "wait4", "waitid", "waitid any"],
)
def test_parks_until_the_child_ends_and_returns_its_status(means: str, reap: Callable[[int], tuple[int, int]]) -> None:
    pid, alive = child_until_told(3)
    waiting = spawn(reap, pid)
    sleep(0.01)
    assert not waiting.dead
    os.close(alive)
    assert waiting.get() == (pid, 3 << 8)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfd here")
def test_waitid_of_a_pidfd_parks() -> None:
    pid, alive = child_until_told(3)
    fd = os.pidfd_open(pid)
    waiting = spawn(processes.waitid, os.P_PIDFD, fd, os.WEXITED)
    sleep(0.01)
    assert not waiting.dead
    os.close(alive)
    assert waiting.get().si_status == 3
    os.close(fd)


def test_a_hundred_children_at_once(means: str) -> None:
    pids = [child(f"sleep 0.1; exit {number}") for number in range(100)]
    started = real_time.monotonic()
    tasks = [spawn(processes.waitpid, pid, 0) for pid in pids]
    assert [task.get() for task in tasks] == [(pid, number << 8) for number, pid in enumerate(pids)]
    assert real_time.monotonic() - started < 100 * 0.1, "one after another"


def test_asking_without_waiting_never_switches(means: str) -> None:
    pid, alive = child_until_told()
    other = spawn(lambda: None)
    assert processes.waitpid(pid, os.WNOHANG) == (0, 0)
    assert processes.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is None
    assert not other.dead
    os.close(alive)
    assert processes.waitpid(pid, 0) == (pid, 0)
    other.join()


def test_who_waits_says_for_which_child(real_hub: Hub, means: str) -> None:
    pid, alive = child_until_told()
    waiting = spawn(processes.waitpid, pid, 0)
    sleep(0.01)
    reasons = [waiter.reason for waiter in real_hub.parked.values()]
    assert any(f"child {pid}" in reason for reason in reasons), reasons
    os.close(alive)
    waiting.join()
    assert not [one for one in real_hub.registrations.values() if "child" in repr(one)]


def test_no_such_child_is_the_originals_error(means: str) -> None:
    for call in (lambda: processes.waitpid(os.getpid(), 0), lambda: processes.waitpid(-1, 0), processes.wait):
        with pytest.raises(ChildProcessError):
            call()


def test_killed_or_timed_out_waiter_leaves_the_child_to_the_next(means: str) -> None:
    pid, alive = child_until_told()
    waiting = spawn(processes.waitpid, pid, 0)
    sleep(0.01)
    waiting.kill()
    with pytest.raises(TimeoutError), timeout(0.01):
        processes.waitpid(pid, 0)
    os.close(alive)
    assert processes.waitpid(pid, 0) == (pid, 0)


def test_two_tasks_wait_for_one_child_and_one_gets_its_status(means: str) -> None:
    pid, alive = child_until_told()
    tasks = [spawn(processes.waitpid, pid, 0) for _ in range(2)]
    sleep(0.01)
    os.close(alive)
    for task in tasks:
        task.join()
    outcomes = [task.value or type(task.exception) for task in tasks]
    assert (pid, 0) in outcomes
    assert ChildProcessError in outcomes


def test_child_that_stops_is_told_if_asked_for(means: str) -> None:
    pid, alive = child_until_told()
    waiting = spawn(processes.waitpid, pid, os.WUNTRACED)
    sleep(0.01)
    os.kill(pid, signal.SIGSTOP)
    stopped = waiting.get()[1]
    assert os.WIFSTOPPED(stopped) and os.WSTOPSIG(stopped) == signal.SIGSTOP
    waiting = spawn(processes.waitpid, pid, os.WCONTINUED)
    sleep(0.01)
    os.kill(pid, signal.SIGCONT)
    assert os.WIFCONTINUED(waiting.get()[1])
    os.close(alive)
    assert processes.waitpid(pid, 0) == (pid, 0)


def test_has_ended_doesnt_reap_and_keeps_to_its_time(means: str) -> None:
    pid, alive = child_until_told(7)
    assert not processes.has_ended(pid, 0)
    assert not processes.has_ended(pid, 0.01)
    waiting = [spawn(processes.has_ended, pid, limit) for limit in (None, 60)]
    sleep(0.01)
    os.close(alive)
    assert [one.get() for one in waiting] == [True, True]
    assert processes.has_ended(pid, 0)
    assert os.waitpid(pid, 0) == (pid, 7 << 8)
    assert processes.has_ended(pid)


def test_asking_again_and_again_starts_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_pidfd_open", None)
    started = []
    start = processes.start_new_thread
    monkeypatch.setattr(processes, "start_new_thread", lambda *args: started.append(args) or start(*args))
    pid, alive = child_until_told()
    assert not any(processes.has_ended(pid, 0.001) for _ in range(20))
    assert len(started) == 1
    os.close(alive)
    assert processes.waitpid(pid, 0) == (pid, 0)


def test_thread_that_cant_be_started_is_an_error_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(processes, "_pidfd_open", None)
    pid, alive = child_until_told()
    with monkeypatch.context() as broken:
        broken.setattr(processes, "start_new_thread", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            processes.waitpid(pid, 0)
    os.close(alive)
    assert processes.waitpid(pid, 0) == (pid, 0)


def test_who_comes_when_the_thread_is_just_going_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class JustGoing(dict[processes.Awaited, list[object]]):
        """The first time, what is found is taken away before anybody adds himself."""

        def setdefault(self, key: processes.Awaited, fresh: list[object]) -> list[object]:  # type: ignore[override]
            if gone:
                return super().setdefault(key, fresh)
            gone.append(True)
            return []

    gone: list[bool] = []
    monkeypatch.setattr(processes, "_pidfd_open", None)
    monkeypatch.setattr(processes, "_asked", JustGoing())
    pid, alive = child_until_told()
    waiting = spawn(processes.waitpid, pid, 0)
    sleep(0.01)
    os.close(alive)
    with timeout(10):
        assert waiting.get() == (pid, 0)


def test_without_pidfd_and_waitid_it_asks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_pidfd_open", None)
    monkeypatch.setattr(processes, "_waitid", None)
    pid, alive = child_until_told()
    waiting = spawn(processes.waitpid, pid, 0)
    sleep(0.03)
    os.close(alive)
    assert waiting.get() == (pid, 0)


def test_inside_the_hub_waiting_is_refused(real_hub: Hub, means: str) -> None:
    pid, alive = child_until_told()
    seen: list[object] = []

    def callback() -> None:
        seen.append(processes.waitpid(pid, os.WNOHANG))
        try:
            processes.waitpid(pid, 0)
        except HubError:
            seen.append("refused")

    real_hub.call_soon(callback)
    sleep(0.01)
    assert seen == [(0, 0), "refused"]
    os.close(alive)
    os.waitpid(pid, 0)


def test_system_runs_a_shell_while_others_run(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    waiting = spawn(processes.system, f"until test -e {gone}; do sleep 0.01; done; exit 5")
    sleep(0.02)
    assert not waiting.dead
    gone.touch()
    assert os.waitstatus_to_exitcode(waiting.get()) == 5
    assert os.WTERMSIG(processes.system(b"kill -9 $$")) == 9
    with pytest.raises(TypeError):
        processes.system(3)
