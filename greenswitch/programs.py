"""Run another program in this process as `python program.py`, `python application.pyz` or `python -m program` would.

It becomes `__main__`, with its own `sys.argv` and `sys.path`; its exit status, and the traceback that it may leave, are
as if Python had run it alone.

Knows Python's start-up. Must not know why somebody wants that.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
from contextlib import suppress
from importlib.machinery import ModuleSpec, SourceFileLoader, SourcelessFileLoader
from importlib.util import MAGIC_NUMBER, find_spec
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn


def run_script(path: str, args: list[str]) -> None:
    """Run `path` as `python path args…`: a source file, a `.pyc`, or a directory or zip file with a `__main__`.

    Raises what it raises; SystemExit if it can't be read.
    """
    sys.argv[:] = [path, *args]
    file = os.path.join(os.getcwd(), path)
    importer = _importer_of(file)
    if importer is None:
        if not sys.flags.safe_path:
            sys.path[0] = os.path.dirname(os.path.realpath(path))
        _run_file(file)
    else:
        sys.path[: not sys.flags.safe_path] = [file]
        _run_main_of(file, importer)


def _run_file(file: str) -> None:
    try:
        with io.open_code(file) as opened:
            text = opened.read()
    except OSError as error:
        leave(2, f"can't open file {file!r}: [Errno {error.errno}] {error.strerror}")
    loader: Any = SourceFileLoader("__main__", file)
    try:
        if file.endswith(".pyc") or text.startswith(MAGIC_NUMBER):
            loader = SourcelessFileLoader("__main__", file)
            code = _compiled(loader)
        else:
            code = compile(text, file, "exec", dont_inherit=True)
    except (SyntaxError, RuntimeError) as error:
        raise _shown_from(error, None) from None
    _become_main(code, __file__=file, __loader__=loader, __package__=None, __spec__=None)


def _compiled(loader: SourcelessFileLoader) -> Any:
    try:
        return loader.get_code("__main__")
    except ImportError:
        raise RuntimeError("Bad magic number in .pyc file") from None
    except (EOFError, TypeError, ValueError):
        raise RuntimeError("Bad code object in .pyc file") from None


def _importer_of(file: str) -> Any:
    """Return what finds modules in a directory or a zip file; None for any other file."""
    for hook in sys.path_hooks:
        with suppress(ImportError):
            return hook(file)
    return None


def _run_main_of(file: str, importer: Any) -> None:
    try:
        spec: ModuleSpec | None = importer.find_spec("__main__")
        code = None if spec is None or spec.loader is None else spec.loader.get_code("__main__")  # type: ignore[attr-defined]
    except SyntaxError as error:
        raise _shown_from(error, None) from None
    if spec is None or code is None:
        leave(1, f"can't find '__main__' module in {file!r}")
    _become_main_of(spec, code)


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
    _become_main_of(spec, code)


def leave(status: int, why: str) -> NoReturn:
    """End with `status`, and say why as Python does."""
    print(f"{sys.executable}: {why}", file=sys.stderr)
    raise SystemExit(status)


def _find(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ModuleNotFoundError:  # a package on the way to it
        return None


def _become_main_of(spec: ModuleSpec, code: CodeType) -> None:
    names = {"__file__": spec.origin, "__cached__": spec.cached, "__loader__": spec.loader}
    _become_main(code, **names, __package__=spec.parent, __spec__=spec)


def _become_main(code: CodeType, **names: Any) -> None:
    main = ModuleType("__main__")
    vars(main).update({"__cached__": None, **names}, __builtins__=builtins)
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
