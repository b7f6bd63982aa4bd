"""The regression runner, run over a `test` package of our own whose tests hang, crash, fail and pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
try:
    import comparing
    import watching
    from comparing import Loss
    from watching import Outcome
finally:
    sys.path.remove(str(HERE))

fcntl = pytest.importorskip("fcntl", reason="the runner needs process groups")

PASSED, FAILED, SKIPPED = Outcome("passed"), Outcome("failed"), Outcome("skipped")

FAKE = """
import os, sys, time, unittest

PATCHED = "greenswitch.monkey" in sys.modules

class Tests(unittest.TestCase):
    def test_a_passes(self): pass
    def test_b_hangs_if_patched(self):
        while PATCHED: pass
    def test_c_crashes_if_patched(self):
        if PATCHED: os._exit(3)
    def test_d_fails_if_patched(self): self.assertFalse(PATCHED, "it is patched")
    def test_e_fails(self): self.fail()
    def test_f_fails_once(self):
        try: open(os.environ["ONCE"], "x").close()
        except FileExistsError: return
        self.fail()
    def test_g_is_skipped_if_patched(self):
        if PATCHED: self.skipTest("not today")
    def test_h_fails_in_a_subtest_if_patched(self):
        for number in (1, 2):
            with self.subTest(number=number): self.assertFalse(PATCHED and number == 1)
    def test_hh_fails_once_if_patched(self):
        if not PATCHED: return
        try: open(os.environ["ONCE"] + " patched", "x").close()
        except FileExistsError: return
        self.fail("only once")
    @unittest.expectedFailure
    def test_i_fails_as_expected(self): self.fail()
    def test_j_forks_a_child_that_goes_on(self):
        pid = os.fork()
        if pid: os.waitpid(pid, 0)
    def test_k_passes_after_them(self): pass

class WithoutClass(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if PATCHED: raise ValueError("no class")
    def test_l(self): pass
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a `test` package of one module, which stands in the way of the interpreter's."""
    package = tmp_path / "test"
    (package / "support").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "support" / "__init__.py").touch()
    (package / "test_fake.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    return tmp_path


def run_script(place: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    found = place / "found.json"
    command = [sys.executable, str(HERE / "run.py"), "test_fake", "--limit", "2", "--json", str(found), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=place)
    return done, json.loads(found.read_text())[0] if found.exists() else {}


LOST = {
    "Tests.test_b_hangs_if_patched": "hung",
    "Tests.test_c_crashes_if_patched": "crashed",
    "Tests.test_d_fails_if_patched": "failed",
    "Tests.test_g_is_skipped_if_patched": "skipped",
    "Tests.test_h_fails_in_a_subtest_if_patched": "failed",
    "WithoutClass.test_l": "error",
}


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--lazy",)], ids=["complete", "lazy"])
def test_a_hang_a_crash_and_a_failure_are_told_and_the_other_tests_go_on(place: Path, options: tuple[str, ...]):
    done, found = run_script(place, *options)
    names = {test.removeprefix("test.test_fake."): test for test in found["lost"]}
    assert {name: found["patched"][test]["outcome"] for name, test in names.items()} == LOST, done
    assert found["patched"]["test.test_fake.Tests.test_k_passes_after_them"]["outcome"] == "passed"
    assert found["plain"]["test.test_fake.Tests.test_e_fails"]["outcome"] == "failed"
    assert found["patched"][names["WithoutClass.test_l"]]["cause"].startswith("setUpClass: ValueError: no class")
    assert "AssertionError: True is not false : it is patched (test_fake.py:" in done.stdout
    assert "only once" in found["shaky"]["test.test_fake.Tests.test_hh_fails_once_if_patched"]["cause"]
    assert done.returncode == 1
    assert not done.stderr


def test_what_fails_once_unpatched_is_flaky_and_not_what_is_lost(place: Path):
    done, found = run_script(place, "-k", "test_f_fails_once")
    assert list(found["plain"].values()) == [{"outcome": "passed", "cause": "", "seconds": pytest.approx(0, abs=1)}]
    assert done.returncode == 0, done


def test_a_module_that_cannot_be_loaded_when_patched_loses_all_its_tests(place: Path):
    (place / "test" / "test_fake.py").write_text(f"{FAKE}\nif PATCHED: raise RuntimeError('not this one')\n")
    done, found = run_script(place, "--lazy", "-k", "passes")
    assert found["patched"]["test.test_fake"]["outcome"] == "broken"
    assert len(found["lost"]) == 2, done


def test_a_package_stands_for_its_modules(place: Path):
    package = place / "test" / "test_parts"
    package.mkdir()
    for name in ("__init__", "test_one", "test_two", "helper"):
        (package / f"{name}.py").write_text("import unittest\nclass T(unittest.TestCase):\n def test_it(self): pass\n")
    command = [sys.executable, str(HERE / "run.py"), "test_parts", "test_none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=place)
    figures = [line.split()[:2] for line in done.stdout.splitlines()[:3]]
    assert figures == [["test_parts.test_one", "1"], ["test_parts.test_two", "1"], ["test_none", "0"]], done


def test_the_log_tells_where_a_test_hung(place: Path):
    watch = watching.Watch("greenswitch", 0.5, place / "log")
    outcomes = watch.run("test_fake", matching="hangs")
    assert [outcome.outcome for outcome in outcomes.values()] == ["hung"]
    assert "in test_b_hangs_if_patched" in (place / "log").read_text()


def test_nothing_is_left_of_a_test_that_hangs_with_a_child(place: Path):
    text = "import fcntl, os, time, unittest\nclass Tests(unittest.TestCase):\n def test_it(self):\n"
    text += "  held = open(os.environ['ONCE'], 'w')\n  fcntl.flock(held, fcntl.LOCK_EX)\n"
    text += "  os.fork()\n  time.sleep(1000)\n"
    (place / "test" / "test_fake.py").write_text(text)
    outcomes = watching.Watch("plain", 0.5, place / "log").run("test_fake")
    assert [outcome.outcome for outcome in outcomes.values()] == ["hung"]
    with open(place / "once") as once:  # whoever lived on would hold the lock
        fcntl.flock(once, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- as data ----------------------------------------------------------------------------------------------------------


def test_a_test_is_lost_when_it_passes_unpatched_only():
    plain = {"a": PASSED, "b": PASSED, "c": PASSED, "d": FAILED, "e": PASSED}
    assert comparing.lost(plain, {"a": PASSED, "b": FAILED, "c": SKIPPED, "d": FAILED}) == ["b", "c", "e"]


def test_a_loss_must_be_known_and_a_known_one_must_be_a_loss():
    known = {name: Loss(name, "because") for name in ("b", "c", "elsewhere")}
    known["d"] = Loss("d", "because", sometimes=True)
    assert comparing.judge(["a", "b"], known, ["a", "b", "c", "d"]) == (["a"], ["c"])


def test_losses_hold_for_the_versions_that_they_name():
    data = {"loss": [{"test": "a", "reason": "r", "versions": ["3.11"]}, {"test": "b", "reason": "r"}]}
    assert list(comparing.read_losses(data, "3.11")) == ["a", "b"]
    assert list(comparing.read_losses(data, "3.13")) == ["b"]


def test_a_loss_without_a_reason_is_refused():
    with pytest.raises(ValueError, match="no reason"):
        comparing.read_losses({"loss": [{"test": "a", "reason": ""}]}, "3.11")


def test_what_passes_when_it_is_tried_again_has_passed():
    assert comparing.prefer({"a": FAILED, "b": FAILED}, {"a": PASSED, "b": SKIPPED}) == {"a": PASSED, "b": FAILED}
