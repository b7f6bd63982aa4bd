"""What is to be replaced for monkey patching: a plan, made before anything is changed.

Beside what the twins replace (see `greenswitch.monkey`) there are names that the standard library's own modules have
taken from each other (`from _thread import RLock`), also under names of their own, and locks that they have made while
they were imported: a task that parks while it holds an original lock would stop all others at the next `acquire`.

Knows modules and their globals. Knows no twin.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock as _OSRLock
from _thread import allocate_lock as _allocate_os_lock
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakSet

from greenswitch.green import _thread

_MISSING: Any = type("_Missing", (), {"__repr__": lambda self: "nothing"})()
_OSLock = type(_allocate_os_lock())


class Replacement(NamedTuple):
    """`owner.name`, which was `before`, and is to be `after`."""

    owner: Any
    name: str
    before: Any
    after: Any

    def do(self) -> None:
        """Replace it."""
        setattr(self.owner, self.name, self.after)

    def undo(self) -> None:
        """Put it back."""
        if self.before is not _MISSING:
            setattr(self.owner, self.name, self.before)
        elif self.name in vars(self.owner):
            delattr(self.owner, self.name)


class Plan(list[Replacement]):
    """Replacements, in the order in which they are to be done."""

    def replace(self, owner: object, name: str, value: object) -> None:
        """Note that `owner.name` is to be `value`. For modules, classes, functions and objects."""
        before = vars(owner).get(name, _MISSING) if isinstance(owner, (ModuleType, type)) else getattr(owner, name)
        if isinstance(value, FunctionType) and isinstance(before, BuiltinFunctionType):
            value = Builtin(value, before)
        self.append(Replacement(owner, name, before, value))

    def by_module(self) -> dict[str, dict[str, Any]]:
        """Return the new values of modules' globals: module -> name -> value."""
        found: dict[str, dict[str, Any]] = {}
        for one in self:
            if isinstance(one.owner, ModuleType):
                found.setdefault(one.owner.__name__, {})[one.name] = one.after
        return found

    def replaced_names(self) -> dict[int, Replacement]:
        """Return what will not be called by modules that hold it under a name of theirs, by its id."""
        return {
            id(one.before): one
            for one in self
            if isinstance(one.owner, ModuleType) and callable(one.before) and one.before is not one.after
        }


class Builtin(staticmethod):  # type: ignore[type-arg]
    """A function of ours in a builtin's place: like a builtin, it doesn't become a method when a class stores it."""

    def __init__(self, function: Callable[..., Any], original: Any) -> None:
        super().__init__(function)
        self.__module__ = original.__module__
        self.__name__ = original.__name__
        self.__qualname__ = original.__qualname__

    def __reduce__(self) -> str:
        return self.__qualname__  # pickled by the original's name, so whoever loads it gets what he has there

    def __repr__(self) -> str:
        return f"<greenswitch's {self.__module__}.{self.__qualname__}>"


class Early(NamedTuple):
    """A module that was imported too early: its global `name` is still the original `what`."""

    module: str
    name: str
    what: str


def names_elsewhere(plan: Plan) -> Iterator[tuple[ModuleType, str, Replacement]]:
    """Find the globals of Python modules that refer to what is to be replaced: (module, name, replacement)."""
    replaced = plan.replaced_names()
    planned = {(id(one.owner), one.name) for one in plan}
    for module in _python_modules():
        for name, value in list(vars(module).items()):
            if id(value) in replaced and (id(module), name) not in planned:
                yield module, name, replaced[id(value)]


def locks_of(modules: Iterable[ModuleType]) -> Iterator[tuple[Any, str, Any]]:
    """Find the locks that modules have made, and nobody holds: (owner, name, a lock of ours in its place)."""
    for module in modules:
        for name, value in list(vars(module).items()):
            if type(value) in (_OSLock, _OSRLock) and _is_free(value):
                yield module, name, in_its_place(value)
    logging = sys.modules.get("logging")
    for reference in list(getattr(logging, "_handlerList", ())):
        handler = reference()
        if type(getattr(handler, "lock", None)) is _OSRLock and _is_free(handler.lock):
            yield handler, "lock", in_its_place(handler.lock)


def standard_modules() -> Iterator[ModuleType]:
    """Return the standard library's modules that have been imported and are written in Python."""
    return (module for module in _python_modules() if is_standard(module.__name__))


def is_standard(name: str) -> bool:
    """Return whether a module is the standard library's."""
    return name.partition(".")[0] in sys.stdlib_module_names


def _python_modules() -> Iterator[ModuleType]:
    for module in list(sys.modules.values()):
        if "__builtins__" in getattr(module, "__dict__", ()) and not module.__name__.startswith("greenswitch"):
            yield module


def _is_free(one: Any) -> bool:
    return not (one.locked() if isinstance(one, _OSLock) else one._is_owned()) and _can_be_had(one)


def _can_be_had(one: Any) -> bool:
    free: bool = one.acquire(False)
    if free:
        one.release()
    return free


def in_its_place(theirs: Any) -> Any:
    ours = _thread.allocate_lock() if isinstance(theirs, _OSLock) else _thread.RLock()
    _in_place.add(ours)
    return ours


_in_place: WeakSet[Any] = WeakSet()


def _in_child() -> None:
    """Free them in a forked child: nobody is there any more who would."""
    for one in list(_in_place):
        one._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
