"""Context stacks: frames and parents of any greenlet, as data and as text."""

import dataclasses
import threading

import greenlet as raw
import pytest

from greenswitch.core import ContextStack, Coroutine, Frame, context_stack, emit, frames, hand_back, iterate, parents


def outer():
    middle()


def middle():
    inner()


def inner():
    hand_back()  # the place


PLACE = inner.__code__.co_firstlineno + 1


@pytest.fixture
def suspended():
    co = Coroutine(outer, name="diver")
    co.switch()
    yield co
    if co.state == "suspended":
        co.throw(raw.GreenletExit)


def test_frames_run_from_caller_to_callee(suspended):
    assert [frame.function for frame in frames(suspended)] == ["outer", "middle", "inner"]
    innermost = frames(suspended)[-1]
    assert innermost == Frame("inner", __file__, PLACE)
    assert innermost.where == f"test_stacks.py:{PLACE}"
    assert innermost.source == "hand_back()  # the place"


def test_a_raw_greenlet_is_read_as_well():
    main = raw.getcurrent()

    def deep():
        main.switch()

    green = raw.greenlet(lambda: deep())
    green.switch()
    assert [frame.function for frame in frames(green)] == ["<lambda>", "deep"]
    assert [frame.function for frame in frames(Coroutine.of(green))] == ["<lambda>", "deep"]
    green.throw()


def test_an_iteration_is_read_as_well():
    def produce():
        emit(1)

    items = iterate(produce)
    next(items)
    assert [frame.function for frame in frames(items)] == ["produce"]
    assert context_stack(items).name == "produce"
    items.close()


def test_new_and_finished_ones_have_no_frames():
    co = Coroutine(lambda: None)
    assert frames(co) == ()
    assert context_stack(co).state == "new"
    co.switch()
    assert frames(co) == ()
    assert context_stack(co).state == "finished"


def test_the_running_one_is_read_up_to_whoever_asks():
    co = Coroutine(lambda: context_stack(co), name="reader")
    stack = co.switch()
    assert stack.state == "running"
    assert [frame.function for frame in stack.frames] == ["<lambda>"]
    assert stack.parent.state == "suspended"
    assert stack.parent.frames[-1].function == "test_the_running_one_is_read_up_to_whoever_asks"


def test_parents_run_up_to_main():
    chain = []
    main = raw.getcurrent()

    def nest(depth):
        if depth < 0:
            main.switch()
        co = Coroutine(nest, name=f"level {depth}")
        chain.append(co)
        co.switch(depth - 1)

    nest(2)
    lowest = chain[-1]
    stack = context_stack(lowest)
    assert [up.name for up in stack.parents] == ["level 1", "level 2", "main"]
    assert [up.state for up in stack.parents] == ["suspended", "suspended", "running"]
    assert lowest.name == "level 0"
    assert parents(lowest) == (chain[1].greenlet, chain[0].greenlet, raw.getcurrent())
    assert parents(raw.getcurrent()) == ()


def test_text_tells_both_chains(suspended):
    text = str(context_stack(suspended))
    head, _, rest = text.partition("its parent 'main' is running")
    lines = head.splitlines()
    assert lines[0] == "'diver' is suspended"
    assert lines[-1] == f"    inner  test_stacks.py:{PLACE}  hand_back()  # the place"
    assert len(lines) == 4
    assert "test_text_tells_both_chains" in rest


def test_text_can_be_limited_to_the_innermost_frames(suspended):
    lines = context_stack(suspended).text(limit=1).splitlines()
    assert lines[:3] == [
        "'diver' is suspended",
        "    ... 2 more callers",
        f"    inner  test_stacks.py:{PLACE}  hand_back()  # the place",
    ]
    assert len(lines) == 6
    assert context_stack(suspended).text(limit=0).splitlines()[:2] == ["'diver' is suspended", "    ... 3 more callers"]


def test_a_snapshot_stays_as_it_was(suspended):
    stack = context_stack(suspended)
    suspended.switch()
    assert stack.state == "suspended"
    assert len(stack.frames) == 3
    assert frames(suspended) == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stack.name = "other"


def test_data_are_plain_and_compare(suspended):
    assert context_stack(suspended).frames == context_stack(suspended).frames
    assert isinstance(context_stack(suspended), ContextStack)
    assert dataclasses.asdict(frames(suspended)[-1]) == {"function": "inner", "file": __file__, "line": PLACE}


def test_a_name_can_be_given_to_a_raw_greenlet():
    green = raw.greenlet(lambda: None)
    assert context_stack(green).name == f"greenlet at {id(green):#x}"
    green.name = "nameless no more"
    assert context_stack(green).name == "nameless no more"


def test_a_suspended_greenlet_of_another_thread_can_be_read():
    ready, leave = threading.Event(), threading.Event()
    made = []

    def run():
        co = Coroutine(outer, name="abroad")
        co.switch()
        made.append(co.greenlet)
        del co
        ready.set()
        leave.wait(10)
        made.pop().throw()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(10)
    stack = context_stack(made[0])
    leave.set()
    thread.join()
    assert (stack.name, stack.state, len(stack.frames)) == ("abroad", "suspended", 3)
    assert stack.parent.state == "running"


def test_what_is_no_greenlet_is_refused():
    with pytest.raises(TypeError, match="expected a greenlet, or something with one"):
        context_stack("diver")
