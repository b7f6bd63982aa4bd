"""Deadlines and shields: who is interrupted, where, by whose token, and who has won when both come at once."""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import greenlet
import pytest

import greenswitch
from greenswitch import sleep, spawn, spawn_later
from greenswitch.errors import DeadlockError, HubError, ScopeError
from greenswitch.hub import Hub, Waiter
from greenswitch.locks import Event
from greenswitch.testing import VirtualTime
from greenswitch.timeouts import Token, move_on_after, shield, timeout, unswallowable

pytestmark = pytest.mark.usefixtures("hub")

# -- one deadline ------------------------------------------------------------------------------------------------------


def test_block_that_takes_too_long_raises_timeout_error_on_time(time: VirtualTime) -> None:
    with pytest.raises(TimeoutError, match="within 2 seconds") as caught, timeout(2) as scope:
        sleep(10)
    assert time() == 2 and scope.expired
    assert isinstance(caught.value.__cause__, Token), "the cause shows where the block was waiting"


def test_block_that_ends_in_time_leaves_nothing(hub: Hub, time: VirtualTime) -> None:
    with timeout(2) as scope:
        sleep(1)
        assert scope.deadline == 2 and len(hub.timers) == 1
    assert not scope.expired and len(hub.timers) == 0
    sleep(5)
    assert time() == 6


def test_move_on_after_leaves_the_block_quietly_and_says_so(time: VirtualTime) -> None:
    with move_on_after(2) as scope:
        sleep(10)
    assert scope.expired and time() == 2
    with move_on_after(2) as scope:
        sleep(1)
    assert not scope.expired and time() == 3


def test_deadline_of_a_block_that_never_waits_is_never_heard_of(time: VirtualTime) -> None:
    for seconds in (0, -1, 1e-9):
        with timeout(seconds) as scope:
            time.now += 1
        assert not scope.expired
    sleep(1)


@pytest.mark.parametrize("seconds", [0, -5, -math.inf])
def test_deadline_that_has_passed_strikes_at_the_first_wait(seconds: float, time: VirtualTime) -> None:
    seen = []
    with pytest.raises(TimeoutError), timeout(seconds) as scope:
        seen.append("what needs no waiting is done")
        assert scope.expired
        sleep(1)
        seen.append("never")
    assert len(seen) == 1 and time() == 0


@pytest.mark.parametrize("seconds", [None, math.inf])
def test_no_deadline_is_no_deadline(seconds: float | None, time: VirtualTime) -> None:
    with timeout(seconds) as scope:
        sleep(1e6)
        assert scope.deadline is None
    assert not scope.expired and time() == 1e6


@pytest.mark.parametrize("seconds", [math.nan, "1"])
def test_what_is_no_number_of_seconds_is_refused(seconds: float) -> None:
    with pytest.raises((ValueError, TypeError)), timeout(seconds):
        pass


def test_exceptions_of_the_block_pass_and_disarm_it(hub: Hub) -> None:
    for scope in (timeout(1), move_on_after(1)):
        with pytest.raises(KeyError), scope:
            raise KeyError
        assert not scope.expired
    assert len(hub.timers) == 0


def test_timeout_error_of_the_block_itself_is_not_the_deadlines(time: VirtualTime) -> None:
    mine = TimeoutError("mine")
    with pytest.raises(TimeoutError) as caught, move_on_after(5) as scope:
        raise mine
    assert caught.value is mine and not scope.expired


# -- the result and the deadline at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.5, 1, 1.5])
@pytest.mark.parametrize("promised", ["before", "inside"])
def test_result_that_comes_at_the_time_of_the_deadline_has_come_in_time(
    seconds: float, promised: str, hub: Hub, time: VirtualTime
) -> None:
    event = Event()
    if promised == "before":
        hub.timers.add(seconds, event.set)
    with move_on_after(1) as scope:
        if promised == "inside":
            hub.timers.add(seconds, event.set)
        event.wait()
    assert scope.expired is (seconds > 1) and time() == min(seconds, 1)
    sleep(1)


def test_sleep_as_long_as_its_deadline_is_not_interrupted(time: VirtualTime) -> None:
    with timeout(3), timeout(2):
        sleep(1)
        with timeout(1):
            sleep(1)
    assert time() == 2


def test_result_that_is_ready_is_kept_and_the_deadline_strikes_at_the_next_wait(hub: Hub, time: VirtualTime) -> None:
    event = Event()
    hub.timers.add(1.0, event.set)
    seen = []
    with move_on_after(1) as scope:
        event.wait()
        seen.append(scope.expired)
        sleep(1)
        seen.append("never")
    assert seen == [True] and scope.expired and time() == 1


def test_token_that_was_not_met_does_not_strike_after_the_block(hub: Hub, time: VirtualTime) -> None:
    event = Event()
    hub.timers.add(1.0, event.set)
    with timeout(1) as scope:
        event.wait()
    assert not scope.expired
    sleep(1)
    assert time() == 2 and not hub.interrupts


def test_kill_and_deadline_at_once_both_arrive(hub: Hub) -> None:
    def work() -> None:
        with move_on_after(1):
            sleep(10)
        seen.append("moved on")
        sleep(10)
        seen.append("never")

    seen: list[str] = []
    task = spawn(work)
    sleep(0)
    hub.timers.add(1.0, lambda: task.kill(block=False))
    task.join()
    assert task.state == "killed" and seen in ([], ["moved on"])


# -- nested ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outer", "inner"), [(1, 2), (2, 1), (1, 1), (0, 0), (0, 1), (1, 0), (None, 1), (1, None)])
def test_nested_scopes_each_claim_their_own(outer: float | None, inner: float | None, time: VirtualTime) -> None:
    ended = []
    with move_on_after(outer) as around:
        with move_on_after(inner) as within:
            sleep(10)
        ended.append("inner")
        sleep(10)
        ended.append("outer")
    first = min(one for one in (outer, inner) if one is not None)
    if inner is not None and (outer is None or inner < outer):
        assert within.expired and ended[0] == "inner"
        assert around.expired is (outer is not None)
    elif inner == outer:
        assert around.expired and "outer" not in ended
    else:
        assert ended == [] and around.expired and not within.expired
    assert time() == (first + 10 if outer is None else outer)


def test_handler_of_timeout_error_further_in_does_not_stop_the_outer_deadline(time: VirtualTime) -> None:
    swallowed = []
    with pytest.raises(TimeoutError, match="within 1 seconds"), timeout(1):
        try:
            with timeout(5):
                sleep(10)
        except TimeoutError:
            swallowed.append("not ours")
    assert swallowed == [] and time() == 1


def test_scopes_left_in_another_order_than_entered_still_know_their_own(time: VirtualTime) -> None:
    first, second = timeout(1), move_on_after(2)
    first.__enter__()
    second.__enter__()
    assert first.__exit__(None, None, None) is None
    try:
        sleep(10)
    except Token as token:
        assert second.__exit__(Token, token, None)
    assert second.expired and not first.expired and time() == 2


def test_expiry_inside_finally_interrupts_its_wait(time: VirtualTime) -> None:
    cleaned = []
    with pytest.raises(TimeoutError), timeout(2):
        try:
            sleep(1)
            raise KeyError("lost by the deadline, kept as context")
        finally:
            sleep(5)
            cleaned.append("never")
    assert cleaned == [] and time() == 2


def test_finally_may_wait_once_the_deadline_has_struck(time: VirtualTime) -> None:
    cleaned = []
    with pytest.raises(TimeoutError), timeout(1):
        try:
            sleep(5)
        finally:
            sleep(3)
            cleaned.append(time())
    assert cleaned == [4]


def test_swallowed_token_leaves_the_block_running_and_only_expired_tells(time: VirtualTime) -> None:
    with timeout(1) as scope:
        try:
            sleep(5)
        except BaseException:  # what a careless library does
            pass
        sleep(5)
    assert scope.expired and time() == 6


def test_exception_that_replaces_the_token_is_the_one_raised(time: VirtualTime) -> None:
    with pytest.raises(KeyError) as caught, timeout(1) as scope:
        try:
            sleep(5)
        finally:
            raise KeyError("from finally")
    assert scope.expired and isinstance(caught.value.__context__, Token)


def test_deadline_of_one_task_does_not_touch_the_others(time: VirtualTime) -> None:
    def patient() -> float:
        sleep(5)
        return time()

    task = spawn(patient)
    with move_on_after(1) as scope:
        task.join()
    assert scope.expired and task.state == "parked" and task.get() == 5


def test_token_that_escapes_says_whose_it_is() -> None:
    def forgets_to_leave() -> None:
        timeout(1).__enter__()
        sleep(5)

    task = spawn(forgets_to_leave)
    task.join()
    assert isinstance(task.exception, Token) and "own `with`" in str(task.exception)


def test_deadline_that_an_ended_task_left_open_strikes_no_other_task(hub: Hub, time: VirtualTime) -> None:
    def forgets_to_leave() -> None:
        timeout(1).__enter__()

    def innocent() -> str:
        sleep(5)
        return "unharmed"

    spawn(forgets_to_leave).get()
    assert spawn(innocent).get() == "unharmed" and time() == 5


# -- moving it ---------------------------------------------------------------------------------------------------------


def test_deadline_can_be_put_off_brought_forward_and_taken_away(time: VirtualTime) -> None:
    with move_on_after(2) as scope:
        sleep(1)
        scope.reschedule(3)
        assert scope.deadline == 4
        sleep(2)
        scope.reschedule(0.5)
        assert scope.deadline == 3.5
        scope.cancel()
        assert scope.deadline is None
        sleep(10)
        scope.reschedule(1)
        sleep(10)
    assert scope.expired and time() == 14


def test_deadline_is_moved_by_another_task(time: VirtualTime) -> None:
    with move_on_after(2) as scope:
        spawn(scope.reschedule, 1)
        sleep(10)
    assert scope.expired and time() == 1
    with move_on_after(None) as scope:
        spawn(scope.reschedule, -1)
        sleep(10)
    assert scope.expired and time() == 1


def test_expiry_not_met_yet_is_taken_back_by_moving_it(hub: Hub, time: VirtualTime) -> None:
    for take_back in (lambda: scope.reschedule(5), lambda: scope.cancel()):
        event = Event()
        hub.timers.add(time() + 1, event.set)
        with timeout(1) as scope:
            event.wait()
            assert scope.expired
            take_back()
            sleep(2)
        assert not scope.expired


def test_deadline_that_has_struck_cannot_be_moved() -> None:
    with move_on_after(1) as scope:
        try:
            sleep(5)
        finally:
            with pytest.raises(ScopeError, match="already"):
                scope.reschedule(5)
            scope.cancel()
    assert scope.expired


def test_moving_it_outside_of_the_block_is_refused() -> None:
    scope = timeout(5)
    assert scope.deadline is None and "not entered" in repr(scope)
    with pytest.raises(ScopeError, match="inside its `with`"):
        scope.reschedule(1)
    scope.cancel()
    with scope:
        assert "open" in repr(scope)
    with pytest.raises(ScopeError, match="inside its `with`"):
        scope.reschedule(1)


# -- misuse ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: timeout(5), lambda: move_on_after(5), lambda: timeout(None), shield])
def test_scope_is_entered_once(make: Callable[[], timeout]) -> None:
    scope = make()
    with scope, pytest.raises(ScopeError, match="entered before"), scope:
        pass
    with pytest.raises(ScopeError, match="entered before"), scope:
        pass


@pytest.mark.parametrize("make", [lambda: timeout(5), lambda: timeout(None), shield])
def test_leaving_in_another_task_is_refused_and_both_are_named(make: Callable[[], timeout], hub: Hub) -> None:
    def rows() -> Iterator[int]:
        with make():
            yield 1
            yield 2

    def begin() -> None:
        next(generator)
        Event().wait()

    generator = rows()
    beginner = spawn(begin)
    beginner.name = "beginner"
    sleep(0)

    def finish() -> None:
        with pytest.raises(ScopeError, match=r"beginner.*finisher"):
            list(generator)

    finisher = spawn(finish)
    finisher.name = "finisher"
    finisher.get()
    assert len(hub.timers) == 0 and not hub.shields
    beginner.kill()


def test_scope_in_a_callback_is_harmless_as_nothing_waits_there(hub: Hub) -> None:
    seen = []

    def callback() -> None:
        with timeout(0) as scope:
            seen.append(scope)
        with shield():
            seen.append(None)

    hub.call_soon(callback)
    sleep(0)
    assert len(seen) == 2


# -- where -------------------------------------------------------------------------------------------------------------


def test_raw_greenlet_has_deadlines(hub: Hub, time: VirtualTime) -> None:
    def wait() -> None:
        with move_on_after(1) as scope:
            sleep(5)
        seen.append((scope.expired, time()))

    seen: list[tuple[bool, float]] = []
    hub.call_soon(greenlet.greenlet(wait, hub.greenlet).switch)
    sleep(2)
    assert seen == [(True, 1)]


def test_another_thread_has_deadlines_of_its_own() -> None:
    def work() -> None:
        seen.append(greenswitch.run(wait, hub=time.hub()))

    def wait() -> float:
        with move_on_after(1):
            sleep(5)
        return time()

    seen: list[float] = []
    time = VirtualTime()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [1]


def test_deadlocked_block_waits_for_its_deadline_and_then_the_deadlock_is_found(time: VirtualTime) -> None:
    with move_on_after(1) as scope:
        Event().wait()
    assert scope.expired
    with pytest.raises(DeadlockError), timeout(None), shield():
        Event().wait()


def test_a_hundred_thousand_deadlines_leave_no_memory(hub: Hub) -> None:
    for _ in range(100_000):
        with timeout(10):
            pass
    assert len(hub.timers) == 0 and len(hub.timers._heap) < 100


def test_expired_scope_keeps_nothing_of_the_block_alive() -> None:
    class Big:
        pass

    def block() -> timeout:
        big = Big()
        with move_on_after(1) as scope:
            sleep(5)
        assert big
        return scope

    scope = block()
    gc.collect()
    assert scope.expired and not [one for one in gc.get_objects() if type(one) is Big]


def test_many_open_deadlines_come_in_the_order_of_their_times(time: VirtualTime) -> None:
    def work(seconds: float) -> None:
        with move_on_after(seconds):
            sleep(1000)
        ended.append((time(), seconds))

    ended: list[tuple[float, float]] = []
    delays = [(number * 37) % 101 + 1 for number in range(100)]
    greenswitch.joinall([spawn(work, seconds) for seconds in delays])
    assert ended == sorted(ended) and all(when == seconds for when, seconds in ended) and len(ended) == 100


# -- shields -----------------------------------------------------------------------------------------------------------


def test_shielded_block_is_killed_after_it_has_ended(time: VirtualTime) -> None:
    seen = []

    def work() -> None:
        with shield():
            sleep(5)
            seen.append("committed")
        seen.append("nothing waits here")
        sleep(5)
        seen.append("never")

    task = spawn(work)
    sleep(1)
    task.kill()
    assert seen == ["committed", "nothing waits here"] and task.state == "killed" and time() == 5


def test_shielded_task_that_waits_no_more_ends_with_its_result() -> None:
    def work() -> str:
        with shield():
            sleep(5)
        return "done"

    task = spawn(work)
    sleep(1)
    task.kill()
    assert task.state == "done" and task.value == "done"


def test_deadline_from_outside_waits_for_the_shield_to_end(time: VirtualTime) -> None:
    with move_on_after(1) as scope:
        with shield():
            sleep(5)
        assert time() == 5
        sleep(5)
    assert scope.expired and time() == 5


def test_deadline_from_outside_is_forgotten_if_nothing_waits_after_the_shield(time: VirtualTime) -> None:
    with timeout(1) as scope, shield():
        sleep(5)
    assert not scope.expired and time() == 5
    sleep(1)


def test_deadline_from_outside_that_is_pending_waits_too(time: VirtualTime) -> None:
    with move_on_after(0) as scope:
        with shield():
            sleep(5)
        sleep(5)
    assert scope.expired and time() == 5


def test_deadline_inside_of_the_shield_works(time: VirtualTime) -> None:
    with shield(), move_on_after(1) as scope:
        sleep(5)
    assert scope.expired and time() == 1
    with shield(), move_on_after(0) as scope:
        sleep(5)
    assert scope.expired and time() == 1


def test_nested_shields_let_through_what_was_set_between_them(time: VirtualTime) -> None:
    with move_on_after(1) as outside:
        with shield():
            with move_on_after(2) as between:
                with shield(), move_on_after(3) as inside:
                    sleep(10)
                assert inside.expired and time() == 3
                sleep(10)
            assert between.expired and time() == 3
            sleep(4)
        assert time() == 7
        sleep(10)
    assert outside.expired and time() == 7


def test_pending_interrupt_of_an_inner_deadline_passes_the_outer_shield_again(hub: Hub, time: VirtualTime) -> None:
    with shield():
        with move_on_after(0) as scope:
            with shield():
                sleep(1)
            sleep(10)
        assert scope.expired and time() == 1


def test_shields_left_in_another_order_than_entered_still_hold(time: VirtualTime) -> None:
    def work() -> str:
        first, second = shield(), shield()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        sleep(5)
        second.__exit__(None, None, None)
        sleep(5)
        return "never"

    task = spawn(work)
    sleep(1)
    task.kill()
    assert task.state == "killed" and time() == 5


def test_several_kills_wait_in_order_for_the_shield_to_end() -> None:
    met = []

    def work() -> None:
        with shield():
            sleep(5)
        for _ in range(2):
            try:
                sleep(5)
            except (KeyError, ValueError) as error:
                met.append(type(error))

    task = spawn(work)
    sleep(1)
    task.kill(KeyError, block=False)
    task.kill(ValueError, block=False)
    task.join()
    assert met == [KeyError, ValueError]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_passes_a_shield(error: type[BaseException], hub: Hub, time: VirtualTime) -> None:
    hub.call_later(1, hub.interrupt, hub.main, error())
    with pytest.raises(error), shield():
        sleep(5)
    assert time() == 1


def test_task_that_ends_under_its_shield_does_not_shield_the_next_on_its_carrier(hub: Hub) -> None:
    spawn(lambda: shield().__enter__()).get()
    sleep(0)
    task = spawn(sleep, 5)
    sleep(0)
    task.kill()
    assert task.state == "killed" and not hub.shields


def test_shield_hinders_no_wake_and_no_timeout_of_a_call(time: VirtualTime) -> None:
    event = Event()
    with shield():
        assert not event.wait(1)
        spawn(event.set)
        assert event.wait(5)
    assert time() == 1


def test_hub_still_refuses_to_wait_in_a_scope(hub: Hub) -> None:
    def callback() -> None:
        with timeout(1), pytest.raises(HubError):
            hub.park(Waiter(hub, "never"))
        seen.append(True)

    seen: list[bool] = []
    hub.call_soon(callback)
    sleep(0)
    assert seen == [True]


# -- what is swallowed -------------------------------------------------------------------------------------------------


def swallow() -> None:
    with suppress(BaseException):
        sleep(1000)


def test_a_kill_that_inner_code_swallows_is_raised_when_it_is_asked_for(hub: Hub) -> None:
    def work() -> None:
        with unswallowable() as block:
            swallow()
            steps.append("swallowed")
            block.check()
            steps.append("not reached")

    steps: list[str] = []
    task = spawn(work)
    sleep(0)
    task.kill()
    assert (steps, task.state) == (["swallowed"], "killed")


def test_a_deadline_that_inner_code_swallows_is_raised_at_the_end_of_the_block(hub: Hub) -> None:
    with pytest.raises(TimeoutError):
        with timeout(0.001), unswallowable():
            swallow()


def test_a_kill_and_a_deadline_that_are_swallowed_are_both_raised_in_the_end(hub: Hub) -> None:
    def work() -> None:
        with move_on_after(0.001), unswallowable():
            swallow()
            swallow()
        scopes.append("left")
        sleep(1000)

    scopes: list[str] = []
    task = spawn(work)
    spawn_later(0.002, task.kill, block=False)
    task.join()
    assert (scopes, task.state) == (["left"], "killed")


def test_what_has_not_been_met_and_what_ends_inside_is_not_raised_at_the_end(hub: Hub) -> None:
    def work() -> None:
        with unswallowable() as block:
            with move_on_after(0.001) as inner:
                sleep(1000)
            block.check()
            steps.append(inner.expired)
        steps.append("left")
        sleep(1000)
        steps.append("not reached")

    steps: list[object] = []
    victim = spawn(work)
    spawn_later(0.02, victim.kill, block=False)
    victim.join()
    assert (steps, victim.state) == ([True, "left"], "killed")


def test_a_shield_inside_and_one_outside_still_postpone(hub: Hub) -> None:
    def work() -> None:
        with shield():
            with unswallowable() as block:
                with shield():
                    sleep(0.01)
                steps.append("inner left")
                block.check()
                sleep(0.001)
            steps.append("block left")
        sleep(1000)

    steps: list[str] = []
    task = spawn(work)
    sleep(0)
    task.kill()
    assert (steps, task.state) == (["inner left", "block left"], "killed")
