"""The import rule, as data, and the walk that holds the package to it.

A module imports from a lower layer or from its own folder, nothing else. Files of one layer that stand at the top of
the package share that folder: they may import each other, though never in a ring. The checker is a function over a
module's name and source, so the end of this file plants every wrong import that it must find. A package's own file is
named in full (`greenswitch.hub.__init__`): then a relative import always starts by dropping the last word of the name.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = "greenswitch"
PACKAGE = Path(__file__).resolve().parent.parent / ROOT

# Lowest first. A place is a folder ("hub/") or a file of the package ("tasks").
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("core/", "hub/"),
    ("tasks", "waiting", "running", "timeouts", "groups", "local", "copies"),
    ("locks/",),
    ("exchanges", "channels", "queues", "pools", "feeds", "threads"),
    ("names", "sockets", "tls", "descriptors", "processes", "files", "servers", "drivers"),
    ("green/",),
    (
        *("monkey", "patches", "originals", "event_loops", "interprocess", "programs", "guests/"),
        *("recorder/", "stepper", "dump/", "watchdog", "assertions"),
    ),
    ("testing", "echo", "__init__"),
)
LAYER_OF = {place: number for number, places in enumerate(LAYERS) for place in places}

# Imports inside a function: (module, what it imports) -> why it can't stand at the top of the file.
LAZY: Mapping[tuple[str, str], str] = {
    **{
        ("greenswitch.drivers", module): "an optional dependency, and only who patches this driver has it"
        for module in ("psycopg", "psycopg.errors", "psycopg.pq", "psycopg.waiting", "psycopg2.extensions")
    },
    ("greenswitch.originals", "concurrent.futures"): "it brings logging along, which not every patched program uses",
    ("greenswitch.recorder.timeline", "matplotlib"): "an optional dependency, and only a drawn recording needs it",
}

# greenlet is the only runtime dependency, and _typeshed exists for type checkers only; anything else is optional, so
# lazy, so in LAZY.
THIRD_PARTY = {"greenlet", "_typeshed"}
VAGUE_NAMES = {"common", "compat", "helper", "helpers", "misc", "util", "utils"}


class Arrow(NamedTuple):
    """One import: what is named, in which line, and whether it runs lazily or for the type checker only."""

    target: str
    line: int
    lazy: bool = False
    typing_only: bool = False
    star: bool = False


# --- reading ----------------------------------------------------------------------------------------------------------


def arrows(module: str, source: str) -> list[Arrow]:
    """List every import of the source, with relative ones made absolute."""
    return list(_walk(module, ast.parse(source), lazy=False, typing_only=False))


def _walk(module: str, node: ast.AST, lazy: bool, typing_only: bool) -> Iterator[Arrow]:
    for target, star in _targets(module, node):
        yield Arrow(target, node.lineno, lazy, typing_only, star)  # type: ignore[attr-defined]
    lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    guarded = node.body if isinstance(node, ast.If) and _is_type_checking(node.test) else []
    for child in ast.iter_child_nodes(node):
        yield from _walk(module, child, lazy, typing_only or child in guarded)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _targets(module: str, node: ast.AST) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, False) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            base = ".".join([*module.split(".")[: -node.level], *([base] if base else [])])
        yield from ((base if alias.name == "*" else f"{base}.{alias.name}", alias.name == "*") for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        yield from ((arg.value, False) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def place_of(target: str) -> str:
    """Return the place in the table that a dotted name of ours belongs to; an unknown one is returned as it is."""
    parts = target.split(".")[1:]
    if not parts:
        return "__init__"
    if f"{parts[0]}/" in LAYER_OF:
        return f"{parts[0]}/"
    # `from greenswitch import spawn` names no module: it imports the package's own file.
    is_known = parts[0] in LAYER_OF or len(parts) > 1
    return parts[0] if is_known else "__init__"


def existing(target: str, modules: Mapping[str, str]) -> str | None:
    """Return the module of ours that a dotted name (a module, a package, or a name in one) is read from, if any."""
    for name in (target, target.rpartition(".")[0]):
        for candidate in (name, f"{name}.__init__"):
            if candidate in modules:
                return candidate
    return None


# --- judging ----------------------------------------------------------------------------------------------------------


def violations(module: str, source: str, lazy: Mapping[tuple[str, str], str] = LAZY) -> list[str]:
    """Return every breach of the rule in one module, each with its line and the reason; an empty list is a pass."""
    found = [f"{module}: {text}" for text in _name_breaches(module)]
    for arrow in arrows(module, source):
        found += [f"{module}:{arrow.line}: {text}" for text in _arrow_breaches(module, arrow, lazy)]
    return found


def _name_breaches(module: str) -> Iterator[str]:
    leaf = module.split(".")[-1]
    if own_place(module) not in LAYER_OF:
        yield "stands in no layer: give it a place in LAYERS"
    if leaf.strip("_") in VAGUE_NAMES:
        yield f"{leaf!r} says nothing about what is in it: name the file after its idea"
    if leaf in sys.stdlib_module_names and own_place(module) != "green/":
        yield f"{leaf!r} is a name of the standard library, and only green/ may use those"


def own_place(module: str) -> str:
    parts = module.split(".")[1:]
    return parts[0] if len(parts) == 1 else f"{parts[0]}/"


def _arrow_breaches(module: str, arrow: Arrow, lazy: Mapping[tuple[str, str], str]) -> Iterator[str]:
    if arrow.star:
        yield f"`from {arrow.target} import *` hides what is imported: name it"
    if arrow.lazy and not _is_excused(module, arrow.target, lazy):
        yield f"imports {arrow.target} inside a function: move it to the top, or give LAZY a reason"
    top = arrow.target.split(".")[0]
    if top == ROOT:
        yield from _layer_breaches(own_place(module), arrow.target)
    elif top not in sys.stdlib_module_names | THIRD_PARTY and not arrow.lazy:
        yield f"imports {arrow.target}, which is no dependency of ours"


def _is_excused(module: str, target: str, lazy: Mapping[tuple[str, str], str]) -> bool:
    return any(module == who and f"{target}.".startswith(f"{what}.") for who, what in lazy)


def _layer_breaches(importer: str, target: str) -> Iterator[str]:
    imported = place_of(target)
    if importer not in LAYER_OF or importer == imported:
        return
    if imported not in LAYER_OF:
        yield f"imports {target}, which stands in no layer"
        return
    upper, lower = LAYER_OF[importer], LAYER_OF[imported]
    are_siblings = upper == lower and not importer.endswith("/") and not imported.endswith("/")
    if lower >= upper and not are_siblings:
        yield f"{importer} (layer {upper}) imports {target} from {imported} (layer {lower}): only from a lower layer"


def cycle(modules: Mapping[str, str]) -> list[str]:
    """Return one chain of modules that import each other in a ring, or an empty list.

    What only the type checker sees doesn't count here (the layers hold it all the same): it imports nothing.
    """
    graph = {
        name: [existing(arrow.target, modules) for arrow in arrows(name, source) if not arrow.typing_only]
        for name, source in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for target in graph[name]:
                if target is not None and target != name and (ring := visit(target, [*path, name])):
                    return ring
            done.add(name)
        return []

    return next((ring for name in graph if (ring := visit(name, []))), [])


# --- the package ------------------------------------------------------------------------------------------------------


def module_name(path: Path, package: Path) -> str:
    return ".".join((ROOT, *path.relative_to(package).with_suffix("").parts))


def package_sources(package: Path) -> dict[str, str]:
    """Read every module under a folder that stands for the package."""
    return {module_name(path, package): path.read_text("utf-8") for path in sorted(package.rglob("*.py"))}


SOURCES = package_sources(PACKAGE)


@pytest.mark.parametrize("module", SOURCES)
def test_module_imports_only_from_lower_layers_or_its_own_folder(module: str) -> None:
    assert violations(module, SOURCES[module]) == []


def test_no_modules_import_each_other_in_a_ring() -> None:
    assert cycle(SOURCES) == []


def test_every_excuse_for_a_lazy_import_has_a_reason_and_is_still_needed() -> None:
    for (module, target), reason in LAZY.items():
        lazily = [arrow.target for arrow in arrows(module, SOURCES[module]) if arrow.lazy]
        assert reason and any(f"{name}.".startswith(f"{target}.") for name in lazily), (module, target)


# --- planted faults ---------------------------------------------------------------------------------------------------

LAWFUL = [
    ("greenswitch.errors", "import sys\nfrom collections import deque"),
    ("greenswitch.hub.hub", "import greenlet\nfrom greenswitch.errors import HubError"),
    ("greenswitch.hub.hub", "from ..errors import HubError\nfrom . import timers\nfrom .pollers import EpollPoller"),
    ("greenswitch.hub.__init__", "from .hub import Hub\nfrom greenswitch.hub.timers import Timer"),
    ("greenswitch.tasks", "from greenswitch.hub import hub\nfrom greenswitch import core\nfrom . import hub, errors"),
    ("greenswitch.pools", "from .tasks import Task\nfrom greenswitch import locks"),
    ("greenswitch.green.socket", "import socket\nfrom ..sockets import Socket\nfrom greenswitch import tls"),
    ("greenswitch.echo", "from greenswitch import spawn\nimport greenswitch.sockets"),
    ("greenswitch.__init__", "from .tasks import spawn\nfrom .hub.hub import get_hub\nfrom . import green"),
    ("greenswitch.monkey", "import importlib\nimportlib.import_module('socket')"),
]

PLANTED = [
    ("greenswitch.core.relay", "from greenswitch.hub.hub import Hub", "only from a lower layer"),
    ("greenswitch.core.relay", "from ..hub import Hub", "only from a lower layer"),
    ("greenswitch.core.relay", "from .. import hub", "only from a lower layer"),
    ("greenswitch.hub.hub", "import greenswitch.core.coroutine", "only from a lower layer"),
    ("greenswitch.hub.__init__", "from ..core import Coroutine", "only from a lower layer"),
    ("greenswitch.hub.hub", "from ..tasks import Task", "only from a lower layer"),
    ("greenswitch.hub.hub", "if TYPE_CHECKING:\n    from ..tasks import Task", "only from a lower layer"),
    ("greenswitch.hub.hub", "from greenswitch import tasks", "only from a lower layer"),
    ("greenswitch.hub.hub", "from .. import spawn", "only from a lower layer"),
    ("greenswitch.hub.hub", "import greenswitch", "only from a lower layer"),
    ("greenswitch.errors", "try:\n    from .hub import hub\nexcept ImportError:\n    pass", "only from a lower layer"),
    ("greenswitch.tasks", "import_module('greenswitch.sockets')", "only from a lower layer"),
    ("greenswitch.locks.mutexes", "from ..sockets import Socket", "only from a lower layer"),
    ("greenswitch.tasks", "from .locks import Lock", "only from a lower layer"),
    ("greenswitch.sockets", "from greenswitch.green import socket", "only from a lower layer"),
    ("greenswitch.guests.tk", "from ..monkey import patch_all", "only from a lower layer"),
    ("greenswitch.monkey", "from .guests import asyncio", "only from a lower layer"),
    ("greenswitch.tasks", "from .strange.place import thing", "stands in no layer"),
    ("greenswitch.tasks", "from greenswitch.hub import *", "import *"),
    ("greenswitch.tasks", "from socket import *", "import *"),
    ("greenswitch.tasks", "def f():\n    import socket", "inside a function"),
    ("greenswitch.tasks", "class A:\n    async def f(self):\n        from .hub import hub", "inside a function"),
    ("greenswitch.tasks", "f = lambda: __import__('socket')", "inside a function"),
    ("greenswitch.tasks", "import gevent", "no dependency of ours"),
    ("greenswitch._compat", "", "says nothing"),
    ("greenswitch.hub.utils", "", "says nothing"),
    ("greenswitch.hub.selectors", "", "name of the standard library"),
    ("greenswitch.socket", "", "name of the standard library"),
    ("greenswitch.surprise", "", "stands in no layer"),
    ("greenswitch.surprise.inner", "", "stands in no layer"),
]


@pytest.mark.parametrize(("module", "source"), LAWFUL)
def test_lawful_import_passes(module: str, source: str) -> None:
    assert violations(module, source, lazy={}) == []


@pytest.mark.parametrize(("module", "source", "reason"), PLANTED)
def test_planted_fault_is_found_and_explained(module: str, source: str, reason: str) -> None:
    found = violations(module, source, lazy={})
    assert any(reason in text for text in found), found


def test_lazy_import_with_a_reason_passes_for_that_module_only() -> None:
    source = "def f():\n    import uvloop.loop"
    excuses = {("greenswitch.threads", "uvloop"): "optional dependency"}
    assert violations("greenswitch.threads", source, lazy=excuses) == []
    assert violations("greenswitch.tasks", source, lazy=excuses) != []


def test_planted_ring_is_found_and_type_checking_imports_make_none() -> None:
    tasks = "from .locks import Lock"
    assert cycle({"greenswitch.tasks": tasks, "greenswitch.locks": "from greenswitch import tasks"})
    assert cycle({"greenswitch.tasks": tasks, "greenswitch.locks": "def f():\n    from .tasks import Task"})
    assert cycle({"greenswitch.hub.__init__": "from .hub import Hub", "greenswitch.hub.hub": "from . import Hub"})
    typed = "if TYPE_CHECKING:\n    from .tasks import Task"
    assert cycle({"greenswitch.tasks": tasks, "greenswitch.locks": typed}) == []
    assert cycle({"greenswitch.hub.__init__": "from .hub import Hub", "greenswitch.hub.hub": ""}) == []


def test_fault_planted_in_a_file_is_found_by_the_walk(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "__init__.py").write_text("from ..tasks import Task\n")
    (tmp_path / "tasks.py").write_text("from .hub import Task\n")
    sources = package_sources(tmp_path)
    assert sorted(sources) == ["greenswitch.hub.__init__", "greenswitch.tasks"]
    assert [text for name, source in sources.items() for text in violations(name, source)] == [
        "greenswitch.hub.__init__:1: hub/ (layer 1) imports greenswitch.tasks.Task from tasks (layer 2): "
        "only from a lower layer"
    ]
    assert cycle(sources) != []
