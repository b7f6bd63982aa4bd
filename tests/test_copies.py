"""A module's source run again over other modules: the copy gets them, and the first one is not touched."""

from __future__ import annotations

import sched
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from greenswitch.copies import Adapting, AsItWas, Finder, ImportingAnew, ImportingInstead, Namespace, run_again


def module(name: str, **names: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(names)
    return made


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package on the path, whose modules import `time` in several ways."""
    folder = tmp_path / "copied_package"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("import time\n")
    (folder / "inner" / "__init__.py").write_text("from time import sleep\nfrom .. import time as theirs\n")
    (folder / "late.py").write_text("def look():\n    import time, os.path\n    return time, os.path.join\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder.name
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


@pytest.fixture
def installed() -> Iterator[list[Finder]]:
    finders: list[Finder] = []
    yield finders
    for finder in finders:
        finder.remove()
        finder.remove()  # twice does nothing


def test_copy_runs_over_the_other_modules_and_the_first_is_untouched() -> None:
    slept: list[float] = []
    copy = run_again("sched", {"time": module("time", sleep=slept.append, monotonic=lambda: sum(slept))})
    scheduler = copy.scheduler()
    scheduler.enter(5, 1, slept.append, [0.0])
    scheduler.run()
    assert slept[0] == 5 and copy is not sched and sys.modules["sched"] is sched
    assert sched.scheduler().delayfunc is time.sleep


def test_what_has_no_source_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="no source of 'no_such_module_anywhere'"):
        run_again("no_such_module_anywhere", {})


def test_namespace_has_its_own_names_makes_lazy_ones_once_and_looks_up_the_rest() -> None:
    def make() -> str:
        made.append(1)
        return "made"

    made: list[int] = []
    beneath = module("beneath", one=1, two=2)
    space = Namespace(beneath, {"one": "other"}, {"late": make})
    assert (space.one, space.two, space.late, space.late, made) == ("other", 2, "made", "made", [1])
    beneath.two = 3  # type: ignore[attr-defined]
    assert space.two == 3 and "two" in dir(space)
    with pytest.raises(AttributeError):
        space.three


def test_module_as_it_was_hides_what_was_replaced_in_it_and_shows_every_other_change() -> None:
    beneath = module("beneath", one=1, two=2)
    before = AsItWas(beneath)
    before.hide({"one": "ours"})
    beneath.one = "ours"  # type: ignore[attr-defined]
    beneath.two, beneath.three = "the program's", 3  # type: ignore[attr-defined]
    assert (before.one, before.two, before.three) == (1, "the program's", 3)
    beneath.one = "mocked"  # type: ignore[attr-defined]
    assert before.one == "mocked"
    beneath.one = "ours"  # type: ignore[attr-defined]
    assert before.one == 1 and {"one", "three"} <= set(dir(before))
    with pytest.raises(AttributeError):
        before.four


def test_modules_of_a_package_get_others_also_in_later_imports(package: str, installed: list[Finder]) -> None:
    other = module("time", sleep="other sleep")
    path = module("path", join="other join")
    installed.append(ImportingInstead((package,), {"time": other, "os": module("os", path=path)}))
    installed[0].install()
    inner = __import__(f"{package}.inner", fromlist=["*"])
    late = __import__(f"{package}.late", fromlist=["*"])
    assert (inner.sleep, inner.theirs) == ("other sleep", other)
    assert late.look() == (other, "other join")
    assert late.__spec__ and late.__spec__.loader is late.__loader__ and "greenswitch" not in repr(late.__loader__)
    assert sys.modules["time"] is time


def test_parts_of_a_package_can_be_left_out(package: str, installed: list[Finder]) -> None:
    other = module("time", sleep="other sleep")
    installed.append(ImportingInstead((package,), {"time": other}, but=(f"{package}.inner",)))
    installed[0].install()
    inner = __import__(f"{package}.inner", fromlist=["*"])
    assert inner.sleep is time.sleep and inner.theirs is other


def test_module_imported_anew_gets_the_values_that_it_has_a_name_for(package: str, installed: list[Finder]) -> None:
    installed.append(ImportingAnew({f"{package}.late": {"look": "ours", "unknown": 1}}))
    installed[0].install()
    late = __import__(f"{package}.late", fromlist=["*"])
    assert late.look == "ours" and not hasattr(late, "unknown")


def test_module_is_changed_as_soon_as_it_is_imported(package: str, installed: list[Finder]) -> None:
    installed.append(Adapting({f"{package}.late": lambda module: setattr(module, "look", "changed")}))
    installed[0].install()
    late = __import__(f"{package}.late", fromlist=["*"])
    assert late.look == "changed" and late.__spec__ and late.__spec__.loader is late.__loader__
