"""The limitation and the price of switching, measured."""

import pytest

from greenswitch.core import SwitchingCost, blocking_adds_up, frozen_echo, switching_cost
from greenswitch.core.limitation import BlockingAddsUp


def test_one_idle_client_freezes_the_other():
    result = frozen_echo(idle=0.15)
    assert len(result.alone) == len(result.beside_idle) == 3
    assert 0.1 < result.frozen < 2
    assert result.frozen > max(result.alone)
    assert result.beside_idle.index(result.frozen) == 1
    text = str(result)
    assert "idle client speaks at last" in text
    assert "a blocking recv stops every greenlet on the thread" in text
    assert [what for _, what in result.events].index("idle client speaks at last") < [
        what for _, what in result.events
    ].index(f"busy client has its reply 2, after {result.frozen:.3f} s")


@pytest.mark.parametrize("wrong", [{"idle": 0}, {"idle": -1}, {"lines": 1}])
def test_an_echo_that_could_not_freeze_is_refused(wrong):
    with pytest.raises(ValueError, match="frozen_echo needs"):
        frozen_echo(**wrong)


def test_two_tasks_that_block_take_twice_as_long():
    result = blocking_adds_up(tasks=2, seconds=0.1)
    assert 0.19 < result.total < 1
    assert str(result).startswith(f"2 tasks that block 0.1 s each took {result.total:.3f} s")


def test_more_tasks_add_up_further():
    assert blocking_adds_up(tasks=5, seconds=0.02).total > 0.095
    assert "took 0.400 s" in str(BlockingAddsUp(2, 0.2, 0.4))


def test_switching_cost_counts_switches_and_compares_times():
    result = switching_cost(steps=10_000, every=10, repeats=2)
    assert 990 <= result.switches <= 1000
    assert result.straight > 0
    assert result.ratio == result.switched / result.straight
    assert "10,000 steps" in str(result)


def test_switching_often_costs_more_than_seldom():
    assert switching_cost(steps=20_000, every=1).switched > switching_cost(steps=20_000, every=10_000).switched


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (2, 1), (7, 3), (10, 100), (101, 10)])
def test_uneven_halves_compute_the_same(steps, every):
    assert switching_cost(steps, every, repeats=1).steps == steps


def test_only_switches_between_the_two_are_counted():
    assert switching_cost(7, 3, repeats=1).switches == 2  # 3 steps, then 3, then the last 1 alone


def test_switching_cost_refuses_what_it_cannot_measure():
    for wrong in ({"steps": 0}, {"every": 0}, {"repeats": 0}):
        with pytest.raises(ValueError, match="1 or more"):
            switching_cost(**wrong)


def test_ratio_and_price_are_read_from_the_times():
    result = SwitchingCost(steps=1000, every=1, switches=1000, straight=0.001, switched=0.002)
    assert result.ratio == 2
    assert result.per_switch == pytest.approx(1e-6)
    assert "2.00 times as long, +1.00 µs a switch" in str(result)
