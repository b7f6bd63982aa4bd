"""Task-local data: each task sees attributes of its own, and they go when the task ends.

As `threading.local`, one level finer: every task, and outside of tasks every greenlet, counts as a thread of its own.
Knows tasks by `getcurrent()` and by the link that says that one has ended.

A local owns all its namespaces, by the id of the task that each belongs to. A namespace is dropped when its owner's
`_Life` ends, and all of them when the local is released. So a reference cycle through a local can be collected, and an
id that is given out again finds nothing of its former owner's.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

from greenswitch.tasks import Task, getcurrent

_MISSING = object()


class _Life:
    """Is dropped, and with it what refers to it weakly, when its owner has ended or is released."""

    __slots__ = ("__weakref__", "_owner")

    def __init__(self, owner: Any) -> None:
        number = id(owner)
        self._owner = ref(owner, lambda _: _lives.pop(number, None))
        _lives[number] = self
        if isinstance(owner, Task):
            owner.add_link(_end)


_lives: dict[int, _Life] = {}


def _end(task: Task) -> None:
    _lives.pop(id(task), None)


class _Namespaces(dict[int, tuple[dict[str, Any], ref[_Life]]]):
    """One local's data, by owner. The callback of a weak reference refers to it, weakly."""

    __slots__ = ("__weakref__",)


class local:
    """Attributes that each task sees and sets for itself.

    A subclass's `__init__` runs again, with the same arguments, in each task that uses the object, when it first does.

    >>> from greenswitch import run, spawn
    >>> def main():
    ...     mine = local()
    ...     mine.name = "main"
    ...     spawn(setattr, mine, "name", "other").join()
    ...     return mine.name
    >>> run(main)
    'main'
    """

    __slots__ = ("__weakref__", "_local__arguments", "_local__namespaces")

    _local__arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _local__namespaces: _Namespaces

    def __new__(cls, /, *args: Any, **kwargs: Any) -> local:
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError("local() takes no arguments; a subclass with an __init__ of its own may")
        self = object.__new__(cls)
        object.__setattr__(self, "_local__arguments", (args, kwargs))
        object.__setattr__(self, "_local__namespaces", _Namespaces())
        _add_namespace(self, getcurrent())  # without running __init__: whoever makes the object runs it anyway
        return self

    def __getattribute__(self, name: str) -> Any:
        namespace = _namespace(self)
        if name == "__dict__":
            return namespace
        if name in namespace and not _is_data_descriptor(type(self), name):
            return namespace[name]
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        namespace = _namespace(self)
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        if _is_data_descriptor(type(self), name):
            object.__setattr__(self, name, value)
        else:
            namespace[name] = value

    def __delattr__(self, name: str) -> None:
        namespace = _namespace(self)
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        if _is_data_descriptor(type(self), name):
            object.__delattr__(self, name)
        elif namespace.pop(name, _MISSING) is _MISSING:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r} in {getcurrent()!r}")

    def __copy__(self) -> local:
        """Return another local, in which the calling task has what it has in this one; no other task has anything."""
        args, kwargs = _arguments_of(self)
        made = type(self).__new__(type(self), *args, **kwargs)
        _namespace(made).update(_namespace(self))
        return made

    def __reduce__(self) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object: each task has its own data in it")


# Not through the instance: its `__getattribute__` is what calls them.
_arguments_of = local.__dict__["_local__arguments"].__get__
_namespaces_of = local.__dict__["_local__namespaces"].__get__


def _namespace(one: local) -> dict[str, Any]:
    current = getcurrent()
    found = _namespaces_of(one).get(id(current))
    if found is not None:
        return found[0]  # type: ignore[no-any-return]
    namespace = _add_namespace(one, current)
    kind: Any = type(one)
    if kind.__init__ is not object.__init__:
        args, kwargs = _arguments_of(one)
        kind.__init__(one, *args, **kwargs)
    return namespace


def _add_namespace(one: local, owner: Any) -> dict[str, Any]:
    namespaces, number = _namespaces_of(one), id(owner)
    life = _lives.get(number) or _Life(owner)
    namespace: dict[str, Any] = {}
    weakly = ref(namespaces)

    def forget(_: object) -> None:
        left = weakly()
        if left is not None:
            left.pop(number, None)

    namespaces[number] = namespace, ref(life, forget)
    return namespace


def _is_data_descriptor(kind: type, name: str) -> bool:
    """Return whether the class has a property or the like of that name, which goes before the instance's attributes."""
    for base in kind.__mro__:
        if name in base.__dict__:
            found = type(base.__dict__[name])
            return hasattr(found, "__set__") or hasattr(found, "__delete__")
    return False
