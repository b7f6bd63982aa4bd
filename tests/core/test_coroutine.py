"""Coroutine: states, values, who resumed it, and errors that coach."""

import contextvars
import gc
import re
import threading
import weakref

import greenlet as raw
import pytest

from greenswitch.core import Coroutine, current, hand_back
from greenswitch.errors import GreenswitchError, SwitchError


def in_thread(function):
    """Run a function in another thread; return its result or raise its exception."""
    outcome = []

    def run():
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="elsewhere")
    thread.start()
    thread.join()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def test_states_follow_a_life_from_new_to_finished():
    seen = []

    def life():
        seen.append(co.state)
        hand_back()

    co = Coroutine(life)
    assert co.state == "new"
    co.switch()
    assert co.state == "suspended"
    co.switch()
    assert seen == ["running"]
    assert co.state == "finished"


def test_first_switch_passes_arguments_and_later_ones_pass_a_value():
    def life(a, b, *, c):
        got = [a, b, c]
        got.append(hand_back("first"))
        got.append(hand_back("second"))
        return got

    co = Coroutine(life)
    assert co.switch(1, 2, c=3) == "first"
    assert co.switch(4) == "second"
    assert co.switch() == [1, 2, 3, 4, None]
    assert co.value == [1, 2, 3, 4, None]
    assert co.exception is None


def test_value_is_none_until_finished():
    co = Coroutine(lambda: hand_back() or 7)
    assert co.value is None
    co.switch()
    assert co.value is None
    co.switch()
    assert co.value == 7


def test_failure_is_raised_in_the_parent_and_kept():
    def fail():
        raise ValueError("broken")

    co = Coroutine(fail)
    with pytest.raises(ValueError, match="broken") as caught:
        co.switch()
    assert co.state == "failed"
    assert co.exception is caught.value
    assert co.value is None
    assert repr(co) == "<Coroutine 'fail' failed: ValueError('broken')>"


def test_throw_raises_at_the_line_where_it_stands():
    def life():
        try:
            hand_back()
        except KeyError as error:
            return f"caught {error.args[0]}"

    co = Coroutine(life)
    co.switch()
    assert co.throw(KeyError("x")) == "caught x"
    assert co.state == "finished"


def test_throw_takes_a_class_and_keeps_the_cause():
    co = Coroutine(lambda: hand_back())
    co.switch()
    with pytest.raises(LookupError):
        co.throw(LookupError)
    assert isinstance(co.exception, LookupError)

    other = Coroutine(lambda: hand_back())
    other.switch()
    error = ValueError("effect")
    error.__cause__ = OSError("cause")
    with pytest.raises(ValueError) as caught:
        other.throw(error)
    assert isinstance(caught.value.__cause__, OSError)


def test_throw_into_a_new_one_fails_it_without_running_it():
    ran = []
    co = Coroutine(lambda: ran.append(1))
    with pytest.raises(ValueError, match="too early"):
        co.throw(ValueError("too early"))
    assert (co.state, ran) == ("failed", [])
    assert str(co.exception) == "too early"


def test_throw_refuses_what_is_no_exception_and_changes_nothing():
    co = Coroutine(lambda: hand_back())
    co.switch()
    with pytest.raises(TypeError, match="needs an exception, not 'boom'"):
        co.throw("boom")
    with pytest.raises(TypeError, match="needs an exception"):
        co.throw(int)
    assert co.state == "suspended"


@pytest.mark.parametrize("started", [True, False])
def test_greenlet_exit_is_an_end_and_no_failure(started):
    ended = []

    def life():
        try:
            hand_back()
        finally:
            ended.append(True)

    co = Coroutine(life)
    if started:
        co.switch()
    back = co.throw(raw.GreenletExit)
    assert isinstance(back, raw.GreenletExit)
    assert (co.state, co.exception) == ("finished", None)
    assert co.value is back
    assert ended == [True] * started


def test_switch_to_a_finished_one_is_refused_and_tells_where_its_result_is():
    co = Coroutine(lambda: 5, name="five")
    co.switch()
    with pytest.raises(SwitchError, match=r"'five' finished: 5>: it has ended, and its result is in \.value"):
        co.switch()


def test_switch_to_a_failed_one_is_refused_and_tells_where_its_exception_is():
    co = Coroutine(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        co.switch()
    with pytest.raises(SwitchError, match=r"its exception is in \.exception"):
        co.switch()
    with pytest.raises(SwitchError, match="can't throw into"):
        co.throw(ValueError)


def test_switch_to_itself_is_refused():
    co = Coroutine(lambda: co.switch(1), name="selfish")
    with pytest.raises(SwitchError, match=r"can't switch to <Coroutine 'selfish' running.*nobody to leave"):
        co.switch()
    with pytest.raises(SwitchError, match=r"can't throw into .*Raise the exception"):
        current().throw(ValueError)


def test_switch_from_another_thread_is_refused_and_names_the_owner():
    co = Coroutine(lambda: 1)
    with pytest.raises(SwitchError, match=r"belongs to thread 'MainThread'.*queue.Queue"):
        in_thread(co.switch)
    with pytest.raises(SwitchError, match="can't throw into"):
        in_thread(lambda: co.throw(ValueError))
    assert co.state == "new"
    assert co.switch() == 1


def test_switch_to_one_of_a_thread_that_has_ended_is_refused():
    co = in_thread(lambda: Coroutine(lambda: 1))
    with pytest.raises(SwitchError, match="belongs to thread 'elsewhere'"):
        co.switch()


def test_wrong_first_switch_is_explained_and_leaves_it_new():
    def talk(conn, addr):
        return conn, addr

    co = Coroutine(talk, name="talker")
    with pytest.raises(SwitchError, match=r"first switch to 'talker' calls talk\(conn, addr\).*\('only'\)"):
        co.switch("only")
    with pytest.raises(SwitchError, match="missing a required argument: 'conn'") as caught:
        co.switch()
    assert isinstance(caught.value.__cause__, TypeError)
    assert co.state == "new"
    assert co.switch(1, 2) == (1, 2)


def test_type_error_inside_the_function_is_its_own():
    co = Coroutine(lambda: len(3))
    with pytest.raises(TypeError, match="has no len"):
        co.switch()
    assert co.state == "failed"


def test_a_builtin_without_a_signature_can_be_run():
    assert Coroutine(max).switch(3, 9) == 9


def test_later_switch_with_several_values_is_refused():
    co = Coroutine(lambda: hand_back())
    co.switch()
    with pytest.raises(SwitchError, match=r"passes one value, not 2.*Pass a tuple"):
        co.switch(1, 2)
    with pytest.raises(SwitchError, match="passes one value, not 1"):
        co.switch(key=1)
    assert co.switch((1, 2)) == (1, 2)


def test_coroutine_of_no_function_is_refused():
    with pytest.raises(TypeError, match="pass the function itself, don't call it"):
        Coroutine(print("x", end=""))


def test_switch_errors_are_greenswitch_errors_and_runtime_errors():
    assert issubclass(SwitchError, GreenswitchError)
    assert issubclass(SwitchError, RuntimeError)


def test_repr_tells_where_it_stands_and_who_resumed_it():
    def stand():
        hand_back()

    co = Coroutine(stand, name="stander")
    assert repr(co) == "<Coroutine 'stander' new>"
    co.switch()
    line = stand.__code__.co_firstlineno + 1
    assert repr(co) == f"<Coroutine 'stander' suspended at test_coroutine.py:{line}, resumed by 'main'>"
    assert co.where.function == "stand"
    co.switch()
    assert co.where is None


def test_repr_of_a_running_one_tells_the_line_that_asks():
    co = Coroutine(lambda: repr(co), name="me")
    assert re.fullmatch(r"<Coroutine 'me' running at test_coroutine\.py:\d+, resumed by 'main'>", co.switch())


def test_resumed_by_is_the_last_one_who_switched_to_it():
    co = Coroutine(lambda: [hand_back() for _ in range(3)])
    assert co.resumed_by is None
    co.switch()
    assert co.resumed_by.greenlet is raw.getcurrent()
    names = []

    def resume():
        co.switch()  # hand_back in co leads here
        names.append(co.resumed_by.name)

    helper = Coroutine(resume, name="helper")
    helper.switch()
    assert names == ["helper"]


def test_resumed_by_is_forgotten_when_a_raw_greenlet_resumes():
    co = Coroutine(lambda: [hand_back(), main.switch()])
    main = raw.getcurrent()
    co.switch()
    co.greenlet.switch()
    assert co.state == "suspended"
    assert co.resumed_by is None
    assert "resumed by" not in repr(co)


def test_resumed_by_holds_nobody_alive():
    co = Coroutine(lambda: main.switch("stopped"))
    main = current()
    helper = Coroutine(lambda: co.switch(), name="helper")
    assert helper.switch() == "stopped"
    helper.throw(raw.GreenletExit)
    ghost = weakref.ref(helper.greenlet)
    del helper
    gc.collect()
    assert ghost() is None
    assert co.resumed_by is None
    assert "resumed by 'helper'" in repr(co)


def test_hand_back_works_at_any_call_depth():
    def dive(depth):
        return hand_back("deep") if depth == 0 else dive(depth - 1)

    co = Coroutine(dive)
    assert co.switch(20) == "deep"
    assert co.switch("up") == "up"


def test_hand_back_goes_to_the_resumer_and_not_to_the_parent():
    log = []
    inner = Coroutine(lambda: log.append(hand_back("to outer")), name="inner")
    outer = Coroutine(lambda: log.append(inner.switch()), name="outer")
    outer.switch()
    assert log == ["to outer"]
    assert inner.parent.name == "main"


def test_hand_back_without_a_resumer_is_refused():
    with pytest.raises(SwitchError, match=r"can't hand back.*other\.switch\(value\)"):
        raw.greenlet(hand_back).switch()


def test_hand_back_to_one_that_has_ended_is_refused():
    def life():
        hand_back()
        outer.throw(raw.GreenletExit)  # ends in main, which comes back by a raw switch
        hand_back()

    inner = Coroutine(life, name="inner", parent=current())
    outer = Coroutine(lambda: [inner.switch(), inner.switch()], name="outer")
    outer.switch()
    assert (outer.state, inner.state) == ("finished", "suspended")
    with pytest.raises(SwitchError, match="can't hand back: no Coroutine that is still there resumed it"):
        inner.greenlet.switch()


def test_values_pass_straight_between_coroutines():
    log = []

    def ping(ball):
        while ball < 4:
            log.append(("ping", ball))
            ball = pong.switch(ball + 1)
        return ball

    def pong_body(ball):
        while True:
            log.append(("pong", ball))
            ball = one.switch(ball + 1)

    one, pong = Coroutine(ping), Coroutine(pong_body)
    assert one.switch(0) == 4
    assert log == [("ping", 0), ("pong", 1), ("ping", 2), ("pong", 3)]
    assert pong.state == "suspended"
    pong.throw(raw.GreenletExit)


def test_result_goes_to_the_given_parent():
    got = []
    parent = Coroutine(lambda: got.append(child.switch()) or "parent's", name="up")
    child = Coroutine(lambda: "child's", parent=parent)
    assert child.parent is parent
    assert parent.switch() == "parent's"
    assert got == ["child's"]


def test_raw_greenlets_and_coroutines_switch_to_each_other():
    main = raw.getcurrent()
    log = []

    def raw_body():
        log.append(co.switch("from raw"))
        main.switch("done")

    green = raw.greenlet(raw_body)
    co = Coroutine(lambda value: green.switch(value.upper()))
    assert green.switch() == "done"
    assert log == ["FROM RAW"]
    green.throw()
    co.throw(raw.GreenletExit)


def test_of_adopts_a_raw_greenlet_and_checks_its_first_switch():
    green = raw.greenlet(lambda a: a + 1)
    co = Coroutine.of(green)
    assert co.greenlet is green
    with pytest.raises(SwitchError, match="first switch"):
        co.switch()
    assert co.switch(1) == 2
    assert co.state == "finished"


def test_current_is_the_same_object_inside():
    co = Coroutine(lambda: current())
    assert co.switch() is co
    assert Coroutine.of(co) is co
    assert Coroutine.of(co.greenlet) is co
    assert current().name == "main"
    assert current().parent is None


def test_of_refuses_what_is_no_greenlet():
    with pytest.raises(TypeError, match="expected a greenlet"):
        Coroutine.of(3)


def test_dropping_a_suspended_one_runs_its_finally_blocks_at_once():
    ended = []

    def life():
        try:
            hand_back()
        finally:
            ended.append(True)

    co = Coroutine(life)
    co.switch()
    gc.disable()  # freed by its last reference, not by the collector
    try:
        del co
        assert ended == [True]
    finally:
        gc.enable()


def test_a_view_made_again_knows_the_outcome():
    co = Coroutine(lambda: 9, name="nine")
    green = co.greenlet
    del co
    green.switch()
    again = Coroutine.of(green)
    assert (again.name, again.state, again.value) == ("nine", "finished", 9)


def test_system_exit_and_keyboard_interrupt_reach_the_parent():
    def leave(error):
        raise error

    for kind in (SystemExit, KeyboardInterrupt):
        co = Coroutine(leave)
        with pytest.raises(kind):
            co.switch(kind())
        assert isinstance(co.exception, kind)


def test_many_can_be_suspended_at_once():
    crowd = [Coroutine(lambda n: hand_back(n) + n) for _ in range(2000)]
    assert [co.switch(n) for n, co in enumerate(crowd)] == list(range(2000))
    assert sum(co.switch(1) for co in crowd) == 2000 + sum(range(2000))


def test_context_variables_are_copied_from_the_maker_once():
    colour = contextvars.ContextVar("colour", default="none")
    token = colour.set("red")
    co = Coroutine(lambda: [colour.get(), colour.set("blue") and hand_back(), colour.get()])
    colour.set("green")
    co.switch()
    assert colour.get() == "green"
    assert co.switch() == ["red", None, "blue"]
    colour.reset(token)


def test_the_main_greenlet_of_another_thread_is_refused():
    foreign = in_thread(raw.getcurrent)
    with pytest.raises(SwitchError, match=r"<Coroutine 'main' .*belongs to another thread"):
        Coroutine.of(foreign).switch()


def test_arguments_may_have_any_name():
    names = {"self": 1, "leave": 2, "function": 3, "record": 4}
    assert Coroutine(lambda **given: given).switch(**names) == names
