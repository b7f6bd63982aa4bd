"""Run another program in this process as `python program.py` or `python -m program` would.

It becomes `__main__`, with its own `sys.argv` and `sys.path`; its exit status, and the traceback that it may leave, are
as if Python had run it alone.

Knows Python's start-up. Must not know why somebody wants that.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn


def run_script(path: str, args: list[str]) -> None:
    """Run the source file at `path` as `python path args…`. Raises what it raises; SystemExit if it can't be read."""
    file = os.path.abspath(path)
    try:
        with io.open_code(file) as opened:
            source = opened.read()
    except OSError as error:
        leave(2, f"can't open file {file!r}: [Errno {error.errno}] {error.strerror}")
    sys.argv[:] = [path, *args]
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    loader = SourceFileLoader("__main__", file)
    try:
        code = compile(source, file, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise _shown_from(error, None) from None
    _become_main(code, __file__=file, __loader__=loader, __package__=None, __spec__=None)


def run_module(name: str, args: list[str]) -> None:
    """Run module `name` as `python -m name args…`. Raises what it raises; SystemExit if there is none to run."""
    spec = _find(name)
    if spec is not None and spec.submodule_search_locations is not None:
        package, spec = spec, _find(f"{name}.__main__")
        if spec is None:
            leave(1, f"No module named {package.name}.__main__; {name!r} is a package and cannot be directly executed")
    code = None if spec is None else spec.loader.get_code(spec.name)  # type: ignore[union-attr]
    if spec is None or code is None:
        leave(1, f"No module named {name}" if spec is None else f"No code object available for {name}")
    sys.argv[:] = [spec.origin or name, *args]
    _become_main(code, __file__=spec.origin, __loader__=spec.loader, __package__=spec.parent, __spec__=spec)


def leave(status: int, why: str) -> NoReturn:
    """End with `status`, and say why as Python does."""
    print(f"{sys.executable}: {why}", file=sys.stderr)
    raise SystemExit(status)


def _find(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ModuleNotFoundError:  # a package on the way to it
        return None


def _become_main(code: CodeType, **names: Any) -> None:
    main = ModuleType("__main__")
    vars(main).update(names, __builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = main
    try:
        exec(code, vars(main))
    except SystemExit:
        raise
    except BaseException as error:
        where = error.__traceback__
        raise _shown_from(error, where and where.tb_next) from None


def _shown_from(error: BaseException, where: TracebackType | None) -> BaseException:
    """Have an error that nobody will catch reported from `where` on: the frames above are none of the program's."""
    hook, cause, silent = sys.excepthook, error.__cause__, error.__suppress_context__

    def report(kind: type[BaseException], raised: BaseException, at: TracebackType | None) -> None:
        if raised is error:
            at, error.__cause__, error.__suppress_context__, error.__traceback__ = where, cause, silent, where
        hook(kind, raised, at)

    sys.excepthook = report
    return error
