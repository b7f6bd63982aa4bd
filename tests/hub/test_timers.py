"""Timers, as data: no hub, no greenlet, no clock."""

from __future__ import annotations

import math
import random

import pytest

from greenswitch.hub import Timers


def fire(timers: Timers, now: float) -> None:
    for callback, args in timers.pop_due(now):
        callback(*args)


def test_timers_fire_earliest_first_and_equal_ones_in_the_order_they_were_added() -> None:
    timers, fired = Timers(), list[str]()
    for when, name in [(2.0, "c"), (1.0, "a"), (2.0, "d"), (1.0, "b")]:
        timers.add(when, fired.append, name)
    fire(timers, 5.0)
    assert fired == ["a", "b", "c", "d"]
    assert len(timers) == 0


def test_timer_never_fires_early_and_fires_at_its_very_time() -> None:
    timers, fired = Timers(), list[str]()
    timers.add(1.0, fired.append, "x")
    fire(timers, math.nextafter(1.0, 0.0))
    assert fired == []
    fire(timers, 1.0)
    fire(timers, 2.0)
    assert fired == ["x"]


def test_next_due_is_the_earliest_live_one() -> None:
    timers = Timers()
    assert timers.next_due() is None
    early, late = timers.add(1.0, print), timers.add(2.0, print)
    assert timers.next_due() == 1.0
    early.cancel()
    assert timers.next_due() == 2.0
    late.cancel()
    assert timers.next_due() is None


def test_cancelled_timer_never_fires_and_cancelling_again_changes_nothing() -> None:
    timers, fired = Timers(), list[str]()
    timer = timers.add(1.0, fired.append, "x")
    assert timer.active
    timer.cancel()
    timer.cancel()
    assert (timer.active, len(timers)) == (False, 0)
    fire(timers, 2.0)
    timer.cancel()
    assert (fired, len(timers)) == ([], 0)


def test_cancelling_after_it_fired_changes_nothing() -> None:
    timers = Timers()
    timer = timers.add(1.0, print)
    other = timers.add(9.0, print)
    assert len(timers.pop_due(1.0)) == 1
    timer.cancel()
    assert (timer.active, other.active, len(timers)) == (False, True, 1)


def test_nan_is_refused_and_infinity_never_comes() -> None:
    timers = Timers()
    with pytest.raises(ValueError, match="NaN"):
        timers.add(math.nan, print)
    timers.add(math.inf, print)
    assert timers.next_due() == math.inf
    assert timers.pop_due(1e300) == []
    assert len(timers) == 1


def test_cancelled_ones_take_no_room_for_long() -> None:
    timers = Timers()
    kept = [timers.add(1e9 + n, print) for n in range(10)]
    for n in range(100_000):
        timers.add(float(n), print).cancel()
        assert len(timers._heap) < 200
    assert len(timers) == 10
    for timer in kept:
        timer.cancel()
    assert len(timers) == 0


def test_callback_that_cancels_others_in_its_batch_does_no_harm() -> None:
    timers, fired = Timers(), list[int]()
    many = [timers.add(1.0, lambda n=n: (fired.append(n), [timer.cancel() for timer in many])) for n in range(200)]
    fire(timers, 1.0)
    assert fired == list(range(200))
    assert len(timers) == 0


def test_cancelled_timer_lets_its_callback_and_arguments_go() -> None:
    timers = Timers()
    held: list[object] = [object()]
    timer = timers.add(1.0, held.append, held)
    timer.cancel()
    assert timer.args == ()
    assert timer.callback is None


def test_clear_cancels_all() -> None:
    timers = Timers()
    some = [timers.add(float(n), print) for n in range(100)]
    some[0].cancel()
    timers.clear()
    some[1].cancel()
    assert (len(timers), timers.next_due()) == (0, None)
    assert not any(timer.active for timer in some)


def test_timers_agree_with_a_plain_list_whatever_is_added_and_cancelled() -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    rng = random.Random(seed)
    timers, fired, expected = Timers(), list[int](), list[int]()
    live: dict[int, tuple[float, object]] = {}
    now = 0.0
    for number in range(5_000):
        when = now + rng.choice([0.0, 1.0, rng.random() * 10])
        live[number] = (when, timers.add(when, fired.append, number))
        for victim in rng.sample(sorted(live), min(len(live), rng.choice([0, 0, 1, 3]))):
            live.pop(victim)[1].cancel()  # type: ignore[attr-defined]
        if rng.random() < 0.05:
            now += rng.random() * 5
            due = sorted((when, number) for number, (when, _) in live.items() if when <= now)
            expected += [number for _, number in due]
            for _, number in due:
                del live[number]
            fire(timers, now)
            assert fired == expected
        assert len(timers) == len(live)
        assert timers.next_due() == min((when for when, _ in live.values()), default=None)


def test_repr_says_when_and_what_for() -> None:
    timers = Timers()
    timer = timers.add(1.5, fire)
    assert repr(timer) == "<Timer at 1.500000 for fire>"
    timer.cancel()
    assert repr(timer) == "<Timer at 1.500000, fired or cancelled>"
