"""Random programs of nested deadlines, shields, handlers and kills do what a model of a page does.

A program is data. One interpreter runs it in two worlds: the real one, in virtual time, and a model that knows neither
hub nor greenlet, only when each deadline is due. Both must leave the same trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from greenlet import GreenletExit

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

import greenswitch
from greenswitch.errors import ScopeError
from greenswitch.testing import VirtualTime, left_behind
from greenswitch.timeouts import move_on_after, shield, timeout

# A program is a list of steps; a step is a tuple of its name and what belongs to it.
Step = tuple[Any, ...]

SECONDS = st.integers(1, 6)
DEADLINE = st.one_of(st.none(), st.integers(-1, 8))


def steps(body: st.SearchStrategy[list[Step]]) -> st.SearchStrategy[Step]:
    return st.one_of(
        st.tuples(st.just("timeout"), DEADLINE, body),
        st.tuples(st.just("move_on_after"), DEADLINE, body),
        st.tuples(st.just("shield"), body),
        st.tuples(st.just("catch"), body),
        st.tuples(st.just("finally"), body, body),
        st.tuples(st.just("swallow"), body),
    )


SIMPLE = st.one_of(
    st.tuples(st.just("sleep"), SECONDS),
    st.tuples(st.just("reschedule"), st.integers(0, 2), DEADLINE),
    st.tuples(st.just("cancel"), st.integers(0, 2)),
)
PROGRAM = st.recursive(
    st.lists(SIMPLE, max_size=3),
    lambda body: st.lists(st.one_of(SIMPLE, steps(body)), min_size=1, max_size=3),
    max_leaves=12,
)


class World:
    """Where a program runs: its clock, its wait and its scopes. And what has happened there."""

    sleep: Callable[[float], None]
    now: Callable[[], float]
    scopes: dict[str, Callable[..., Any]]

    def __init__(self) -> None:
        self.trace: list[tuple[Any, ...]] = []
        self.open: list[Any] = []

    def note(self, *what: object) -> None:
        self.trace.append((self.now(), *what))

    def run(self, program: list[Step]) -> None:
        for step in program:
            self.note("begin", step[0])
            getattr(self, f"do_{step[0]}")(*step[1:])
            self.note("end", step[0])

    def do_sleep(self, seconds: float) -> None:
        self.sleep(seconds)

    def do_timeout(self, seconds: float | None, body: list[Step]) -> None:
        self._within(self.scopes["timeout"](seconds), body)

    def do_move_on_after(self, seconds: float | None, body: list[Step]) -> None:
        self._within(self.scopes["move_on_after"](seconds), body)

    def _within(self, scope: AbstractContextManager[Any], body: list[Step]) -> None:
        self.open.append(scope)
        try:
            with scope:
                self.run(body)
        finally:
            self.open.remove(scope)
            self.note("expired", scope.expired)  # type: ignore[attr-defined]

    def do_shield(self, body: list[Step]) -> None:
        with self.scopes["shield"]():
            self.run(body)

    def do_catch(self, body: list[Step]) -> None:
        try:
            self.run(body)
        except TimeoutError:
            self.note("caught")

    def do_swallow(self, body: list[Step]) -> None:
        try:
            self.run(body)
        except BaseException:
            self.note("swallowed")

    def do_finally(self, body: list[Step], cleanup: list[Step]) -> None:
        try:
            self.run(body)
        finally:
            self.run(cleanup)

    def do_reschedule(self, depth: int, seconds: float | None) -> None:
        if depth < len(self.open):
            try:
                self.open[-1 - depth].reschedule(seconds)
            except ScopeError:
                self.note("refused")

    def do_cancel(self, depth: int) -> None:
        if depth < len(self.open):
            self.open[-1 - depth].cancel()

    def outcome(self, program: list[Step]) -> list[tuple[Any, ...]]:
        try:
            self.run(program)
        except (TimeoutError, GreenletExit) as error:
            self.note("raised", type(error).__name__)
        return self.trace


class RealWorld(World):
    scopes = {"timeout": timeout, "move_on_after": move_on_after, "shield": shield}

    def __init__(self) -> None:
        super().__init__()
        self.sleep = greenswitch.sleep
        self.now = VirtualTime()
        self.hub = self.now.hub()

    def execute(self, program: list[Step], kill_at: float | None) -> list[tuple[Any, ...]]:
        with self.hub as hub:
            task = greenswitch.spawn(self.outcome, program)
            if kill_at is not None:
                killer = hub.timers.add(kill_at, lambda: task.kill(block=False))
            trace = task.get()
            if kill_at is not None:
                killer.cancel()
            assert left_behind(hub) == [] and not hub.shields and not hub.interrupts
        return trace  # type: ignore[no-any-return]


# -- the model ---------------------------------------------------------------------------------------------------------


class Interrupt(BaseException):
    """A deadline's or the killer's, in the model."""


class ModelWorld(World):
    def __init__(self, kill_at: float | None) -> None:
        super().__init__()
        self.time = 0.0
        self.count = 0
        self.pending: list[tuple[BaseException, float]] = []
        self.shields: list[ModelShield] = []
        # When, its place among those due at the same time, its number for the shields, and what then interrupts.
        self.due: list[tuple[float, float, float, Callable[[], BaseException]]] = []
        self.scopes = {
            "timeout": lambda seconds: ModelScope(self, seconds, quiet=False),
            "move_on_after": lambda seconds: ModelScope(self, seconds, quiet=True),
            "shield": lambda: ModelShield(self),
        }
        if kill_at is not None:
            self.due.append((kill_at, 0, 0, GreenletExit))

    def now(self) -> float:  # type: ignore[override]
        return self.time

    def number(self) -> int:
        self.count += 1
        return self.count

    def sleep(self, seconds: float) -> None:  # type: ignore[override]
        self.meet()
        end = self.time + seconds
        while self.due and min(self.due)[0] <= end:
            self.time = min(self.due)[0]
            # What the sleep waits for is there before the deadlines of that time, though not before the killer.
            batch = sorted(one for one in self.due if one[0] == self.time and (self.time < end or one[1] == 0))
            if not batch:
                break
            for one in batch:
                self.due.remove(one)
                self.interrupt(one[3](), one[2])
            self.meet()
        self.time = end
        for one in sorted(one for one in self.due if one[0] == end):  # too late for this sleep
            self.due.remove(one)
            self.interrupt(one[3](), one[2])

    def meet(self) -> None:
        if self.pending:
            raise self.pending.pop(0)[0]

    def interrupt(self, error: BaseException, number: float) -> None:
        if self.shields and number < self.shields[-1].number:
            self.shields[-1].kept.append((error, number))
        else:
            self.pending.append((error, number))


class ModelShield:
    def __init__(self, world: ModelWorld) -> None:
        self.world = world

    def __enter__(self) -> None:
        self.number = self.world.number()
        self.kept: list[tuple[BaseException, float]] = [(error, math.inf) for error, _ in self.world.pending]
        self.world.pending.clear()
        self.world.shields.append(self)

    def __exit__(self, *_: object) -> None:
        assert self.world.shields.pop() is self
        for error, number in self.kept:
            self.world.interrupt(error, number)


class ModelScope:
    def __init__(self, world: ModelWorld, seconds: float | None, quiet: bool) -> None:
        self.world = world
        self.seconds = seconds
        self.quiet = quiet
        self.error: Interrupt | None = None
        self.timer: Any = None

    @property
    def expired(self) -> bool:
        return self.error is not None

    def __enter__(self) -> None:
        self.number = self.world.number()
        self.set(self.seconds, self.number)

    def set(self, seconds: float | None, order: int) -> None:
        if seconds is None:
            return
        if seconds <= 0:
            self.world.interrupt(self.expire(), self.number)
        else:
            self.timer = (self.world.time + seconds, order, self.number, self.expire)
            self.world.due.append(self.timer)

    def expire(self) -> Interrupt:
        self.error = Interrupt()
        return self.error

    def disarm(self) -> None:
        if self.timer in self.world.due:
            self.world.due.remove(self.timer)
        for waiting in (self.world.pending, *(one.kept for one in self.world.shields)):
            if any(error is self.error for error, _ in waiting):
                waiting[:] = [one for one in waiting if one[0] is not self.error]
                self.error = None

    def reschedule(self, seconds: float | None) -> None:
        self.disarm()
        if self.error is not None:
            raise ScopeError
        self.set(seconds, self.world.number())

    def cancel(self) -> None:
        self.disarm()

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        self.disarm()
        if error is None or error is not self.error:
            return False
        if self.quiet:
            return True
        raise TimeoutError


@settings(max_examples=400, deadline=None)
@given(program=PROGRAM, kill_at=st.one_of(st.none(), st.integers(1, 12)))
def test_any_program_of_deadlines_shields_and_a_kill_runs_as_in_the_model(
    program: list[Step], kill_at: int | None
) -> None:
    assert RealWorld().execute(program, kill_at) == ModelWorld(kill_at).outcome(program)


def test_model_knows_what_everybody_knows() -> None:
    program: list[Step] = [
        ("catch", [("timeout", 3, [("shield", [("move_on_after", 2, [("sleep", 5)]), ("sleep", 4)]), ("sleep", 1)])])
    ]
    trace = ModelWorld(None).outcome(program)
    assert trace[-2:] == [(6, "caught"), (6, "end", "catch")] and (2, "expired", True) in trace
    assert ModelWorld(None).outcome([("timeout", 1, [("sleep", 1)])])[-1] == (1, "end", "timeout")
