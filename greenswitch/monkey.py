"""Put the twins in the standard library's place, so that unchanged programs switch where they would block.

A last resort, for code that you can't change: it changes every library in the process at once. Call it first of all:

    from greenswitch import monkey
    monkey.patch_all()

Attributes are replaced in place, and classes keep their identity wherever what they call can be replaced instead. Each
twin (`greenswitch.green.*`) says what it replaces; here is only how, and how to undo it:

- `REPLACED` are the twin's names that take the place of the original module's;
- `patch(replace)`, where a twin has it, calls `replace(owner, name, value)` for whatever else there is to replace.

Nothing is changed until the whole plan is known: what was imported too early is found by it, and reported.

Knows the twins by name. Must not know what is in them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple

SWITCHES: Mapping[str, tuple[str, ...]] = {
    "socket": ("socket",),
    "ssl": ("ssl",),
    "time": ("time",),
}
"""What `patch_all` can be told to leave alone, and the twins that belong to it."""

_MISSING: Any = type("_Missing", (), {"__repr__": lambda self: "nothing"})()


class Replacement(NamedTuple):
    """`owner.name`, which was `before`, and is to be `after`."""

    owner: Any
    name: str
    before: Any
    after: Any

    def put(self, value: Any) -> None:
        """Set it to `value`, or take it away if there was none."""
        if value is not _MISSING:
            setattr(self.owner, self.name, value)
        elif self.name in vars(self.owner):
            delattr(self.owner, self.name)


_done: dict[str, list[Replacement]] = {}
"""By twin, what has been replaced."""


class _Builtin(staticmethod):  # type: ignore[type-arg]
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
    """A module that was imported too early: its global `name` is still the original of `what`."""

    module: str
    name: str
    what: str


class Report(tuple[Early, ...]):
    """What was imported too early, and so goes on calling originals."""

    def __repr__(self) -> str:
        if not self:
            return "<patched: nothing was imported too early>"
        lines = [f"  {module}.{name} is still the original {what}" for module, name, what in self]
        return "\n".join(["imported too early (patch first, then import):", *lines])


def patch_all(*, strict: bool = False, force: bool = False, **switches: bool) -> Report:
    """Replace what blocks in the standard library; return a report of what was imported too early.

    Each switch stands for a module (see `SWITCHES`) and is on unless you say `module=False`. Patching again does
    nothing to what is patched already. With `strict`, RuntimeError if something was imported too early, and nothing is
    changed. `force` patches where it is refused otherwise. Main thread only, outside of tasks.
    """
    unknown = [name for name in switches if name not in SWITCHES]
    if unknown:
        raise TypeError(f"patch_all has no switch {unknown[0]!r}; there are {', '.join(SWITCHES)}")
    names = [name for switch, twins in SWITCHES.items() if switches.get(switch, True) for name in twins]
    plans = {name: _plan(name) for name in names if name not in _done}
    report = Report(_too_early([one for plan in plans.values() for one in plan]))
    if strict and report:
        raise RuntimeError(repr(report))
    for name, plan in plans.items():
        for one in plan:
            one.put(one.after)
        _done[name] = plan
    return report


def unpatch_all() -> None:
    """Put everything back that `patch_all` has replaced. What ours have made meanwhile stays ours."""
    while _done:
        _, plan = _done.popitem()
        for one in reversed(plan):
            one.put(one.before)


def is_module_patched(name: str) -> bool:
    """Return whether the standard library's module `name` is patched."""
    return name in _done


def get_original(module: str, name: str) -> Any:
    """Return what `module.name` was before it was patched; what it is, if it isn't."""
    owner = import_module(module)
    for plan in _done.values():
        for one in plan:
            if one.owner is owner and one.name == name:
                return one.before
    return getattr(owner, name)


def _plan(name: str) -> list[Replacement]:
    twin = import_module(f"greenswitch.green.{name}")
    plan: list[Replacement] = []

    def replace(owner: object, name: str, value: object) -> None:
        before = vars(owner).get(name, _MISSING)
        if isinstance(value, FunctionType) and isinstance(before, BuiltinFunctionType):
            value = _Builtin(value, before)
        plan.append(Replacement(owner, name, before, value))

    for replaced in twin.REPLACED:
        replace(twin.original, replaced, getattr(twin, replaced))
    if hasattr(twin, "patch"):
        twin.patch(replace)
    return plan


def _too_early(plan: list[Replacement]) -> Iterator[Early]:
    """Find the names in other people's modules that refer to what is about to be replaced."""
    originals = {
        id(one.before): f"{one.owner.__name__}.{one.name}"
        for one in plan
        if isinstance(one.owner, ModuleType) and callable(one.before)
    }
    for name, module in list(sys.modules.items()):
        if _is_seen_to(name):
            continue
        for found, value in list(getattr(module, "__dict__", {}).items()):
            if id(value) in originals:
                yield Early(name, found, originals[id(value)])


def _is_seen_to(name: str) -> bool:
    """Return whether a module is ours or the standard library's, where twins see to it."""
    top = name.partition(".")[0]
    return top == "greenswitch" or top in sys.stdlib_module_names
