"""The twin of `subprocess`: children and their pipes are waited for by a task, and the classes stay related."""

from __future__ import annotations

import os
import subprocess as original
import sys
import textwrap
import time as real_time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greenswitch import processes, sleep, spawn, timeout
from greenswitch.green import subprocess
from greenswitch.hub import Hub

ROOT = Path(__file__).resolve().parents[2]
BIG = b"0123456789abcdef" * 65536  # a megabyte: many times what a pipe holds

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the twin is the original here")


@pytest.fixture(autouse=True)
def no_child_left(real_hub: Hub) -> Iterator[None]:
    """Fail the test that leaves a child behind."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def python(source: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(source)]


def cat(**options: Any) -> Any:
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def test_a_hundred_children_at_once() -> None:
    started = real_time.monotonic()
    tasks = [
        spawn(subprocess.run, f"sleep 0.2; echo {number}", shell=True, capture_output=True, text=True)
        for number in range(100)
    ]
    assert [task.get().stdout for task in tasks] == [f"{number}\n" for number in range(100)]
    assert real_time.monotonic() - started < 100 * 0.2, "one after another"


@pytest.mark.parametrize("limit", [None, 60])
@pytest.mark.parametrize("pidfd", [True, False])
def test_wait_parks_and_several_may_wait(limit: float | None, pidfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not pidfd:
        monkeypatch.setattr(processes, "_pidfd_open", None)
    with cat() as child:
        waiting = [spawn(child.wait, limit) for _ in range(3)]
        sleep(0.01)
        assert not any(one.dead for one in waiting)
        assert child.poll() is None
        child.stdin.close()
        assert [one.get() for one in waiting] == [0, 0, 0]
        assert child.poll() == 0


def test_time_limits_are_kept_and_the_child_can_still_be_waited_for() -> None:
    with cat() as child:
        with pytest.raises(original.TimeoutExpired, match=r"timed out after 0\.01 seconds"):
            child.wait(0.01)
        with pytest.raises(original.TimeoutExpired):
            child.communicate(b"kept", timeout=0.01) if child.stdin.closed else child.wait(0)
        assert child.communicate(b"x") == (b"x", None)
    with pytest.raises(original.TimeoutExpired) as caught:
        subprocess.run("echo so far; exec sleep 60", shell=True, capture_output=True, timeout=1)
    assert caught.value.stdout == b"so far\n"


@pytest.mark.parametrize("end", ["kill", "timeout"])
def test_who_leaves_leaves_the_child_to_others(end: str) -> None:
    def wait(child: Any) -> None:
        with timeout(0.01 if end == "timeout" else None):
            child.wait()

    with cat() as child:
        waiting = spawn(wait, child)
        sleep(0.005)
        if end == "kill":
            waiting.kill()
        waiting.join()
        assert end == "kill" or isinstance(waiting.exception, TimeoutError)
        child.stdin.close()
        assert child.wait() == 0


def test_run_that_is_killed_kills_its_child() -> None:
    running = spawn(subprocess.run, ["sleep", "60"])
    sleep(0.05)
    running.kill()
    running.join()


def test_pipes_are_read_and_written_by_different_tasks() -> None:
    with cat() as child:

        def feed() -> None:
            child.stdin.write(BIG)
            child.stdin.close()

        feeding = spawn(feed)
        assert child.stdout.read() == BIG
        feeding.get()


@pytest.mark.parametrize("bufsize", [-1, 0, 1000])
def test_communicate_of_much_and_of_both_outputs(bufsize: int) -> None:
    source = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data); sys.stderr.buffer.write(data)"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(python(source), bufsize=bufsize, **pipes) as child:
        other = spawn(sleep, 0.001)
        assert child.communicate(BIG) == (BIG, BIG)
        assert other.dead


def test_text_comes_line_by_line_while_others_run() -> None:
    with cat(encoding="utf-8", bufsize=1) as child:

        def feed() -> None:
            for number in range(3):
                sleep(0.001)
                child.stdin.write(f"{number} é\n")
            child.stdin.close()

        spawn(feed)  # it runs while this one reads, or never
        for number in range(3):
            assert child.stdout.readline() == f"{number} é\n"
        assert child.stdout.read() == ""


def test_child_that_closes_its_input_is_a_broken_pipe() -> None:
    with subprocess.Popen("exec <&-; sleep 0.2", shell=True, stdin=subprocess.PIPE, bufsize=0) as child:
        sleep(0.1)
        with pytest.raises(BrokenPipeError):
            for _ in range(100):
                child.stdin.write(BIG)


def test_functions_are_the_originals_over_our_popen() -> None:
    assert subprocess.call("exit 3", shell=True) == 3
    assert subprocess.check_output(["echo", "x"]) == b"x\n"
    assert subprocess.getoutput("echo x") == "x"
    assert subprocess.getstatusoutput("exit 3") == (3, "")
    assert subprocess.check_call(["true"]) == 0
    with pytest.raises(original.CalledProcessError):
        subprocess.check_call(["false"])
    with pytest.raises(FileNotFoundError):
        subprocess.run(["/nonexistent"])
    with pytest.raises(TypeError):
        subprocess.Popen(["true"], bufsize="x")


def test_popen_is_a_popen_and_names_are_complete() -> None:
    assert issubclass(subprocess.Popen, original.Popen)
    assert isinstance(subprocess.run(["true"]), original.CompletedProcess)
    assert sorted(subprocess.__all__) == sorted(original.__all__)
    assert [name for name in original.__all__ if not hasattr(subprocess, name)] == []
    with pytest.raises(AttributeError, match="no 'nonsense'"):
        subprocess.nonsense


def test_child_inherits_no_descriptor_of_ours_and_blocking_streams() -> None:
    source = (
        "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:4], os.get_blocking(0), os.get_blocking(1))"
    )
    with subprocess.Popen(python(source), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        waiting = spawn(child.stdout.read)
        assert waiting.get() == "[0, 1, 2, 3] True True\n"


def test_patched_in_place_with_the_class_that_was_there() -> None:
    script = """
    import subprocess, time
    before, wait = subprocess.Popen, subprocess.Popen._wait
    class Mine(subprocess.Popen): pass
    from greenswitch import monkey
    monkey.patch_all()
    import greenswitch
    assert subprocess.Popen is before
    started = time.monotonic()
    def run(kind):
        with kind(["sh", "-c", "sleep 0.2; echo x"], stdout=subprocess.PIPE) as child:
            return child.stdout.read(), child.wait(60)
    tasks = [greenswitch.spawn(run, kind) for kind in (Mine, before) * 10]
    assert [task.get() for task in tasks] == [(b"x\\n", 0)] * 20
    assert time.monotonic() - started < 20 * 0.2, "one after another"
    import os
    assert os.popen("echo y").read() == "y\\n" and os.system("exit 3") == 3 << 8
    assert os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "exit 4") == 4
    monkey.unpatch_all()
    assert subprocess.Popen._wait is wait
    print(subprocess.run(["echo", "fine"], capture_output=True).stdout)
    """
    done = original.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("b'fine\\n'\n", "")
