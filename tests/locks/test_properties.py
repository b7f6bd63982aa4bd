"""Random programs of acquire, release, time-out and kill, against a model that one can read.

Time is virtual, so a program of many seconds runs in no time and always in the same way. The first test draws its
programs from a printed seed; the second has hypothesis draw and shrink them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from greenlet import GreenletExit

import greenswitch
from greenswitch.hub import has_hub
from greenswitch.locks import BoundedSemaphore, Lock, RLock, Semaphore
from greenswitch.testing import VirtualTime, left_behind

MAKERS: dict[str, tuple[Callable[[], Any], int]] = {
    "Lock": (Lock, 1),
    "RLock": (RLock, 1),
    "Semaphore(1)": (Semaphore, 1),
    "Semaphore(2)": (lambda: Semaphore(2), 2),
    "BoundedSemaphore(3)": (lambda: BoundedSemaphore(3), 3),
}


@dataclass(frozen=True)
class Plan:
    """What one task does: arrive, wait at most `patience`, hold the lock for so long; somebody kills it at `killed`.

    Arrivals are whole seconds, the rest is of different small fractions, so that no two things happen at the same time
    but arrivals; those go in the order of the plans.
    """

    arrives: int
    patience: int | None
    holds: int
    killed: int | None


@dataclass
class Model:
    """Who gets the lock, when: a list of those who wait, and a count of what is free."""

    free: int
    line: list[int] = field(default_factory=list)
    holding: set[int] = field(default_factory=set)
    got: list[tuple[int, float]] = field(default_factory=list)
    late: list[int] = field(default_factory=list)

    def run(self, plans: list[Plan]) -> None:
        events: list[tuple[float, int, str, int]] = []
        for number, plan in enumerate(plans):
            events.append((plan.arrives, number, "arrive", number))
            if plan.killed is not None:
                events.append((kill_time(plan, number), number, "kill", number))
        while events:
            events.sort()
            now, _, what, number = events.pop(0)
            for woken in getattr(self, what)(number, plans[number], now, events):
                self.got.append((woken, now))
                self.holding.add(woken)
                events.append((now + hold_time(plans[woken], woken), woken, "leave", woken))

    def arrive(self, number: int, plan: Plan, now: float, events: list[Any]) -> list[int]:
        if self.free:
            self.free -= 1
            return [number]
        self.line.append(number)
        if plan.patience is not None:
            events.append((now + patience(plan, number), number, "give_up", number))
        return []

    def give_up(self, number: int, *_: Any) -> list[int]:
        if number in self.line:
            self.line.remove(number)
            self.late.append(number)
        return []

    def kill(self, number: int, *rest: Any) -> list[int]:
        if number in self.line:
            self.line.remove(number)
        return self.leave(number, *rest)

    def leave(self, number: int, *_: Any) -> list[int]:
        if number not in self.holding:
            return []
        self.holding.remove(number)
        if self.line:
            return [self.line.pop(0)]
        self.free += 1
        return []


def kill_time(plan: Plan, number: int) -> float:
    assert plan.killed is not None
    return plan.killed + (number + 1) / 1024


def patience(plan: Plan, number: int) -> float:
    assert plan.patience is not None
    return plan.patience + (number + 1) / 65536


def hold_time(plan: Plan, number: int) -> float:
    return plan.holds + (number + 1) / 4194304


def really(make: Callable[[], Any], plans: list[Plan]) -> tuple[list[tuple[int, float]], list[int], list[str]]:
    """Run the plans; return who got it when, who gave up, and what is left behind."""
    time = VirtualTime()
    lock, got, late = make(), [], []

    def body(number: int, plan: Plan) -> None:
        if not (lock.acquire() if plan.patience is None else lock.acquire(timeout=patience(plan, number))):
            late.append(number)
            return
        try:
            got.append((number, time()))
            greenswitch.sleep(hold_time(plan, number))
        finally:
            lock.release()

    with time.hub() as hub:
        tasks = [greenswitch.spawn_later(plan.arrives, body, number, plan) for number, plan in enumerate(plans)]
        for number, plan in enumerate(plans):
            if plan.killed is not None:
                hub.call_at(kill_time(plan, number), tasks[number].kill, GreenletExit, False)
        greenswitch.joinall(tasks, raise_error=True)
        greenswitch.sleep(100)  # the kills that came too late
        left = left_behind(hub)
        if not lock.ready() or lock._line:
            left.append(repr(lock))
        if isinstance(lock, Semaphore):
            assert lock.value == make().value
    assert not has_hub()
    return got, late, left


def check(kind: str, plans: list[Plan]) -> None:
    make, free = MAKERS[kind]
    # One that is killed before it arrives never runs; in the model it never comes.
    coming = [plan for plan in plans if plan.killed is None or plan.killed >= plan.arrives]
    model = Model(free)
    model.run(coming)
    got, late, left = really(make, coming)
    assert got == model.got
    assert late == model.late
    assert left == []
    assert model.free == free and not model.line


def random_plan(chance: random.Random) -> Plan:
    return Plan(
        arrives=chance.randrange(8),
        patience=chance.choice([None, None, 0, 1, 2, 5]),
        holds=chance.randrange(5),
        killed=chance.choice([None, None, None, *range(12)]),
    )


@pytest.mark.parametrize("kind", MAKERS)
def test_random_programs_go_as_the_model_says(kind: str) -> None:
    seed = random.randrange(1 << 32)
    print("seed:", seed)
    chance = random.Random(seed)
    for _ in range(60):
        check(kind, [random_plan(chance) for _ in range(chance.randrange(1, 12))])


def test_hypothesis_finds_no_program_that_differs_from_the_model() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    some = hypothesis.strategies
    plan = some.builds(
        Plan,
        arrives=some.integers(0, 6),
        patience=some.none() | some.integers(0, 5),
        holds=some.integers(0, 4),
        killed=some.none() | some.integers(0, 12),
    )

    @hypothesis.settings(max_examples=150, deadline=None, database=None)
    @hypothesis.given(kind=some.sampled_from(sorted(MAKERS)), plans=some.lists(plan, max_size=10))
    def agrees(kind: str, plans: list[Plan]) -> None:
        check(kind, plans)

    agrees()
