"""A second copy of a standard library's module, over other modules than the first.

A module's source says `import _thread`, or `from select import epoll`. Run once more with builtins whose `__import__`
answers with something else, it becomes a module of the same text over other foundations; the first copy, and everybody
who has imported it, are not touched. So there can be a `threading` whose threads are tasks beside the original, and a
`selectors` that blocks beside the patched one.

Knows Python's import system. Must not know what is put in whose place.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import FunctionType, ModuleType
from typing import Any


def run_again(name: str, instead: Mapping[str, ModuleType]) -> ModuleType:
    """Return a new module of the source of module `name`; where it imports a key of `instead` it gets the value."""
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no source of {name!r} to run", name=name)
    module = module_from_spec(spec)
    vars(module)["__builtins__"] = builtins_with(instead)
    spec.loader.exec_module(module)
    return module


def builtins_with(instead: Mapping[str, ModuleType]) -> dict[str, Any]:
    """Return builtins for a module whose imports of a key of `instead` shall get the value."""

    def import_instead(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        first, *rest = name.split(".")
        if level or first not in instead:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if rest:
            builtins.__import__(name)
        # `import a.b` wants `a`; `from a.b import c` wants `a.b`.
        return reduce(getattr, rest if fromlist else (), instead[first])

    return {**vars(builtins), "__import__": import_instead}


def run_over(function: FunctionType, names: dict[str, Any]) -> FunctionType:
    """Return a function of the text of `function` whose globals are `names`."""
    made = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__, made.__doc__ = function.__kwdefaults__, function.__doc__
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    return made


class Namespace(ModuleType):
    """A module of which some names are others than in `beneath`; the rest is looked up there each time.

    A callable in `lazy` makes a name's value when that is first wanted.
    """

    def __init__(self, beneath: ModuleType, names: Mapping[str, Any], lazy: Mapping[str, Callable[[], Any]]) -> None:
        super().__init__(beneath.__name__, beneath.__doc__)
        vars(self).update(names)
        self.__beneath = beneath
        self.__lazy = dict(lazy)

    def __getattr__(self, name: str) -> Any:
        if name in self.__lazy:
            vars(self)[name] = made = self.__lazy.pop(name)()
            return made
        return getattr(self.__beneath, name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self.__beneath), *vars(self)})


class AsItWas(ModuleType):
    """A module as it is now, but for what we have put into it: there it has what stood there when this was made.

    Each name is looked up when it is asked for, so what the program itself puts there is found.
    """

    def __init__(self, beneath: ModuleType) -> None:
        super().__init__(beneath.__name__)
        vars(self).pop("__doc__")  # to be found beneath
        self.__beneath = beneath
        self.__before = dict(vars(beneath))
        self.__ours: dict[str, Any] = {}

    def hide(self, ours: Mapping[str, Any]) -> None:
        """Hide these values of names, which were put into the module."""
        self.__ours.update(ours)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__beneath, name)
        is_ours = name in self.__ours and self.__ours[name] is value
        return self.__before.get(name, value) if is_ours else value

    def __dir__(self) -> list[str]:
        return dir(self.__beneath)


def is_in(name: str, packages: tuple[str, ...]) -> bool:
    """Return whether module `name` is one of `packages`, or belongs to one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


class Finder:
    """A finder for `sys.meta_path` that changes how some modules are loaded, whatever finds them."""

    def install(self) -> None:
        """Have Python ask it first."""
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Have Python ask it no more. What has been imported stays."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def concerns(self, name: str) -> bool:
        """Return whether a module is one of those."""
        raise NotImplementedError

    def load(self, loader: Any, module: ModuleType) -> None:
        """Have `loader` fill `module`."""
        raise NotImplementedError

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Find a module as the other finders do; then see to its loading."""
        if not self.concerns(name):
            return None
        for finder in sys.meta_path:
            spec: ModuleSpec | None = None if isinstance(finder, Finder) else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """A module's loader, but for what a finder of ours does beside."""

    def __init__(self, loader: Any, finder: Finder) -> None:
        self._loader = loader
        self._finder = finder

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._finder.load(self._loader, module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class ImportingInstead(Finder):
    """The modules of certain packages, but for some parts of them, get others than they name in their imports."""

    def __init__(
        self, packages: tuple[str, ...], instead: Mapping[str, ModuleType], but: tuple[str, ...] = ()
    ) -> None:
        self._packages = packages
        self._instead = instead
        self._but = but

    def concerns(self, name: str) -> bool:
        return is_in(name, self._packages) and not is_in(name, self._but)

    def load(self, loader: Any, module: ModuleType) -> None:
        vars(module)["__builtins__"] = builtins_with(self._instead)
        loader.exec_module(module)


class Adapting(Finder):
    """Modules of certain names are changed by a function each, `change(module)`, as soon as they are imported."""

    def __init__(self, changes: Mapping[str, Callable[[ModuleType], None]]) -> None:
        self._changes = changes

    def concerns(self, name: str) -> bool:
        return name in self._changes

    def load(self, loader: Any, module: ModuleType) -> None:
        loader.exec_module(module)
        self._changes[module.__name__](module)


class ImportingAnew(Finder):
    """Modules of certain names that are imported once more, in place of one that was dropped, get certain values."""

    def __init__(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        self._values = values

    def concerns(self, name: str) -> bool:
        return name in self._values

    def load(self, loader: Any, module: ModuleType) -> None:
        loader.exec_module(module)
        for name, value in self._values[module.__name__].items():
            if hasattr(module, name):
                setattr(module, name, value)
