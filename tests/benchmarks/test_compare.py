"""The comparison's arithmetic as data, and the script itself as its user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
try:
    import compare
    import figures
    from rows import PEERS, ROWS, Figure, Promise, Row
finally:
    sys.path.remove(str(HERE))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the benchmark script needs process groups")

CPU = Row("work", "some work", 1, 1, (Figure("cpu", "µs/op", promise=Promise(0.5)),))
EXTRA = Row("extra", "more work", 1, 1,
            (Figure("extra", "% on top", scale=100, promise=Promise(10, of="value"), has_ratio=False),))


def test_median_leaves_out_the_rounds_that_were_not_measured():
    assert figures.median([3.0, None, 1.0, 2.0]) == 2.0
    assert figures.median([1.0, 2.0]) == 1.5
    assert figures.median([None]) is None
    assert figures.median([]) is None


def test_spread_is_half_the_range_as_a_share_of_the_median():
    assert figures.spread([9.0, 10.0, 13.0]) == 0.2
    assert figures.spread([None, 10.0]) is None
    assert figures.spread([0.0, 0.0]) is None


def test_ratio_compares_within_each_round_so_that_a_slow_minute_cancels_out():
    base = [10.0, 100.0, 10.0]
    assert figures.ratio([5.0, 50.0, 4.0], base) == 0.5
    assert figures.ratio([5.0, None, 4.0], base) == 0.45
    assert figures.ratio(base, base) == 1.0


def test_ratio_to_a_base_that_was_not_measured_is_none():
    assert figures.ratio([5.0], []) is None
    assert figures.ratio([5.0], [None]) is None


def test_numbers_show_the_digits_that_count():
    shown = [figures.show(value) for value in (10000, 123.4, 12.34, 1.234, 0.1234, -54.3, None)]
    assert shown == ["10,000", "123", "12.3", "1.23", "0.12", "-54.3", "·"]
    assert figures.show(7.1e-6, 1e6) == "7.10"


def test_table_sets_medians_spreads_and_ratios_side_by_side():
    results = {("work", "cpu", "gevent"): [10e-6, 12e-6], ("work", "cpu", "greenswitch"): [5e-6, 6e-6]}
    header, values, ratios = figures.table([CPU], ["greenswitch", "gevent", "asyncio"], results).splitlines()
    assert header.split() == ["greenswitch", "gevent", "asyncio"]
    assert values.split() == ["work", "µs/op", "5.50", "±", "9%", "11.0", "±", "9%", "·"]
    assert ratios.split() == ["to", "gevent", "0.50", "1.00", "·"]


def test_table_has_no_ratios_without_the_base_and_names_a_row_without_any_figure():
    lines = figures.table([CPU, EXTRA], ["greenswitch"], {("work", "cpu", "greenswitch"): [5e-6]}).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["work", "µs/op", "5.00"], ["extra", "nobody", "could", "be", "measured"]]


@pytest.mark.parametrize(("ours", "kept"), [(4.9e-6, True), (5e-6, True), (5.1e-6, False)])
def test_promised_ratio_is_judged_against_gevent(ours: float, kept: bool):
    results = {("work", "cpu", "gevent"): [10e-6], ("work", "cpu", "greenswitch"): [ours]}
    [(sentence, verdict)] = figures.judge([CPU], results)
    assert verdict is kept
    assert sentence.endswith("kept" if kept else "MISSED")
    assert sentence.startswith("work: 0.")


@pytest.mark.parametrize(("share", "kept"), [(0.08, True), (0.12, False)])
def test_promised_value_is_judged_without_gevent(share: float, kept: bool):
    [(sentence, verdict)] = figures.judge([EXTRA], {("extra", "extra", "greenswitch"): [share]})
    assert verdict is kept
    assert "% on top, promised ≤ 10" in sentence


def test_promise_that_was_not_measured_is_not_kept():
    assert figures.judge([CPU], {}) == [("work: not measured, promised ≤ 0.5 of gevent's", False)]
    assert not figures.judge([CPU], {("work", "cpu", "greenswitch"): [1e-6]})[0][1]


def test_catalogue_holds_what_was_promised():
    promised = {row.name: (figure.promise.of, figure.promise.limit)
                for row in ROWS for figure in row.figures if figure.promise is not None}
    ratios = {"echo": 0.65, "spawn": 0.2, "spawn-batch": 0.2, "sleep0": 0.6,
              "queue": 0.6, "lock": 0.6, "event": 0.6, "pool-map": 0.6, "deadlines": 0.6}
    assert promised == {name: ("ratio", limit) for name, limit in ratios.items()} | {"recv-deadline": ("value", 10)}


class StubbedRun(compare.Run):
    """A run whose measurements are told beforehand; `asked` keeps who was asked, in order."""

    def __init__(self, answers: dict[str, dict[str, Any]]) -> None:
        super().__init__({})
        self.answers = answers
        self.asked: list[str] = []

    def _ask(self, *arguments: str) -> dict[str, Any]:
        self.asked.append(arguments[0])
        return self.answers[arguments[0]]


def test_peers_take_turns_and_each_round_starts_with_another_one():
    run = StubbedRun({peer: {"figures": {"cpu": 1e-6}} for peer in "abc"})
    run.measure(CPU, ["a", "b", "c"], rounds=3)
    assert "".join(run.asked) == "abcbcacab"
    assert run.results["work", "cpu", "b"] == [1e-6] * 3


def test_peer_without_such_a_row_is_asked_once_and_not_remarked_upon():
    run = StubbedRun({"a": {"figures": {"cpu": 1e-6}}, "b": {"skipped": ""}})
    run.measure(CPU, ["a", "b"], rounds=3)
    assert "".join(run.asked) == "abaa"
    assert run.remarks == []


def test_missing_peer_is_named_and_left_out():
    run = StubbedRun({"a": {"version": "1.0"}, "b": {"skipped": "no module b here"}})
    assert run.present(["a", "b"]) == {"a": "1.0"}
    assert run.remarks == ["b is left out: no module b here"]


def test_failing_measurement_is_reported_and_the_run_goes_on():
    run = compare.Run({})
    run.measure(CPU, ["nobody"], rounds=2)
    assert run.failed
    assert run.remarks == ["work: nobody is left out: FAILED: KeyError: 'nobody'"]
    assert run.results == {}


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(HERE / "compare.py"), *arguments], capture_output=True, text=True,
                          timeout=50, check=False)


def test_script_measures_two_peers_and_prints_the_rows_it_was_asked_for(tmp_path: Path):
    file = tmp_path / "figures.json"
    script = run_script(*f"--quick --rounds 2 --rows spawn --peers asyncio greenswitch --json {file}".split())
    assert script.returncode == 0, script.stdout + script.stderr
    header, row, *remarks = script.stdout.splitlines()
    assert header.split() == ["greenswitch", "asyncio"]
    assert row.split()[:2] == ["spawn", "µs/task"]
    assert remarks == []
    assert "spawn 2/2, µs/task: greenswitch " in script.stderr
    records = json.loads(file.read_text())["records"]
    assert [record["peer"] for record in records] == ["greenswitch", "asyncio"]
    assert all(0 < record["best"] <= record["median"] < 1e-3 for record in records)


@pytest.mark.skipif(sys.platform != "linux", reason="another process's CPU clock is read as on Linux")
def test_script_measures_the_server_and_not_the_client():
    script = run_script(*"--quick --rows echo connections --peers greenswitch asyncio --many 50".split())
    assert script.returncode == 0, script.stdout + script.stderr
    lines = [line.split() for line in script.stdout.splitlines()[1:]]
    assert [line[0] for line in lines] == ["echo"] + ["connections"] * 4
    assert lines[1][-2:] == ["50.0", "50.0"]  # open at once, of either peer
    assert "·" not in script.stdout


def test_check_fails_and_says_which_promise_could_not_be_judged():
    script = run_script(*"--quick --check --rows spawn --peers greenswitch".split())
    assert script.returncode == 1
    assert script.stdout.splitlines()[-1] == "spawn: not measured, promised ≤ 0.2 of gevent's"


def test_help_teaches_and_lists_every_row_and_peer():
    script = run_script("--help")
    assert script.returncode == 0
    for name in [row.name for row in ROWS] + [peer.name for peer in PEERS]:
        assert name in script.stdout
