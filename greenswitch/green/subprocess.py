"""The twin of the standard library's `subprocess`: waiting for children, and for their pipes, parks the task.

Three methods of `Popen` wait. Two are the original's own text, run over globals in which the files over its pipes
(`greenswitch.files`) and the selector of `communicate` are others; the third waits for the child's end
(`greenswitch.processes`). Monkey patching puts them into the original `Popen`, which stays the same class. Here, with
nothing patched, `Popen` is a subclass that has them, and the exceptions are the original's.

On Windows only the pipes' twin is missing: there everything is the original's.

Knows the standard library's `subprocess`.
"""

from __future__ import annotations

import io
import subprocess as original
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenswitch.copies import Namespace, run_over
from greenswitch.files import open_fd
from greenswitch.green import rest_of, selectors
from greenswitch.hub import current_hub
from greenswitch.processes import CAN_TELL, has_ended

if TYPE_CHECKING:
    from subprocess import Popen, call, check_call, check_output, getoutput, getstatusoutput, run

REPLACED: tuple[str, ...] = ()

_original_wait: Any = getattr(original.Popen, "_wait", None)


def _wait(self: original.Popen[Any], timeout: float | None) -> int | None:
    """Park until the child has ended, then have the original reap it: it holds a lock while it does."""
    if self.returncode is None and current_hub() is not None and not has_ended(self.pid, timeout):
        raise original.TimeoutExpired(self.args, timeout)  # type: ignore[arg-type]
    return _original_wait(self, timeout)  # type: ignore[no-any-return]


class _Globals(dict[str, Any]):
    """The original's globals, as they are at each time, but for those that are put here."""

    def __missing__(self, name: str) -> Any:
        return vars(original)[name]


_globals = _Globals(__name__=__name__)

_methods: dict[str, Any] = {}
"""Those of `Popen` that park."""

if hasattr(original, "_PopenSelector"):
    _selector = getattr(selectors, original._PopenSelector.__name__)
    _globals.update(io=Namespace(io, {"open": open_fd}, {}), _PopenSelector=_selector)
    _methods = {name: run_over(vars(original.Popen)[name], _globals) for name in ("__init__", "_communicate")}
    if _original_wait is not None and CAN_TELL:
        _methods["_wait"] = _wait


def patch(replace: Callable[[object, str, object], None]) -> None:
    """Put these methods in the original class."""
    for name, ours in _methods.items():
        replace(original.Popen, name, ours)


if not TYPE_CHECKING:

    class Popen(original.Popen):
        """As `subprocess.Popen`; waiting for the child and for its pipes parks the task."""

        locals().update(_methods)

    call, check_call, check_output, getoutput, getstatusoutput, run = (
        run_over(getattr(original, name), _globals)
        for name in ("call", "check_call", "check_output", "getoutput", "getstatusoutput", "run")
    )
    _globals.update(Popen=Popen, call=call, check_output=check_output, run=run)

__all__ = ["Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput", "run"]
__all__ += [name for name in original.__all__ if name not in __all__]

__getattr__, __dir__ = rest_of(original, globals())
