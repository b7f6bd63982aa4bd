"""Asking a process that has installed nothing, as CPython 3.14's `sys.remote_exec` allows.

Where that is missing its place is taken by a stand-in that does what is documented of it: the script's text runs in the
other process's main thread. The other process here takes the path of a script by a line on its standard input.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from greenswitch.dump import by_debugger, on_signal
from greenswitch.dump.on_signal import CannotAsk, ask

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this needs /proc")

ROOT = Path(__file__).parents[2]
WITH_TASKS = """
    import greenswitch
    from greenswitch import Event, run, spawn, to_thread

    def main():
        spawn(Event().wait).name = "forgotten"
        run_scripts(lambda: to_thread(sys.stdin.readline))
    run(main)
"""
WITHOUT = "run_scripts(sys.stdin.readline)"


@pytest.fixture
def other(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    prelude = """
        import sys
        def run_scripts(readline):
            print("ready", flush=True)
            while path := readline().strip():
                exec(compile(open(path).read(), path, "exec"), {})
    """
    source = textwrap.dedent(prelude) + textwrap.dedent(request.param)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
        process.communicate()
    assert process.returncode == 0


def by_standard_input(process: subprocess.Popen[str]) -> Callable[[int, str], None]:
    def run(pid: int, script: str) -> None:
        assert pid == process.pid and process.stdin is not None
        process.stdin.write(f"{script}\n")
        process.stdin.flush()

    return run


@pytest.mark.parametrize("other", [WITH_TASKS], indirect=True)
def test_process_that_has_installed_nothing_tells_what_its_tasks_wait_for(
    other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_signal, "remote_exec", lambda: by_standard_input(other))
    said = ask(other.pid, 20)
    assert "forgotten" in str(said) and "wait for <Event not set, 1 waiting>" in str(said)
    assert json.loads(said.to_json())["pid"] == other.pid


@pytest.mark.parametrize("other", [WITHOUT], indirect=True)
def test_process_without_tasks_says_so_and_imports_nothing(
    other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_signal, "remote_exec", lambda: by_standard_input(other))
    with pytest.raises(CannotAsk, match="has not imported greenswitch"):
        ask(other.pid, 20)


@pytest.mark.parametrize("other", [WITHOUT], indirect=True)
def test_process_that_lets_no_debugger_in_is_told_the_other_way(
    other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, script: str) -> None:
        raise RuntimeError("remote debugging is not enabled in the remote process")

    monkeypatch.setattr(on_signal, "remote_exec", lambda: refuse)
    with pytest.raises(CannotAsk, match=r"not enabled.*have it call greenswitch\.dump\.install_dump_signal"):
        ask(other.pid, 20)


@pytest.mark.parametrize("other", [WITHOUT], indirect=True)
def test_process_that_does_not_answer_in_time_leaves_nothing_in_the_temporary_directory(
    other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(on_signal, "remote_exec", lambda: lambda pid, script: None)
    with pytest.raises(CannotAsk, match=r"not answered within 0\.02 seconds"):
        ask(other.pid, 0.02)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(by_debugger.remote_exec() is None, reason="sys.remote_exec came with CPython 3.14")
@pytest.mark.parametrize("other", [WITH_TASKS], indirect=True)
def test_real_remote_exec_gets_an_answer(other: subprocess.Popen[str]) -> None:
    assert "forgotten" in str(ask(other.pid, 20))
