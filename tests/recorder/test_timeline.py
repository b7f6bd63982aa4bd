"""The picture: what is in it, that it can be read, and what is said where it can't be drawn."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from time import process_time
from typing import Any

import greenlet
import pytest

from greenswitch import joinall, sleep, spawn
from greenswitch.core import relay
from greenswitch.hub import Hub
from greenswitch.recorder import Recording, record
from greenswitch.testing import VirtualTime

matplotlib = pytest.importorskip("matplotlib", reason="pictures need the extra [notebooks]")
from matplotlib.collections import LineCollection, PathCollection


@pytest.fixture(scope="module", autouse=True)
def fonts_are_open() -> None:
    """Have matplotlib open its fonts, which it keeps open, before any test counts the descriptors."""
    with record() as recording:
        pass
    recording.timeline()._repr_svg_()


def kitchen(time: VirtualTime) -> Recording:
    """Record a cook who waits for the oven, and a waiter who keeps the thread busy meanwhile."""

    def cook() -> None:
        sleep(1)
        time.now += 1  # computing

    def wait() -> None:
        sleep(0.5)
        time.now += 2

    with record() as recording:
        tasks = [spawn(cook), spawn(wait)]
        tasks[0].name, tasks[1].name = "cook", "waiter"
        joinall(tasks)
    return recording


def bars(timeline: Any, state: str) -> list[tuple[int, float, float]]:
    """Return (row, begin, end) of each bar of a state."""
    found = []
    for collection in timeline.figure.axes[0].collections:
        row, _, what = str(collection.get_label()).partition(" ")
        if what == state:
            colour = matplotlib.colors.to_hex(collection.get_facecolor()[0])
            assert colour == {"running": "#0072b2", "parked": "#e8e8e8", "ready": "#e69f00"}[state]
            edges = [path.vertices[:, 0] for path in collection.get_paths()]
            found += [(int(row), min(edge), max(edge)) for edge in edges]
    return sorted(found)


def arrows(timeline: Any) -> list[tuple[float, int, int]]:
    """Return (time, from row, to row) of each arrow."""
    [lines] = [one for one in timeline.figure.axes[0].collections if isinstance(one, LineCollection)]
    return [(begin[0], begin[1], end[1]) for begin, end in lines.get_segments()]


def heads(timeline: Any) -> list[tuple[float, int]]:
    """Return (time, row) of each arrow's head."""
    scattered = [one for one in timeline.figure.axes[0].collections if isinstance(one, PathCollection)]
    return sorted((at, round(row)) for one in scattered for at, row in one.get_offsets())


def lanes(timeline: Any) -> list[str]:
    return [label.get_text() for label in timeline.figure.axes[0].get_yticklabels()]


def words(timeline: Any) -> list[str]:
    return [text.get_text() for text in timeline.figure.axes[0].texts if text.get_text()]


def test_lane_shows_when_it_ran_was_ready_and_was_parked_and_on_what(hub: Hub, time: VirtualTime) -> None:
    timeline = kitchen(time).timeline()
    assert lanes(timeline) == ["main greenlet", "cook", "waiter", "hub"]
    cook, waiter = 1, 2
    # The oven is ready at 1 s, but the waiter keeps the thread until 2.5 s, and nobody sees it before.
    assert bars(timeline, "running")[-4:] == [(cook, 0, 0), (cook, 2.5, 3.5), (waiter, 0, 0), (waiter, 0.5, 2.5)]
    assert [bar for bar in bars(timeline, "parked") if bar[0] == cook] == [(cook, 0, 2.5)]
    assert words(timeline) == ["join Task 'cook'", "sleep 1", "sleep 0.5"]
    assert timeline.figure.axes[0].get_xlabel() == "s since the recording began"


def test_ready_shows_whom_somebody_else_holds_up(hub: Hub, time: VirtualTime) -> None:
    with record() as recording:
        spawn(sleep, 0)
        time.now += 5
        sleep(0)
    assert bars(recording.timeline(), "ready") == [(1, 0, 5)]


def test_arrow_leads_from_whoever_woke_to_the_woken(hub: Hub, time: VirtualTime) -> None:
    main, cook, waiter, of_hub = range(4)
    timeline = kitchen(time).timeline()
    assert arrows(timeline) == [
        (0, main, cook), (0, main, waiter), (0.5, of_hub, waiter), (2.5, of_hub, cook), (3.5, cook, main)
    ]  # fmt: skip
    assert heads(timeline) == [(0, cook), (0, waiter), (0.5, waiter), (2.5, cook), (3.5, main)]


def test_long_recording_is_drawn_within_seconds(hub: Hub) -> None:
    with record() as recording:
        joinall([spawn(lambda: [sleep(0.001 * step) for step in range(50)]) for _ in range(100)])
    assert len(recording) > 10_000
    began = process_time()
    recording.timeline()._repr_svg_()
    assert process_time() - began < 10


@pytest.mark.parametrize(("seconds", "unit"), [(3, "s"), (0.003, "ms"), (0.000003, "µs")])
def test_unit_suits_the_length(seconds: float, unit: str, hub: Hub) -> None:
    with record() as recording:
        sleep(seconds)
    timeline = recording.timeline()
    assert timeline.figure.axes[0].get_xlabel().startswith(f"{unit} since")
    assert repr(timeline) == f"<Timeline of 2 lanes, 3.000 {unit}>"


def test_part_of_the_time_can_be_drawn(hub: Hub, time: VirtualTime) -> None:
    timeline = kitchen(time).timeline(begin=1, end=2)
    assert bars(timeline, "running") == [(2, 1, 2)]
    assert bars(timeline, "parked") == [(0, 1, 2), (1, 1, 2)]


def test_some_lanes_can_be_drawn_in_any_order(hub: Hub, time: VirtualTime) -> None:
    recording = kitchen(time)
    timeline = recording.timeline(["waiter", "cook"])
    assert lanes(timeline) == ["waiter", "cook"]
    assert "(2 lanes more: " in timeline.figure.axes[0].get_xlabel()
    with pytest.raises(ValueError, match=r"no such lane in this recording: 'chef'; see recording\.lanes"):
        recording.timeline(["cook", "chef"])


def test_many_lanes_are_cut_and_it_says_so(hub: Hub) -> None:
    with record() as recording:
        joinall([spawn(sleep, 1) for _ in range(100)])
    timeline = recording.timeline()
    assert len(lanes(timeline)) == 40
    assert "(62 lanes more: timeline(lanes=…) or most=…)" in timeline.figure.axes[0].get_xlabel()
    assert len(lanes(recording.timeline(most=200))) == 102


def test_hand_switched_program_is_drawn_too() -> None:
    ticks = iter(range(100))
    with record(clock=lambda: next(ticks)) as recording:
        relay.ping_pong(1)
    timeline = recording.timeline()
    assert lanes(timeline) == ["main greenlet", "play_ping", "play_pong"]
    assert bars(timeline, "running") == [
        (0, 0, 1), (0, 4, 5), (0, 6, 8), (1, 1, 2), (1, 3, 4), (2, 2, 3), (2, 5, 6)
    ]  # fmt: skip


def test_text_that_has_no_room_in_its_bar_is_cut_or_left_out(hub: Hub) -> None:
    with record() as recording:
        sleep(0.001)
        sleep(0.25)
        sleep(3)
    assert words(recording.timeline(["main greenlet"], width=10)) == ["sleep …", "sleep 3"]


def test_nothing_can_be_drawn() -> None:
    with record(clock=lambda: 0.0) as recording:
        pass
    assert words(recording.timeline()) == ["nobody switched"]
    assert "<svg" in recording.timeline()._repr_svg_()


def test_picture_for_jupyter_is_the_same_every_time_and_well_formed(hub: Hub, time: VirtualTime) -> None:
    recording = kitchen(time)
    svg = recording.timeline()._repr_svg_()
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "sleep 0.5" in svg  # text, rather than its outlines
    assert svg == recording.timeline()._repr_svg_()


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    with record() as recording:
        other = greenlet.greenlet(lambda: None)
        other.name = r"$x_1$ & <b> \alpha"  # type: ignore[attr-defined]
        other.switch()
    svg = recording.timeline()._repr_svg_()
    drawn = ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert r"$x_1$ & <b> \alpha" in drawn


def test_picture_can_be_saved_as_what_the_name_says(hub: Hub, time: VirtualTime, tmp_path: Path) -> None:
    timeline = kitchen(time).timeline()
    for ending, beginning in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        timeline.save(tmp_path / f"picture{ending}")
        assert (tmp_path / f"picture{ending}").read_bytes().startswith(beginning)


def test_drawing_leaves_matplotlib_as_it_was(hub: Hub, time: VirtualTime) -> None:
    before = dict(matplotlib.rcParams)
    kitchen(time).timeline()._repr_svg_()
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_without_matplotlib_it_says_what_to_install_and_the_rest_works() -> None:
    program = """
import sys
sys.modules["matplotlib"] = None
from greenswitch.recorder import record
with record() as recording:
    pass
print(recording)
try:
    recording.timeline()
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] == (
        "a timeline is drawn by matplotlib, which isn't installed: pip install 'greenswitch-toolkit[notebooks]'. "
        "print(recording) and recording.save(path) do without"
    )


def test_recording_loads_matplotlib_only_to_draw() -> None:
    program = "import sys, greenswitch.recorder; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=30).returncode == 0
