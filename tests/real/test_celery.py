"""Celery's per-task values in a patched process: a task sees its own, and never what an earlier one has left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow
Script = Callable[..., str]

LOCALS = """
from celery.utils.threads import Local, LocalStack
import threading

def in_threads(function, numbers):
    for number in numbers:
        thread = threading.Thread(target=function, args=(number,))
        thread.start()
        thread.join()

def in_tasks(function, numbers):
    for number in numbers:
        greenswitch.spawn(function, number).get()
"""


@pytest.mark.parametrize("way", ["in_threads", "in_tasks"])
def test_what_a_thread_leaves_in_a_local_is_not_seen_by_a_later_one(way: str, script: Script):
    pytest.importorskip("celery")
    script(LOCALS + f"""
values, stack, seen = Local(), LocalStack(), []

def leave(number):
    values.secret = f"secret of user {{number}}"
    stack.push(number)

def look(number):
    seen.append((getattr(values, "secret", None), stack.top))

{way}(leave, range(5))
{way}(look, range(5))
assert seen == [(None, None)] * 5, seen
""")


def test_threads_that_run_at_once_each_have_their_own_stack(script: Script):
    pytest.importorskip("celery")
    script(LOCALS + """
stack = LocalStack()

def use(number):
    stack.push(number)
    time.sleep(0.2)
    stack.push(-number)
    time.sleep(0)
    return stack.pop(), stack.pop(), stack.top

assert at_once(use, range(30)) == [(-number, number, None) for number in range(30)]
""")
