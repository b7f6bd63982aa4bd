"""The stepper over programs that switch by hand."""

import gc
import io
import sys
import threading
import time
import weakref

import greenlet as raw
import pytest

from greenswitch.core import Coroutine, Stepper, emit, hand_back, iterate, relay
from greenswitch.errors import SwitchError


def stepping_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stepper of")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    until = time.monotonic() + 5
    while stepping_threads() and time.monotonic() < until:
        time.sleep(0.001)
    assert stepping_threads() == []
    assert type(sys.stdout).__name__ != "_Exchanged" and type(sys.stderr).__name__ != "_Exchanged"


def titles(steps):
    return [step.title for step in steps]


def restaurant():
    def waiter(order):
        while True:
            order = guest.switch(f"here is your {order}")

    def eat():
        for dish in ("soup", "fish"):
            print(kitchen.switch(dish))
        return "thanks"

    guest, kitchen = Coroutine(eat, name="guest"), Coroutine(waiter, name="kitchen")
    said = guest.switch()
    kitchen.throw(raw.GreenletExit)
    return said


# --- what a step says -------------------------------------------------------------------------------------------------


def test_each_step_says_who_left_whom_for_whom_and_what_crossed(capsys):
    stepper = Stepper(restaurant)
    assert titles(stepper) == [
        "main → guest",
        "guest → kitchen, passes order='soup'",
        "kitchen → guest, passes 'here is your soup'",
        "guest → kitchen, passes 'fish'",
        "kitchen → guest, passes 'here is your fish'",
        "guest → main, passes 'thanks'",
        "main → kitchen, throws GreenletExit()",
        "kitchen → main, passes GreenletExit()",
        "main returns 'thanks': the program has ended",
    ]
    assert stepper.finish() == "thanks"
    assert capsys.readouterr().out == "here is your soup\nhere is your fish\n"


def test_a_step_shows_the_lines_that_it_leads_from_and_to_and_where_the_others_stand():
    with Stepper(restaurant) as stepper:
        step = stepper.run(3)[-1]
        first = restaurant.__code__.co_firstlineno
        assert (step.left.where, step.entered.where) == (f"test_stepper.py:{first + 3}", f"test_stepper.py:{first + 7}")
        assert str(step) == (
            "step 3: kitchen → guest, passes 'here is your soup'\n"
            f"  kitchen  switches away  test_stepper.py:{first + 3}  "
            'order = guest.switch(f"here is your {order}")\n'
            f"  guest    goes on        test_stepper.py:{first + 7}  print(kitchen.switch(dish))\n"
            f"  suspended  main  test_stepper.py:{first + 11}  said = guest.switch()"
        )


def test_raw_greenlets_are_called_by_their_functions_and_numbered():
    steps = list(Stepper(relay.round_robin, ["ab", "c"]))
    assert [step.entered.name for step in steps[:4]] == ["take", "main", "take #2", "main"]
    assert steps[0].passed == "sequence='ab'"
    assert steps[-1].left.did == "returns ['a', 'c', 'b']"
    assert [side.name for side in steps[4].suspended] == ["main", "take #2"]


def test_a_greenlets_own_name_is_used():
    def program():
        green = raw.greenlet(lambda: 1)
        green.name = "reader"
        return green.switch()

    assert titles(Stepper(program)) == [
        "main → reader", "reader → main, passes 1", "main returns 1: the program has ended"
    ]


def test_an_exception_is_shown_where_it_was_raised_and_crosses_to_the_parent():
    def fail():
        try:
            raise ValueError("caught before")
        except ValueError:
            pass
        try:
            raise KeyError("tea")
        finally:
            list(range(3))

    def program():
        try:
            raw.greenlet(fail).switch()
        except KeyError as error:
            return str(error)

    last = list(Stepper(program))[1]
    assert (last.left.did, last.left.source) == ("raises KeyError('tea')", 'raise KeyError("tea")')
    assert last.title == "fail → main, throws KeyError('tea')" and last.thrown


def test_an_exception_that_a_function_has_caught_is_not_its_end():
    def recover():
        try:
            raise ValueError("caught")
        except ValueError:
            return 5

    assert list(Stepper(lambda: raw.greenlet(recover).switch()))[1].left.did == "returns 5"


def test_what_is_thrown_is_shown():
    def wait():
        try:
            main.switch()
        except ValueError:
            return "survived"

    def program():
        global main
        main = raw.getcurrent()
        green = raw.greenlet(wait)
        green.switch()
        return green.throw(ValueError("now"))

    step = list(Stepper(program))[2]
    assert (step.title, step.entered.did) == ("main → wait, throws `ValueError('now')`", "gets it")


def test_a_greenlet_that_dies_of_a_throw_before_it_started_is_told():
    def program():
        with pytest.raises(ValueError):
            raw.greenlet(restaurant).throw(ValueError)

    steps = list(Stepper(program))
    assert [step.entered.did for step in steps[:-1]] == ["gets it, and ends", "gets it"]


def test_a_greenlet_of_a_builtin_function_is_told():
    steps = list(Stepper(lambda: raw.greenlet(len).switch("four")))
    assert [step.left.name for step in steps] == ["main", "a new greenlet", "main"]
    assert steps[-1].left.did == "returns 4"


def test_iterations_and_hand_back_are_stepped_through_without_our_own_lines():
    def program():
        shouting = Coroutine(lambda: hand_back("x"), name="one")
        shouting.switch()
        found = [*iterate(lambda: emit(1))]
        shouting.throw(raw.GreenletExit)
        return found

    steps = list(Stepper(program))
    places = {side.where.partition(":")[0] for step in steps for side in (step.left, step.entered) if side}
    assert places <= {"test_stepper.py", ""}
    assert steps[-1].left.did == "returns [1]"


def test_a_greenlet_that_is_dropped_is_seen_to_end_and_is_not_kept_alive():
    ended = []

    def wait():
        try:
            raw.getcurrent().parent.switch()
        finally:
            ended.append(True)

    def program():
        green = raw.greenlet(wait)
        green.switch()
        del green
        return list(ended)

    stepper = Stepper(program)
    steps = list(stepper)
    assert stepper.finish() == [True]
    assert [step.left.did for step in steps if step.left.name == "wait"][-1] == "is ended by GreenletExit"


def test_under_a_debugger_starts_are_told_without_their_lines():
    with Stepper(debugged) as stepper:
        steps = list(stepper)
    assert steps[0].left.name == "main" and steps[-1].left.did == "returns 3"


def debugged():
    sys.settrace(lambda *args: None)
    try:
        return raw.greenlet(lambda: 3).switch()
    finally:
        sys.settrace(None)


# --- going on ---------------------------------------------------------------------------------------------------------


def test_run_and_until_stop_where_they_are_told_and_at_the_end():
    with Stepper(relay.ping_pong, 3) as stepper:
        assert stepper.run(0) == stepper.run(0) and not stepper.run(0)
        assert len(stepper.run(2)) == 2
        assert stepper.until("main")[-1].left.did == "returns None"
        assert stepper.until(lambda step: step.thrown)[-1].title == "main → play_pong, throws GreenletExit"
        assert stepper.run(100)[-1].ended and not stepper.run(1) and not list(stepper)
        assert [step.number for step in stepper.steps] == list(range(1, len(stepper.steps) + 1))


def test_finish_raises_the_programs_exception_each_time_with_its_lines():
    def program():
        raw.greenlet(int).switch("no number")

    stepper = Stepper(program)
    for _ in range(2):
        with pytest.raises(ValueError, match="no number") as caught:
            stepper.finish()
        assert any(entry.name == "program" for entry in caught.traceback)
    assert "raises ValueError" in stepper.steps[-1].left.did
    with pytest.raises(SwitchError, match="call finish") as refused:
        stepper.step()
    assert isinstance(refused.value.__cause__, ValueError)


def test_an_exit_of_the_program_ends_the_program_only():
    stepper = Stepper(sys.exit, 3)
    assert stepper.step().left.did == "raises SystemExit(3)"
    with pytest.raises(SystemExit):
        stepper.finish()


def test_the_program_has_the_context_and_the_arguments_of_its_maker():
    assert Stepper(lambda *args, **kwargs: (args, kwargs), 1, key=2).finish() == ((1,), {"key": 2})


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="don't call it yourself"):
        Stepper(3)


def test_several_steppers_do_not_disturb_each_other(capsys):
    one, two = Stepper(restaurant), Stepper(relay.ping_pong, 2)
    seen = [(one.step().number, two.step().number) for _ in range(4)]
    assert seen == [(n, n) for n in range(1, 5)]
    assert (one.finish(), len(two.finish())) == ("thanks", 4)


class Stream(io.StringIO):
    """Notes which threads write to it: Jupyter shows a text under the cell whose thread has written it."""

    def __init__(self):
        super().__init__()
        self.writers = set()

    def write(self, text):
        self.writers.add(threading.get_ident())
        return super().write(text)


def test_what_the_program_prints_is_printed_by_whoever_steps(monkeypatch):
    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    stepper = Stepper(restaurant)
    stepper.run(3)
    assert stream.getvalue() == ""
    stepper.step()
    assert stream.getvalue() == "here is your soup\n"
    stepper.close()
    assert sys.stdout is stream and stream.writers == {threading.get_ident()}


def test_what_finally_blocks_print_is_printed_by_whoever_closes(monkeypatch):
    def program():
        try:
            print("begun")
            while True:
                pass
        finally:
            print("ended")

    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    with Stepper(program) as stepper:
        with pytest.raises(TimeoutError):
            stepper.step(timeout=0.05)
    assert stream.getvalue() == "begun\nended\n" and stream.writers == {threading.get_ident()}


def test_a_greenlet_that_is_being_let_go_is_not_held_by_the_stepper():
    counts = []

    def child():
        try:
            raw.getcurrent().parent.switch()
        finally:  # to hold it now would bring it back to life
            counts.append(sys.getrefcount(raw.getcurrent()))

    def program():
        one = raw.greenlet(child)
        one.switch()
        del one

    program()
    Stepper(program).finish()
    assert len(counts) == 2 and counts[0] == counts[1]


def test_a_program_may_step_through_another_and_all_is_printed_by_who_steps_the_outer_one(monkeypatch):
    def program():
        inner = Stepper(restaurant)
        return len(inner.run(100))

    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    assert Stepper(program).finish() == 9 and stream.getvalue() == "here is your soup\nhere is your fish\n"
    assert sys.stdout is stream and stream.writers == {threading.get_ident()}


def test_other_threads_print_as_ever_meanwhile(monkeypatch):
    def elsewhere():
        print("elsewhere")
        event.set()

    event, stream = threading.Event(), Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    other = threading.Thread(target=elsewhere)
    Stepper(lambda: (other.start(), event.wait(5))).finish()
    other.join()
    assert stream.getvalue() == "elsewhere\n" and threading.get_ident() not in stream.writers


def test_another_users_trace_function_in_the_stepping_thread_is_left_alone():
    calls = []
    previous = raw.settrace(lambda event, ends: calls.append(event))
    try:
        assert len(Stepper(relay.ping_pong, 2).finish()) == 4
    finally:
        raw.settrace(previous)
    assert calls == []


def test_a_trace_function_that_passes_on_is_called_as_well():
    calls = []

    def program():
        previous = raw.gettrace()

        def trace(event, ends):
            calls.append(event)
            previous(event, ends)

        raw.settrace(trace)
        return relay.ping_pong(1)

    assert len(Stepper(program).run(100)) == len(calls) + 1


# --- a program that blocks --------------------------------------------------------------------------------------------


def test_a_step_that_takes_too_long_says_where_the_program_is_and_can_be_waited_for_again():
    event = threading.Event()

    def program():
        event.wait(10)
        return raw.greenlet(lambda: 7).switch()

    with Stepper(program) as stepper:
        with pytest.raises(TimeoutError, match=r"no switch within 0.05 s: 'main' still runs, at test_stepper.py"):
            stepper.step(timeout=0.05)
        event.set()
        assert stepper.step().number == 1 and stepper.finish() == 7


def test_the_line_in_which_a_program_computes_is_named():
    def spin():
        while True:
            pass

    stepper = Stepper(lambda: raw.greenlet(spin).switch())
    stepper.step()
    with pytest.raises(TimeoutError, match=r"'spin' still runs, at test_stepper.py:\d+ in spin: (while True:|pass)"):
        stepper.step(timeout=0.05)
    stepper.close()  # which reaches it all the same


def test_an_interrupted_step_is_told_by_the_next_call():
    stepper = Stepper(relay.ping_pong, 2)
    stepper.step()
    append, interrupts = stepper._steps.append, [KeyboardInterrupt]

    class Interrupting:
        def __getattr__(self, name):
            return getattr(kept, name)

        def append(self, step):
            if interrupts:
                raise interrupts.pop()
            append(step)

        def __iter__(self):
            return iter(kept)

    kept, stepper._steps = stepper._steps, Interrupting()
    with pytest.raises(KeyboardInterrupt):
        stepper.step()
    stepper._steps = kept
    assert stepper.step().number == 2 and stepper.step().number == 3
    stepper.close()


def test_stepping_from_two_threads_or_from_inside_is_refused():
    def program():
        with pytest.raises(SwitchError, match="from inside its own program"):
            stepper.step()
        event.wait(10)

    event, stepper = threading.Event(), Stepper(program)
    first = threading.Thread(target=stepper.step)
    first.start()
    try:
        while not stepper._using.locked():
            time.sleep(0.001)
        with pytest.raises(SwitchError, match="another thread is using it"):
            stepper.step()
    finally:
        event.set()
        first.join()
    assert stepper.finish() is None


def test_green_threads_are_refused(monkeypatch):
    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    monkeypatch.setattr(threading, name, lambda *args: None)
    with pytest.raises(SwitchError, match="monkey-patched"):
        Stepper(restaurant).step()


# --- ending early -----------------------------------------------------------------------------------------------------


def waits_for_ever(ended):
    def wait():
        try:
            raw.getcurrent().parent.switch()
        finally:
            ended.append("wait")

    green = raw.greenlet(wait)
    try:
        while True:
            green.switch()
            raw.greenlet(lambda: None).switch()
    finally:
        ended.append("main")


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_closing_runs_the_finally_blocks_of_all_wherever_it_stands(steps):
    ended = []
    stepper = Stepper(waits_for_ever, ended)
    stepper.run(steps)
    stepper.close()
    stepper.close()
    assert sorted(ended) == (["main", "wait"] if steps > 1 else ["main"])
    assert repr(stepper) == "<Stepper of waits_for_ever closed>"
    with pytest.raises(SwitchError, match="closed"):
        stepper.step()
    with pytest.raises(SwitchError, match="no result"):
        stepper.finish()


def test_what_is_left_suspended_at_the_end_is_ended_too():
    ended = []

    def program():
        def wait():
            try:
                main.switch()
            finally:
                ended.append("wait")

        main = raw.getcurrent()
        left.append(raw.greenlet(wait))
        left[0].switch()

    left = []
    Stepper(program).finish()
    assert ended == ["wait"] and left[0].dead


def test_a_dropped_stepper_ends_its_program():
    ended = []
    stepper = Stepper(waits_for_ever, ended)
    stepper.run(3)
    gone = weakref.ref(stepper)
    del stepper
    gc.collect()
    assert gone() is None
    until = time.monotonic() + 5
    while stepping_threads() and time.monotonic() < until:
        time.sleep(0.001)
    assert sorted(ended) == ["main", "wait"]


def test_a_dropped_stepper_ends_a_program_that_computes_for_ever():
    def spin():
        try:
            while True:
                pass
        finally:
            ended.append(True)

    ended, stepper = [], Stepper(spin)
    with pytest.raises(TimeoutError):
        stepper.step(timeout=0.01)
    del stepper
    until = time.monotonic() + 5
    while not ended and time.monotonic() < until:
        time.sleep(0.001)
    assert ended


def test_one_that_was_never_started_has_nothing_to_end():
    with Stepper(restaurant):
        pass
    assert stepping_threads() == []


def test_closing_raises_what_a_finally_block_raises():
    def program():
        try:
            raw.greenlet(lambda: None).switch()
        finally:
            raise ValueError("in finally")

    stepper = Stepper(program)
    stepper.step()
    with pytest.raises(ValueError, match="in finally"):
        stepper.close()


@pytest.mark.slow
def test_closing_one_that_blocks_says_where_and_leaves_the_thread_to_end_later():
    event = threading.Event()

    def program():
        try:
            raw.greenlet(lambda: None).switch()
        finally:
            event.wait()

    stepper = Stepper(program)
    stepper.step()
    with pytest.raises(TimeoutError, match=r"still runs at test_stepper.py:\d+ in program: event.wait"):
        stepper.close()
    event.set()


# --- how it looks -----------------------------------------------------------------------------------------------------


def test_steps_are_printed_as_a_table():
    stepper = Stepper(restaurant)
    assert str(stepper) == "<Stepper of restaurant not started>"
    lines = str(stepper.run(2)).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["1:", "2:"]
    assert lines[0].index("→ test") == lines[1].index("→ test")
    assert str(stepper) == str(stepper.steps[-1]) and str(stepper.run(0)) == "no steps"
    assert repr(stepper) == "<Stepper of restaurant after guest → kitchen, passes order='soup'>"
    stepper.close()


def test_html_says_the_same_and_escapes_what_programs_say():
    def program():
        return raw.greenlet(lambda text: f"<b>{text}</b>").switch("<i>&")

    stepper = Stepper(program)
    assert "not started" in stepper._repr_html_()
    page = stepper.run(2)[-1]._repr_html_()
    assert "&lt;b&gt;&lt;i&gt;&amp;" in page and "<i>&" not in page
    assert stepper._repr_html_() == page and "<style" not in page
    assert stepper.steps._repr_html_().count("<tr") == 2
    assert stepper.finish() == "<b><i>&</b>"


def test_a_terminal_under_ipython_shows_the_text():
    class Printer:
        def text(self, text):
            self.shown = text

    printer, stepper = Printer(), Stepper(restaurant)
    for shown in (stepper.step(), stepper.steps, stepper):
        shown._repr_pretty_(printer, False)
        assert printer.shown == str(shown)
    stepper.close()
