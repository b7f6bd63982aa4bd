"""What crosses at a switch by hand: worked out where that can have no effect, else the text of the expression."""

from __future__ import annotations

import functools
import linecache
import sys
import time
from collections.abc import Callable
from typing import Any

import greenlet
import pytest

from greenswitch.core.passed import arguments, short, shorten
from greenswitch.hub import Hub
from greenswitch.recorder import record
from greenswitch.tasks import spawn

TOP = "of the module"


class Counter:
    """Counts how often it is asked for anything."""

    asked = 0

    @property
    def value(self) -> int:
        self.asked += 1
        return self.asked

    def __add__(self, other: object) -> int:
        return self.value

    def __repr__(self) -> str:
        return "<Counter>"


def passed_in(program: Callable[[greenlet.greenlet], Any]) -> str:
    """Return what `program` is recorded to have passed to the greenlet it is given."""
    other = greenlet.greenlet(lambda *args, **kwargs: None)
    with record() as recording:
        program(other)
    return next(iter(recording)).passed


counter = Counter()
number, text, several, table = 20, "soup", (1, "two"), {"key": [5, 6]}

EXPRESSIONS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda other: other.switch(), ""),
    (lambda other: other.switch(None), "None"),
    (lambda other: other.switch(1, "two", b"three"), "1, 'two', b'three'"),
    (lambda other: other.switch(number), "20"),
    (lambda other: other.switch(TOP), "'of the module'"),
    (lambda other: other.switch(len), "<built-in function len>"),
    (lambda other: other.switch(Counter), "Counter"),
    (lambda other: other.switch(number + 1, number - 1, number * 2, number / 8, number // 3, number % 3),
     "21, 19, 40, 2.5, 6, 2"),
    (lambda other: other.switch(-number, text + " of the day"), "-20, 'soup of the day'"),
    (lambda other: other.switch(f"here is your {text}, {number!r}"), "'here is your soup, 20'"),
    (lambda other: other.switch((number, [text])), "(20, ['soup'])"),
    (lambda other: other.switch(several[0], several[-1], table["key"][1]), "1, 'two', 6"),
    (lambda other: other.switch(*several), "1, 'two'"),
    (lambda other: other.switch(first=1, second=text), "first=1, second='soup'"),
    (lambda other: other.switch(**{}), ""),
    (lambda other: other.switch(**table), "**{'key': [5, 6]}"),
    (lambda other: other.switch(
        number
        + 1,
    ), "21"),
    (lambda other: other.switch("ü", "€" + text), "'ü', '€soup'"),
    (lambda other: other.switch({"a": number}, sys.maxsize), f"{{'a': 20}}, {sys.maxsize}"),
    # might have an effect:
    (lambda other: other.switch(str(number)), "`str(number)`"),
    (lambda other: other.switch(counter.value), "`counter.value`"),
    (lambda other: other.switch(counter + 1), "`counter + 1`"),
    (lambda other: other.switch(number + counter.value, number), "`number + counter.value`, 20"),
    (lambda other: other.switch(f"{counter}"), "`f'{counter}'`"),
    (lambda other: other.switch(f"{number:5}"), "`f'{number:5}'`"),
    (lambda other: other.switch(*map(str, several)), "*`map(str, several)`"),
    (lambda other: other.switch([each for each in several]), "`[each for each in several]`"),
    (lambda other: other.switch(*{**table}), "*`{**table}`"),
    (lambda other: other.switch(lambda: 1), "`lambda: 1`"),
    (lambda other: other.switch(number**2), "`number ** 2`"),
    (lambda other: other.switch({**table}), "`{**table}`"),
    (lambda other: functools.partial(other.switch, 5)(), "`functools.partial(other.switch, 5)()`"),
    (lambda other: (other.switch)(number), "20"),
    (lambda other: (lambda go: go(number))(other.switch), "20"),
    (lambda other: other.throw(greenlet.GreenletExit), "raises GreenletExit"),
    (lambda other: other.throw(), "raises GreenletExit"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "expected"), EXPRESSIONS, ids=[expected for _, expected in EXPRESSIONS])
def test_expression(program: Callable[[greenlet.greenlet], Any], expected: str) -> None:
    assert passed_in(program) == expected


def test_working_out_has_no_effect() -> None:
    one = Counter()
    passed_in(lambda other: other.switch(one.value, one + 1))
    assert one.asked == 2  # by the program itself


def test_subclass_of_a_plain_type_might_do_anything() -> None:
    class Loud(int):
        def __add__(self, other: int) -> int:
            heard.append(other)
            return 5

    heard: list[int] = []
    loud = Loud()
    assert passed_in(lambda other: other.switch(loud + 1)) == "`loud + 1`"
    assert heard == [1]  # by the program itself


def test_long_value_is_cut_to_a_line_and_a_big_one_is_not_written_out() -> None:
    assert len(passed_in(lambda other: other.switch("x" * 10_000))) <= 60
    big = list(range(10_000_000))
    began = time.process_time()
    assert short(big) == "[0, 1, 2, 3, 4, 5, ...]"
    assert time.process_time() - began < 0.1
    assert shorten("one\ntwo " + "x" * 100) == "one two " + "x" * 51 + "…"


def test_value_whose_repr_raises_does_no_harm() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise ValueError("no")

    broken = Broken()
    assert passed_in(lambda other: other.switch(broken)).startswith("<Broken instance at ")


def test_tasks_and_greenlets_are_called_by_their_names(hub: Hub) -> None:
    task = spawn(int)
    task.name = "clerk"
    task.join()
    waiter = greenlet.greenlet(int)
    waiter.name = "waiter"  # type: ignore[attr-defined]
    assert short([task, waiter]) == "[Task 'clerk', greenlet waiter]"
    assert arguments((1, task), {"also": None}) == "1, Task 'clerk', also=None"


def test_code_without_source_passes_something_unknown() -> None:
    space: dict[str, Any] = {}
    exec(compile("def go(other): other.switch(1)", "<nowhere>", "exec"), space)
    assert passed_in(space["go"]) == "?"


def test_source_of_a_notebook_cell_is_read() -> None:
    """A kernel gives each cell a file name that exists in `linecache` only."""
    source = "def go(other):\n    value = 3\n    other.switch(value * 2)\n"
    linecache.cache["<cell 5>"] = (len(source), None, source.splitlines(True), "<cell 5>")
    try:
        space: dict[str, Any] = {}
        exec(compile(source, "<cell 5>", "exec"), space)
        assert passed_in(space["go"]) == "6"
    finally:
        del linecache.cache["<cell 5>"]


def test_source_that_was_edited_since_is_no_reason_to_fail() -> None:
    source = "def go(other):\n    other.switch(1)\n"
    linecache.cache["<edited>"] = (9, None, ["def go(other):\n", "    ) oth(((\n"], "<edited>")
    try:
        space: dict[str, Any] = {}
        exec(compile(source, "<edited>", "exec"), space)
        assert passed_in(space["go"]) == "?"
    finally:
        del linecache.cache["<edited>"]


def test_variables_of_a_module_stay_when_it_switches_at_top_level() -> None:
    main = greenlet.getcurrent()
    space: dict[str, Any] = {"main": main, "kept": 1}
    source = "main.switch(kept)\nafter = kept\n"
    linecache.cache["<module>"] = (len(source), None, source.splitlines(True), "<module>")
    try:
        with record() as recording:
            module = greenlet.greenlet(lambda: exec(compile(source, "<module>", "exec"), space))
            module.switch()
            module.switch()
    finally:
        del linecache.cache["<module>"]
    assert space["after"] == 1
    assert [event.passed for event in recording][1] == "1"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="since 3.13 a frame keeps no copy of its variables")
def test_frame_is_left_without_a_copy_of_its_variables() -> None:
    main = greenlet.getcurrent()

    def hold() -> None:
        value = Counter()
        main.switch(value)
        del value
        main.switch("next")

    other = greenlet.greenlet(hold)
    with record():
        other.switch()
    values_there = sys.getrefcount(Counter)
    other.switch()
    assert sys.getrefcount(Counter) == values_there - 1
    other.throw()
