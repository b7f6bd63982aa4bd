"""The three relays, by switches and by generators: same signatures, same results."""

import gc
import inspect
import itertools

import greenlet as raw
import pytest

from greenswitch.core import generators, relay

both = pytest.mark.parametrize("by", [relay, generators], ids=["relay", "generators"])


@pytest.fixture(autouse=True)
def no_greenlet_is_left():
    """Fail if a relay leaves a living greenlet behind."""
    gc.collect()
    before = {id(g) for g in gc.get_objects() if isinstance(g, raw.greenlet) and not g.dead}
    yield
    gc.collect()
    left = [g for g in gc.get_objects() if isinstance(g, raw.greenlet) and not g.dead and id(g) not in before]
    assert left == []


@pytest.mark.parametrize("name", ["round_robin", "ping_pong", "pipeline"])
def test_signatures_are_the_same_in_both(name):
    assert inspect.signature(getattr(relay, name)) == inspect.signature(getattr(generators, name))


@both
def test_round_robin_takes_turns_until_all_are_empty(by):
    assert by.round_robin(["abc", "1", "xy"]) == ["a", "1", "x", "b", "y", "c"]


@both
@pytest.mark.parametrize("sequences", [[], [""], ["", "a", ""], ["abc"], ["", "", "xy"]])
def test_round_robin_skips_empty_sequences(by, sequences):
    assert by.round_robin(sequences) == [item for sequence in sequences for item in sequence]


@both
def test_round_robin_agrees_with_zip_longest(by):
    sequences = [range(n * 7 % 5) for n in range(12)]
    rows = itertools.zip_longest(*sequences)
    assert by.round_robin(sequences) == [item for row in rows for item in row if item is not None]


@both
def test_round_robin_takes_lazy_iterables_one_at_a_time(by):
    log = []

    def count(name):
        for n in range(2):
            log.append((name, n))
            yield n

    by.round_robin([count("a"), count("b")])
    assert log == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


@both
def test_round_robin_raises_what_a_sequence_raises(by):
    def broken():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        by.round_robin(["abc", broken(), "xyz"])


@both
def test_round_robin_raises_what_the_outer_iterable_raises(by):
    def sequences():
        yield "abc"
        raise LookupError("no more")

    with pytest.raises(LookupError):
        by.round_robin(sequences())


@both
def test_round_robin_holds_thousands(by):
    assert len(by.round_robin([range(2)] * 3000)) == 6000


@both
@pytest.mark.parametrize("rounds", [0, 1, 5, 500])
def test_ping_pong_hits_in_turn(by, rounds):
    hits = by.ping_pong(rounds)
    assert hits == [("pong" if ball % 2 else "ping", ball) for ball in range(2 * rounds)]


@both
def test_pipeline_sends_every_item_through_every_stage(by):
    assert by.pipeline("abc", str.upper, ord) == [65, 66, 67]
    assert by.pipeline(range(3)) == [0, 1, 2]
    assert by.pipeline([], str.upper) == []
    assert by.pipeline([None, 0], lambda x: x) == [None, 0]


@both
def test_pipeline_has_one_item_under_way_at_a_time(by):
    log = []

    def produce():
        for n in range(2):
            log.append(f"make {n}")
            yield n

    by.pipeline(produce(), lambda n: log.append(f"first {n}") or n, lambda n: log.append(f"second {n}") or n)
    assert log == ["make 0", "first 0", "second 0", "make 1", "first 1", "second 1"]


@both
def test_pipeline_raises_what_a_stage_raises(by):
    with pytest.raises(ZeroDivisionError):
        by.pipeline([1, 0, 2], lambda n: 1 / n, str)


@both
def test_pipeline_raises_what_the_items_raise(by):
    def produce():
        yield 1
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        by.pipeline(produce(), str)


@both
def test_relays_run_inside_one_another(by):
    assert by.pipeline([2, 3], by.ping_pong, len) == [4, 6]
    assert by.round_robin([by.round_robin(["ab", "c"]), "xyz"]) == ["a", "x", "c", "y", "b", "z"]
