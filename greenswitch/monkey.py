"""Put the twins in the standard library's place, so that unchanged programs switch where they would block.

A last resort, for code that you can't change: it changes every library in the process at once. Call it first of all:

    from greenswitch import monkey
    monkey.patch_all()

or leave the program as it is and run `python -m greenswitch.monkey program.py`. Attributes are replaced in place, and
classes keep their identity wherever what they call can be replaced instead. Each twin (`greenswitch.green.*`) says what
it replaces:

- `REPLACED` are the twin's names that take the place of the original module's;
- `patch(replace)`, where a twin has it, calls `replace(owner, name, value)` for whatever else there is to replace. It
  does nothing but that: nothing is changed until the whole plan is known.

A thread that runs an event loop of asyncio's parks where the loop would sleep (see `greenswitch.event_loops`). So does
one that waits for another process by multiprocessing (see `greenswitch.interprocess`).

Knows the twins by name. Must not know what is in them.
"""

from __future__ import annotations

import argparse
import sys
import threading
from _thread import get_ident
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import greenlet

from greenswitch import event_loops, interprocess
from greenswitch.copies import Adapting, Finder, ImportingAnew
from greenswitch.errors import HubError
from greenswitch.hub import describe
from greenswitch.originals import Originals
from greenswitch.patches import Early, Plan, Replacement, is_standard, locks_of, names_elsewhere, standard_modules
from greenswitch.programs import leave, run_module, run_script

SWITCHES: Mapping[str, tuple[str, ...]] = {
    "threading": ("_thread", "threading"),
    "queue": ("queue",),
    "time": ("time",),
    "socket": ("socket",),
    "ssl": ("ssl",),
    "select": ("select",),
    "selectors": ("selectors",),
    "os": ("os",),
    "subprocess": ("subprocess",),
    "signal": ("signal",),
    "sys": ("sys", "builtins"),
    "multiprocessing": ("_multiprocessing",),
}
"""What `patch_all` can be told to leave alone, and the twins that belong to it."""

_CHANGES = {**event_loops.CHANGES, **interprocess.CHANGES}
_patched: list[tuple[str, ...]] = []  # each time, the twins
_done: list[Plan] = []  # and what has been replaced
_finders: list[Finder] = []
_originals: Originals | None = None


class Report(tuple[Early, ...]):
    """What was imported too early, and so goes on calling originals: (module, name, what)."""

    def __repr__(self) -> str:
        if not self:
            return "<patched: nothing was imported too early>"
        lines = [f"  {module}.{name} is still the original {what}" for module, name, what in self]
        return "\n".join(["imported too early (patch first, then import):", *lines])


def patch_all(*, strict: bool = False, force: bool = False, **switches: bool) -> Report:
    """Replace what blocks in the standard library; return a report of what was imported too early.

    Each switch stands for a module (see `SWITCHES`) and is on unless you say `module=False`. What is patched already
    stays so. With `strict`, raises RuntimeError if something was imported too early, and nothing is changed. Raises
    HubError outside of the main thread, in a task, and in a Jupyter kernel, unless you `force` it.
    """
    unknown = [name for name in switches if name not in SWITCHES]
    if unknown:
        raise TypeError(f"patch_all has no switch {unknown[0]!r}; there are {', '.join(SWITCHES)}")
    wanted = [twin for switch, twins in SWITCHES.items() if switches.get(switch, True) for twin in twins]
    twins = tuple(twin for twin in wanted if not is_module_patched(twin))
    if not force:
        _refuse_late()
    plan = _plan(twins)
    report = Report(
        Early(module.__name__, name, f"{one.owner.__name__}.{one.name}")
        for module, name, one in names_elsewhere(plan)
        if not is_standard(module.__name__)
    )
    if strict and report:
        raise RuntimeError(repr(report))
    if twins:
        finders = [ImportingAnew(plan.by_module()), *_complete(plan)]
        for one in plan:
            one.do()
        if _originals is not None:
            _originals.hide(plan.by_module())
        for finder in finders:
            finder.install()
        _patched.append(twins)
        _done.append(plan)
        _finders.extend(finders)
    return report


def unpatch_all() -> None:
    """Put back everything that `patch_all` has replaced. What has been made meanwhile, locks and threads, stays."""
    while _done:
        for one in reversed(_done.pop()):
            one.undo()
        _patched.pop()
    while _finders:
        _finders.pop().remove()


def is_module_patched(name: str) -> bool:
    """Return whether the standard library's module `name` is patched."""
    return any(name in twins for twins in _patched)


def is_object_patched(module: str, name: str) -> bool:
    """Return whether `module.name` was replaced by patching."""
    return bool(_changes_of(import_module(module), name))


def get_original(module: str, name: str) -> Any:
    """Return what `module.name` was before it was patched; what it is, if it isn't."""
    owner = import_module(module)
    changes = _changes_of(owner, name)
    return changes[0].before if changes else getattr(owner, name)


def _changes_of(owner: ModuleType, name: str) -> list[Replacement]:
    return [one for plan in _done for one in plan if one.owner is owner and one.name == name]


def _plan(twins: tuple[str, ...]) -> Plan:
    plan = Plan()
    for name in twins:
        twin = import_module(f"greenswitch.green.{name}")
        for replaced in twin.REPLACED:
            plan.replace(twin.original, replaced, getattr(twin, replaced))
        if hasattr(twin, "patch"):
            twin.patch(plan.replace)
    return plan


def _complete(plan: Plan) -> list[Finder]:
    """Add to the plan what follows from it in the rest of the standard library; return what sees to later imports."""
    global _originals
    if _originals is None:
        _originals = Originals()
    if not _done:
        for name, change in _CHANGES.items():
            if name in sys.modules:
                change(sys.modules[name], plan.replace)
    for module, name, one in list(names_elsewhere(plan)):
        if is_standard(module.__name__):
            plan.replace(module, name, one.after)
    if any(one.name == "allocate_lock" for one in plan):
        for owner, name, ours in locks_of(standard_modules()):
            plan.replace(owner, name, ours)
    if _done:
        return []
    return [_originals.finder, Adapting({name: partial(_adapt, plan, change) for name, change in _CHANGES.items()})]


def _adapt(plan: Plan, change: Callable[[Any, Callable[..., None]], None], module: ModuleType) -> None:
    """Change a module that has just been imported, and note that in the plan, to be undone with it."""
    changes = Plan()
    change(module, changes.replace)
    for one in changes:
        one.do()
    plan.extend(changes)


def _refuse_late() -> None:
    current = greenlet.getcurrent()
    if get_ident() != threading.main_thread().ident:
        raise HubError("patch_all() belongs at the top of the program, in its main thread; this is another one")
    if current.parent is not None:
        raise HubError(f"patch_all() belongs at the top of the program, before any task; {describe(current)} calls it")
    if _in_jupyter():
        raise HubError(
            "patch_all() in a Jupyter kernel would change what the kernel itself runs on; use `greenswitch.green` "
            "modules instead, or patch_all(force=True)"
        )


def _in_jupyter() -> bool:
    application = getattr(sys.modules.get("ipykernel.kernelapp"), "IPKernelApp", None)
    return application is not None and bool(application.initialized())


# -- python -m greenswitch.monkey --------------------------------------------------------------------------------------

_HELP = """Run a program with the standard library patched, so that it switches tasks where it would block.

The program needs no change: its threads become tasks of one hub, and sockets, locks, queues and sleep park the task
that calls them, an event loop of asyncio's too. What it imports is patched before it does.
"""

_EXAMPLES = """examples:
  python -m greenswitch.monkey server.py --port 8090      a script, with arguments of its own
  python -m greenswitch.monkey -m http.server 8000        a module, as python -m does
  python -m greenswitch.monkey application.pyz            a zip file or directory with a __main__.py; or a .pyc
  python -m greenswitch.monkey --no-threading client.py   leave its threads to the operating system
  python -m greenswitch.monkey --report client.py         say first what was imported before it could be patched
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m greenswitch.monkey",
        usage="%(prog)s [options] (program.py | -m module) [arguments…]",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for switch, twins in SWITCHES.items():
        parser.add_argument(
            f"--no-{switch}", dest=switch, action="store_false", help=f"don't patch {' and '.join(twins)}"
        )
    parser.add_argument("--strict", action="store_true", help="refuse to run if something was imported too early")
    parser.add_argument("--report", action="store_true", help="print what was imported too early to standard error")
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="a module to run, and its arguments")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="a script or application to run, and its arguments")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Patch, then run the program that the command line names."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not (options.module or options.program):
        parser.error("which program? Name a script, or a module with -m")
    try:
        report = patch_all(strict=options.strict, **{switch: getattr(options, switch) for switch in SWITCHES})
    except RuntimeError as error:
        leave(1, str(error))
    if options.report:
        print(repr(report), file=sys.stderr)
    name, *args = options.module or options.program
    (run_module if options.module else run_script)(name, args)


if __name__ == "__main__":
    # The program that it runs takes the name `__main__`, and may import this module.
    sys.modules[__spec__.name] = sys.modules["__main__"]
    main()
