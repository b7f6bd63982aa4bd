"""iterate: a function that pushes becomes an iterator that is pulled."""

import decimal
import gc
import io
import itertools
import os
import sys
import threading
import weakref
import xml.sax
import xml.sax.handler

import greenlet as raw
import pytest

from greenswitch.core import Coroutine, Iteration, emit, iterate
from greenswitch.errors import SwitchError


def emit_all(items):
    for item in items:
        emit(item)


def test_emit_at_any_call_depth_reaches_the_loop():
    def dive(depth):
        if depth:
            dive(depth - 1)
        emit(depth)

    assert list(iterate(dive, 50)) == list(range(51))


def test_a_push_parser_becomes_a_pull_iterator():
    class Handler(xml.sax.handler.ContentHandler):
        def startElement(self, name, attrs):
            emit(("start", name, dict(attrs)))

        def endElement(self, name):
            emit(("end", name))

    document = io.BytesIO(b'<menu><dish price="3">soup</dish><dish/></menu>')
    events = iterate(xml.sax.parse, document, Handler())
    assert next(events) == ("start", "menu", {})
    assert next(events) == ("start", "dish", {"price": "3"})
    assert list(events) == [("end", "dish"), ("start", "dish", {}), ("end", "dish"), ("end", "menu")]


def test_a_push_parser_reads_no_further_than_it_is_asked():
    class Handler(xml.sax.handler.ContentHandler):
        def startElement(self, name, attrs):
            emit(name)

    class Endless:
        reads = 0

        def read(self, size):
            self.reads += 1 if size else 0  # xml.sax reads nothing once, to see whether it is text
            return b"" if not size else b"<a>" if self.reads == 1 else b"<b/>"

        def close(self):
            self.reads = -self.reads

    document = Endless()
    with iterate(xml.sax.parse, document, Handler()) as names:
        assert list(itertools.islice(names, 3)) == ["a", "b", "b"]
    assert -6 < document.reads < 0, "xml.sax closed it, after a few reads"


def test_a_tree_walk_with_a_visitor_becomes_an_iterator(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "leaf").write_text("")
    (tmp_path / "top").write_text("")

    def visit(folder, found):
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if os.path.isdir(path):
                visit(path, found)
            else:
                found(os.path.relpath(path, tmp_path))

    assert list(iterate(visit, tmp_path, emit)) == [os.path.join("a", "b", "leaf"), "top"]


def test_emit_passes_through_calls_made_by_c():
    assert list(iterate(sorted, [3, 1, 2], key=lambda n: emit(n) or n)) == [3, 1, 2]


def test_function_starts_at_the_first_next_and_runs_only_as_asked():
    log = []

    def count():
        for n in range(3):
            log.append(n)
            emit(n)

    numbers = iterate(count)
    assert log == []
    assert next(numbers) == 0
    assert log == [0]
    assert next(numbers) == 1
    assert log == [0, 1]


def test_it_is_an_iterator_and_stays_exhausted():
    numbers = iterate(emit_all, [1])
    assert iter(numbers) is numbers
    assert list(numbers) == [1]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(numbers)


def test_return_value_is_in_stop_iteration():
    with pytest.raises(StopIteration) as caught:
        next(iterate(lambda: 42))
    assert caught.value.value == 42


def test_any_object_can_be_emitted():
    odd = [None, (), StopIteration(), raw.GreenletExit(), ...]
    assert list(iterate(emit_all, odd)) == odd


def test_items_are_not_kept_after_they_are_taken():
    class Item:
        pass

    def emit_one():
        emit(Item())
        emit("last")

    items = iterate(emit_one)
    ghost = weakref.ref(next(items))
    assert ghost() is None
    assert next(items) == "last"


def test_exceptions_reach_the_consumer_with_their_cause():
    def fail():
        emit(1)
        try:
            raise OSError("cause")
        except OSError as error:
            raise ValueError("effect") from error

    items = iterate(fail)
    assert next(items) == 1
    with pytest.raises(ValueError, match="effect") as caught:
        next(items)
    assert isinstance(caught.value.__cause__, OSError)
    assert "fail" in [entry.name for entry in caught.traceback]
    with pytest.raises(StopIteration):
        next(items)


def test_stop_iteration_from_inside_does_not_end_the_loop_silently():
    with pytest.raises(RuntimeError, match="raised StopIteration: return instead") as caught:
        list(iterate(lambda: next(iter(()))))
    assert isinstance(caught.value.__cause__, StopIteration)


def make_tidy(log):
    def tidy():
        try:
            emit(1)
            emit(2)
            log.append("went on")
        finally:
            log.append("tidied")

    return tidy


def test_close_stops_the_function_and_runs_its_finally_blocks():
    log = []
    items = iterate(make_tidy(log))
    next(items)
    items.close()
    assert log == ["tidied"]
    assert list(items) == []
    items.close()
    assert log == ["tidied"]


def test_close_before_the_first_next_never_runs_it():
    log = []
    items = iterate(make_tidy(log))
    items.close()
    assert list(items) == []
    assert log == []


def test_leaving_a_with_block_closes():
    log = []
    with pytest.raises(LookupError), iterate(make_tidy(log)) as items:
        next(items)
        raise LookupError
    assert log == ["tidied"]


def test_dropping_the_iterator_runs_finally_blocks_at_once():
    log = []
    gc.disable()  # freed by its last reference, not by the collector
    try:
        for item in iterate(make_tidy(log)):
            assert item == 1
            break
        assert log == ["tidied"]
    finally:
        gc.enable()


def test_ending_the_consumer_ends_the_function():
    log = []
    main = raw.getcurrent()

    def consume():
        for _item in iterate(make_tidy(log)):
            main.switch()

    consumer = raw.greenlet(consume)
    consumer.switch()
    assert log == []
    consumer.throw()
    assert log == ["tidied"]


def test_two_iterations_may_ask_each_other_in_turn():
    def first():
        emit("first asks")
        emit(next(two))

    def second():
        emit(next(one))
        emit("second answers")

    one, two = iterate(first), iterate(second)
    assert next(two) == "first asks"
    assert next(one) == "second answers"
    one.close()
    two.close()


def test_close_raises_what_finally_raises():
    def untidy():
        try:
            emit(1)
        finally:
            raise OSError("disk full")

    items = iterate(untidy)
    next(items)
    with pytest.raises(OSError, match="disk full"):
        items.close()
    items.close()


def test_close_refuses_a_function_that_goes_on_emitting():
    def stubborn():
        try:
            emit(1)
        finally:
            emit(2)

    items = iterate(stubborn)
    next(items)
    with pytest.raises(SwitchError, match=r"'stubborn'.* went on emitting after close"):
        items.close()
    items.close()  # the second time, its finally block is through
    assert list(items) == []


def test_emit_outside_is_refused():
    with pytest.raises(SwitchError, match=r"emit\(1\) was called in 'main', which nobody iterates.*iterate\(function"):
        emit(1)


def test_emit_in_a_greenlet_started_by_the_function_is_refused():
    items = iterate(lambda: Coroutine(lambda: emit(1), name="child").switch())
    with pytest.raises(SwitchError, match="'child'"):
        next(items)


def test_iterations_nest():
    def pairs():
        for letter in iterate(emit_all, "ab"):
            for number in iterate(emit_all, [1, 2]):
                emit(f"{letter}{number}")

    assert list(iterate(pairs)) == ["a1", "a2", "b1", "b2"]


def test_iterations_run_side_by_side():
    assert list(zip(iterate(emit_all, "ab"), iterate(emit_all, [1, 2]), strict=True)) == [("a", 1), ("b", 2)]


def test_next_inside_its_own_function_is_refused():
    items = iterate(lambda: next(items))
    with pytest.raises(SwitchError, match="while its function runs"):
        next(items)
    items = iterate(lambda: items.close())
    with pytest.raises(SwitchError, match=r"close.. on <Iteration"):
        next(items)


def test_next_from_another_thread_is_refused():
    items = iterate(emit_all, [1, 2])
    assert next(items) == 1
    errors = []

    def use():
        for call in (items.__next__, items.close):
            try:
                call()
            except SwitchError as error:
                errors.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(errors) == 2
    assert "from a thread that didn't make it" in errors[0]
    assert "queue.Queue" in errors[1]
    assert next(items) == 2


def test_several_greenlets_may_take_turns_at_one_iterator():
    items = iterate(emit_all, range(4))
    takers = [raw.greenlet(lambda: next(items)) for _ in range(4)]
    assert [taker.switch() for taker in takers] == [0, 1, 2, 3]
    assert list(items) == []


def test_a_consumer_started_by_the_function_is_refused_with_the_reason():
    made = []

    def start():
        made.append(Coroutine(lambda: next(items), name="child"))
        emit("ready")

    items = iterate(start)
    assert next(items) == "ready"
    with pytest.raises(SwitchError, match=r"'child' can't take items.*started inside that function"):
        made[0].switch()


def test_breaking_off_the_wait_ends_the_function():
    log = []
    main = raw.getcurrent()

    def wait_elsewhere():
        try:
            main.switch("waiting")
        finally:
            log.append("ended")

    items = iterate(wait_elsewhere)
    consumer = Coroutine(lambda: next(items))
    assert consumer.switch() == "waiting"
    with pytest.raises(TimeoutError):
        consumer.throw(TimeoutError())
    assert log == ["ended"]
    assert list(items) == []


def test_a_stray_switch_is_no_item():
    main = raw.getcurrent()
    items = iterate(main.switch, "waiting")
    consumer = Coroutine(lambda: next(items))
    assert consumer.switch() == "waiting"
    with pytest.raises(SwitchError, match="was switched to by hand, with 'stray'"):
        consumer.switch("stray")


def test_iterate_refuses_what_is_no_function():
    with pytest.raises(TypeError, match="iterate needs a function, not 3"):
        iterate(3)


def test_repr_tells_where_it_stands():
    items = iterate(emit_all, [1])
    assert repr(items) == "<Iteration of 'emit_all' new>"
    next(items)
    line = emit_all.__code__.co_firstlineno + 2
    assert repr(items) == f"<Iteration of 'emit_all' suspended at test_iterate.py:{line}>"
    list(items)
    assert repr(items) == "<Iteration of 'emit_all' finished>"
    assert isinstance(items, Iteration)


def test_long_iterations_neither_grow_the_stack_nor_leak():
    def count():
        for n in range(20_000):
            emit(n)

    assert sum(iterate(count)) == sum(range(20_000))
    assert sys.getrecursionlimit() < 20_000


def test_a_finished_iterator_keeps_its_last_consumer_not_alive():
    items = iterate(emit_all, [1])
    consumer = raw.greenlet(lambda: list(items))
    assert consumer.switch() == [1]
    ghost = weakref.ref(consumer)
    del consumer
    assert ghost() is None


def test_the_function_sees_the_context_variables_of_its_maker():
    with decimal.localcontext() as context:
        context.prec = 4
        assert list(iterate(lambda: emit(decimal.Decimal(1) / 3))) == [decimal.Decimal("0.3333")]


def test_arguments_may_have_any_name():
    names = {"self": 1, "run": 2, "function": 3}
    assert list(iterate(lambda **given: emit(given), **names)) == [names]
