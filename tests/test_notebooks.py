"""The notebooks keep their word: they run from top to bottom, in time, and print what is committed.

A notebook's outputs belong to it, and are committed. After changing one, run it again and store what it prints:

    python tests/test_notebooks.py --write [notebooks/1-switching-by-hand.ipynb ...]

That also takes out what an editor leaves in the file (timings, versions), and keeps outputs that differ from the old
ones in measured figures only. So the diff shows what has really changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 10  # that each may take, from its first cell to its last
PATIENCE = 120  # seconds until a run is given up, Jupyter's own start included: that takes long where much else runs

Notebook = dict[str, Any]
Cell = dict[str, Any]

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
A_PLACE = r"(?:/(?:tmp|home|root|work|var|Users|private|opt|usr)/|[A-Z]:\\)[^\s'\"]*"
MEASURED = re.compile(r"\d+\.\d+( [mµ]?s\b)?|\bfd \d+")
OF_A_MACHINE = re.compile(rf"{A_PLACE}|ipykernel_\d+|0x[0-9a-f]{{6,}}")


# --- reading and running ----------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """What became of a notebook that was run: None if a cell failed, and what was said about it."""

    notebook: Notebook | None
    report: str

    @property
    def seconds(self) -> float:
        """The time from the start of the first cell to the end of the last: the kernel's start is Jupyter's affair."""
        assert self.notebook is not None, self.report
        timings = [cell["metadata"]["execution"] for cell in code_cells(self.notebook)]
        begin, end = timings[0]["iopub.execute_input"], timings[-1]["shell.execute_reply"]
        return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def load(path: Path) -> Notebook:
    found: Notebook = json.loads(path.read_text("utf-8"))
    return found


def save(notebook: Notebook, path: Path) -> None:
    """Write it as Jupyter does, so that saving it there changes nothing but what was edited."""
    path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")


def code_cells(notebook: Notebook) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell: Cell) -> str:
    return joined(cell["source"])


def joined(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


@contextlib.contextmanager
def environment() -> Iterator[dict[str, str]]:
    """Give Jupyter the checkout to import from, and a home of its own: nobody's settings, nothing left behind."""
    with tempfile.TemporaryDirectory() as home:
        yield os.environ | {
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
            "PYTHONWARNINGS": "default::ResourceWarning",  # a socket that a cell forgets shall be seen
            "IPYTHONDIR": home,
            "JUPYTER_CONFIG_DIR": home,
            "JUPYTER_DATA_DIR": home,
            "JUPYTER_RUNTIME_DIR": home,
        }


def execute(path: Path) -> Run:
    """Run a notebook in a fresh kernel by `jupyter execute`, as anybody would."""
    with environment() as variables:
        target = Path(variables["IPYTHONDIR"]) / "executed"
        command = [sys.executable, "-c", "from nbclient.cli import main; main()", "--timeout=30", str(path)]
        command += [f"--output={target}"]
        done = subprocess.run(
            command, cwd=path.parent, env=variables, capture_output=True, text=True, timeout=PATIENCE
        )
        made = target.with_suffix(".ipynb")
        return Run(load(made) if done.returncode == 0 and made.exists() else None, done.stdout + done.stderr)


# --- comparing --------------------------------------------------------------------------------------------------------


def shown(cell: Cell) -> list[tuple[str, str]]:
    """List what a cell shows: kind (stdout, stderr, a MIME type, error) and text. Text in pieces is put together."""
    found: list[tuple[str, str]] = []
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            parts = {output["name"]: output["text"]}
        else:
            parts = output.get("data") or {"error": output["traceback"]}
        for kind, text in parts.items():
            if found and found[-1][0] == kind == output.get("name"):
                found[-1] = (kind, found[-1][1] + joined(text))
            else:
                found.append((kind, joined(text)))
    return found


def comparable(cell: Cell) -> list[tuple[str, list[str]]]:
    """Return what a cell shows, but for what differs at each run, and in the tagged cells but for the lines' order.

    Measured figures differ, and so do pictures of them, the numbers of file descriptors, and columns as wide as either.
    """
    any_order = "any-order" in cell["metadata"].get("tags", [])
    found = [(kind, "" if kind.startswith("image/") else text) for kind, text in shown(cell)]
    same = [(kind, re.sub(r" +", " ", re.sub(MEASURED, "#", text))) for kind, text in found]
    lines = [(kind, text.splitlines()) for kind, text in same]
    return [(kind, sorted(text) if any_order else text) for kind, text in lines]


def settled(fresh: Notebook, committed: Notebook) -> Notebook:
    """Return what to commit of a notebook just run: outputs that say the same as the committed ones stay."""
    before = {cell["id"]: cell for cell in code_cells(committed)}
    for cell in fresh["cells"]:
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}
    for cell in code_cells(fresh):
        old = before.get(cell["id"])
        if old is not None and source(old) == source(cell) and comparable(old) == comparable(cell):
            cell["outputs"] = old["outputs"]
    return fresh | {"metadata": METADATA}


# --- what is committed ------------------------------------------------------------------------------------------------

def in_a_kernel(test: Any) -> Any:
    """Mark a test that runs a notebook: its time counts from the kernel's start, and has a limit of its own."""
    return pytest.mark.notebook(pytest.mark.timeout(3 * PATIENCE)(test))


each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def test_there_are_notebooks_and_their_numbers_tell_the_order() -> None:
    assert len(PATHS) >= 3
    assert [int(path.name.partition("-")[0]) for path in PATHS] == list(range(1, len(PATHS) + 1))


@each
def test_outputs_are_committed_from_one_run_from_top_to_bottom(path: Path) -> None:
    cells = code_cells(load(path))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(shown(cell)) for cell in cells) > len(cells) / 2


@each
def test_demo_is_stepped_through_and_drawn_as_a_timeline(path: Path) -> None:
    found = [(kind, text) for cell in code_cells(load(path)) for kind, text in shown(cell)]
    assert [text for kind, text in found if kind == "image/svg+xml"]
    assert [text for kind, text in found if kind == "text/html" and "step" in text]


@each
def test_last_cell_is_nothing_but_asserts(path: Path) -> None:
    last = load(path)["cells"][-1]
    starts = [line for line in source(last).splitlines() if line and not line.startswith((" ", ")", "#"))]
    assert last["cell_type"] == "code" and len(starts) >= 10
    assert [line for line in starts if not line.startswith("assert ")] == []


@each
def test_committed_outputs_name_no_place_of_the_machine_that_made_them(path: Path) -> None:
    texts = [text for cell in code_cells(load(path)) for kind, text in shown(cell) if kind != "image/png"]
    assert [found for text in texts for found in OF_A_MACHINE.findall(text)] == []


@each
def test_file_is_as_write_leaves_it(path: Path) -> None:
    notebook = load(path)
    assert settled(load(path), notebook) == notebook, "python tests/test_notebooks.py --write"
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


@each
def test_every_file_that_the_text_links_to_exists(path: Path) -> None:
    text = "\n".join(source(cell) for cell in load(path)["cells"] if cell["cell_type"] == "markdown")
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert links and [target for target in links if not (path.parent / target).exists()] == []


# --- what they do -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jupyter() -> None:
    for module in ("nbclient", "nbformat", "ipykernel", "matplotlib"):
        pytest.importorskip(module, reason="needs the extra [notebooks]")
    # The first one ever to draw on a machine waits until matplotlib has looked at all fonts, and is told so.
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], check=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def runs(jupyter: None) -> dict[Path, Run]:
    return {}


@pytest.fixture
def fresh(path: Path, runs: dict[Path, Run]) -> Run:
    """A notebook's run; the tests of one notebook share it."""
    if path not in runs:
        runs[path] = execute(path)
    return runs[path]


@in_a_kernel
@each
def test_notebook_runs_in_a_fresh_kernel_without_error_or_warning(path: Path, fresh: Run) -> None:
    assert fresh.notebook is not None, fresh.report
    kinds = {cell["id"]: [kind for kind, _ in shown(cell)] for cell in code_cells(fresh.notebook)}
    assert {name: found for name, found in kinds.items() if "stderr" in found or "error" in found} == {}


@in_a_kernel
@each
def test_notebook_takes_less_than_ten_seconds(path: Path, fresh: Run) -> None:
    # Where much else runs, the next one may be faster.
    assert fresh.seconds < SECONDS or execute(path).seconds < SECONDS or execute(path).seconds < SECONDS


@in_a_kernel
@each
def test_fresh_outputs_are_the_committed_ones(path: Path, fresh: Run) -> None:
    assert fresh.notebook is not None, fresh.report
    for ran, committed in zip(code_cells(fresh.notebook), code_cells(load(path)), strict=True):
        assert comparable(ran) == comparable(committed), f"{ran['id']}: python tests/test_notebooks.py --write"


# --- a person at the keyboard -----------------------------------------------------------------------------------------

BEFORE_INTERRUPTS = """
import threading
import time
import greenlet
import greenswitch
from greenswitch import sockets
from greenswitch.recorder import record
from greenswitch.stepper import Stepper

ended, tasks = [], []

def receive():
    here, there = sockets.socketpair()
    try:
        with here, there:
            here.recv(1)
    finally:
        ended.append("receive")

def after(function, *args):
    tasks.append(greenswitch.spawn(receive))
    greenswitch.sleep(0.01)
    print("waiting", flush=True)
    function(*args)

def compute():
    while True:
        pass

def still_there():
    return [one.name for one in threading.enumerate() if one.name.startswith("stepper")], greenlet.gettrace()
"""
HANGS = {
    "all parked": "greenswitch.run(after, greenswitch.sleep, 3600)",
    "a task blocks": "greenswitch.run(after, time.sleep, 3600)",
    "a task computes": "greenswitch.run(after, compute)",
    "while recording": "with record():\n    greenswitch.run(after, greenswitch.sleep, 3600)",
    "in a stepper": "with Stepper(greenswitch.run, after, greenswitch.sleep, 3600) as s:\n    s.run(99, timeout=None)",
    "without run": "after(lambda: greenswitch.joinall([greenswitch.spawn(receive), *tasks]))",
}
AFTER_INTERRUPTS = (
    "list(ended), [task.dead for task in tasks], still_there(), greenswitch.spawn(int, '7').get(timeout=5), "
    "len(greenswitch.get_hub().parked), "
    "greenswitch.killall(greenswitch.get_hub().carriers.jobs(), timeout=5) or ended"
)


def interrupt_hangs() -> dict[str, list[str]]:
    """Let each of HANGS run in one kernel, and interrupt it as the ■ button does; return its error and what is left."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel()
    found = {}
    try:
        for name, cell in HANGS.items():
            client.execute_interactive(BEFORE_INTERRUPTS, timeout=20)
            asked = client.execute(cell, stop_on_error=False)  # or the kernel refuses whatever comes right after
            while client.get_iopub_msg(timeout=10)["content"].get("text") != "waiting\n":
                pass
            time.sleep(0.2)  # now it is in the poller, or busy
            manager.interrupt_kernel()
            while (reply := client.get_shell_msg(timeout=10))["parent_header"]["msg_id"] != asked:
                pass
            asked = client.execute("", user_expressions={"now": AFTER_INTERRUPTS})
            while (answer := client.get_shell_msg(timeout=10))["parent_header"]["msg_id"] != asked:
                pass
            now = answer["content"]["user_expressions"]["now"]
            found[name] = [reply["content"].get("ename", "no error"), now.get("data", now).get("text/plain", str(now))]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return found


@in_a_kernel
def test_interrupting_a_cell_ends_it_and_leaves_the_kernel_usable(jupyter: None) -> None:
    with environment() as variables:
        command = [sys.executable, __file__, "--interrupt"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    gone = ["KeyboardInterrupt", "(['receive'], [True], ([], None), 7, 0, ['receive'])"]
    # The kernel's own hub outlives the cell, and so do its tasks: they are still parked, and can be killed.
    kept = ["KeyboardInterrupt", "([], [False], ([], None), 7, 2, ['receive', 'receive'])"]
    assert json.loads(done.stdout) == {name: kept if name == "without run" else gone for name in HANGS}


# --- planted faults ---------------------------------------------------------------------------------------------------


def notebook_of(*sources: str) -> Notebook:
    cells = [
        {"cell_type": "code", "execution_count": 1, "id": f"c{n}", "metadata": {}, "outputs": [], "source": text}
        for n, text in enumerate(sources)
    ]
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


@in_a_kernel
def test_failing_cell_and_forgotten_socket_are_noticed(jupyter: None, tmp_path: Path) -> None:
    save(notebook_of("1 + 1", "assert 1 == 2, 'planted'"), tmp_path / "fails.ipynb")
    failed = execute(tmp_path / "fails.ipynb")
    assert failed.notebook is None and "planted" in failed.report
    save(notebook_of("import socket; socket.socket(); None", "2"), tmp_path / "warns.ipynb")
    warned = execute(tmp_path / "warns.ipynb").notebook
    assert warned is not None
    first, second = map(shown, code_cells(warned))
    assert [kind for kind, _ in first] == ["stderr"] and "ResourceWarning" in first[0][1]
    assert second == [("text/plain", "2")]


def with_output(text: str, **metadata: Any) -> Notebook:
    notebook = notebook_of("print()")
    (cell,) = notebook["cells"]
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}]
    cell["metadata"] = metadata
    return notebook


def test_outputs_differ_in_words_but_not_in_measured_figures() -> None:
    texts = "0.3 s\n<fd 7>  b", "12.25 ms\n<fd 12> b", "0.3 s\n<fd 7>  c"
    (old,), (new,), (other,) = (code_cells(with_output(text)) for text in texts)
    assert comparable(old) == comparable(new) != comparable(other)
    (one,), (two,) = (code_cells(with_output(text, tags=["any-order"])) for text in ("a\nb", "b\na"))
    assert comparable(one) == comparable(two)


def test_pictures_may_differ_but_must_be_there() -> None:
    (plain,), (one,), (other,) = (code_cells(with_output("drawn")) for _ in range(3))
    for cell, picture in ((one, "<svg>1</svg>"), (other, "<svg>2</svg>")):
        cell["outputs"].append({"output_type": "display_data", "data": {"image/svg+xml": [picture]}, "metadata": {}})
    assert comparable(one) == comparable(other) != comparable(plain)


def test_write_keeps_what_says_the_same_and_drops_what_an_editor_leaves() -> None:
    old, new = with_output("took 0.3 s"), with_output("took 0.4 s", execution={"started": "now"}, tags=["any-order"])
    new["metadata"] = METADATA | {"language_info": {"name": "python", "version": "3.11.4"}}
    kept = settled(new, old)
    assert kept == with_output("took 0.3 s", tags=["any-order"])
    assert settled(with_output("gave 0.4 s"), old) == with_output("gave 0.4 s")


@pytest.mark.parametrize("text", ["/tmp/x.py", "C:\\x", "at /home/me/x", "<it at 0x7f32a4d1>", "ipykernel_123/7.py"])
def test_place_of_a_machine_is_found(text: str) -> None:
    assert OF_A_MACHINE.findall(text) and not OF_A_MACHINE.findall("'/tea', '/coffee' fd 7, core/relay.py")


def write(paths: list[Path]) -> None:
    """Run each notebook, and store what it prints in it."""
    for path in paths:
        run = execute(path)
        if run.notebook is None:
            sys.exit(f"{path.name}: {run.report}")
        print(f"{path.name}: {run.seconds:.1f} s")
        save(settled(run.notebook, load(path)), path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write([Path(name).resolve() for name in sys.argv[2:]] or PATHS)
    elif sys.argv[1:] == ["--interrupt"]:
        print(json.dumps(interrupt_hangs()))
    else:
        sys.exit(__doc__)
