"""The layer's public face."""

import ast
import pathlib
import subprocess
import sys

import greenswitch.core as core


def test_every_exported_name_is_there_and_sorted():
    assert all(hasattr(core, name) for name in core.__all__)
    assert core.__all__ == sorted(core.__all__)


def test_core_imports_only_greenlet_the_standard_library_and_our_errors():
    allowed = {*sys.stdlib_module_names, "greenlet"}
    for path in pathlib.Path(core.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module]
            for name in names:
                ours = name == "greenswitch.errors" or name.startswith("greenswitch.core")
                assert ours or name.partition(".")[0] in allowed, f"{path.name} imports {name}"


def test_importing_core_starts_no_thread_and_opens_no_socket():
    code = (
        "import sys, threading\n"
        "def refuse(event, args):\n"
        "    if event.startswith('socket.'): raise SystemExit(event)\n"
        "sys.addaudithook(refuse)\n"
        "import greenswitch.core\n"
        "sys.exit(threading.active_count() - 1)"
    )
    folder = pathlib.Path(core.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0
