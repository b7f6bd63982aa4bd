"""How greenlets, jobs and what is waited for are called in messages.

Knows what a greenlet and a job look like. Knows no hub.
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MethodType

import greenlet

from greenswitch.hub.carriers import Job

_FUNCTIONS = FunctionType, BuiltinFunctionType, MethodType
_MOST = 200  # characters of a repr
_FEW = 5  # of several things that are waited for


def describe(one: greenlet.greenlet) -> str:
    """Return how to call `one` in a message: the job that it carries, or the greenlet itself."""
    job = getattr(one, "job", None)
    if job is not None:
        return brief(job)
    if one.parent is None:
        return "main greenlet"
    return f"greenlet {getattr(one, 'name', None) or hex(id(one))}"


def brief(target: object) -> str:
    """Return a job's label, a function's name, else the repr of `target`, not too long; never raise.

    A job's repr would not do: it says what it waits for, and may go in circles.
    """
    if isinstance(target, Job):
        return target.label
    if isinstance(target, greenlet.greenlet):
        return describe(target)
    if isinstance(target, _FUNCTIONS):
        return target.__name__
    if isinstance(target, list):
        return f"[{', '.join(few([brief(one) for one in target[:_FEW]], len(target)))}]"
    try:
        text = repr(target)
    except Exception as error:
        text = f"<{type(target).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"


def few(shown: list[str], number: int) -> list[str]:
    """Return `shown`, and how many are left out if there are `number` of them."""
    return shown if number <= len(shown) else [*shown, f"and {number - len(shown):,} more"]
