"""The saved file says what happened, in a form that keeps the rules of the Trace Event Format."""

from __future__ import annotations

import json
import os
import random
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import greenlet
import pytest

import greenswitch
from greenswitch import joinall, run, sleep, sockets, spawn
from greenswitch.core import relay
from greenswitch.hub import Hub
from greenswitch.recorder import Recording, record
from greenswitch.testing import VirtualTime

Trace = dict[str, Any]


# --- reading a file ---------------------------------------------------------------------------------------------------


def saved(recording: Recording, directory: Path) -> Trace:
    path = directory / "trace.json"
    recording.save(path)
    trace: Trace = json.loads(path.read_text("utf-8"))
    assert list(breaches(trace)) == []
    return trace


def breaches(trace: Trace) -> Iterator[str]:
    """Yield every breach of the format's rules, as its document states them, and of what an arrow needs to be drawn."""
    for entry in trace["traceEvents"]:
        yield from breaches_of_entry(entry)
    for thread in names(trace):
        its = [entry for entry in trace["traceEvents"] if entry["ph"] == "X" and entry["tid"] == thread]
        yield from breaches_of_thread(sorted(its, key=lambda entry: (entry["ts"], -entry["dur"])))
    yield from breaches_of_arrows(trace)


def breaches_of_entry(entry: dict[str, Any]) -> Iterator[str]:
    kinds = {"name": str, "ph": str, "pid": int, "tid": int}
    if entry["ph"] != "M":
        kinds |= {"cat": str, "ts": (int, float)}
    kinds |= {"X": {"dur": (int, float), "args": dict}, "M": {"args": dict}}.get(entry["ph"], {"id": int})
    for field, kind in kinds.items():
        if not isinstance(entry.get(field), kind):
            yield f"{field} of {entry}"
    if entry["ph"] == "X" and (entry["dur"] < 0 or entry["ts"] < 0):
        yield f"time of {entry}"
    if entry["ph"] == "M" and entry["name"] not in ("process_name", "thread_name", "thread_sort_index"):
        yield f"metadata {entry}"


def breaches_of_thread(its: list[dict[str, Any]]) -> Iterator[str]:
    """Yield where two spans of a thread overlap: each has to end before the next begins, or to hold all of it."""
    open_until: list[float] = []
    for span in its:
        end = span["ts"] + span["dur"]
        while open_until and open_until[-1] <= span["ts"]:
            open_until.pop()
        if open_until and end > open_until[-1]:
            yield f"{span} overlaps with what began before"
        open_until.append(end)


def breaches_of_arrows(trace: Trace) -> Iterator[str]:
    ends = [entry for entry in trace["traceEvents"] if entry["ph"] in "sf"]
    for number in {entry["id"] for entry in ends}:
        pair = [entry for entry in ends if entry["id"] == number]
        if [entry["ph"] for entry in pair] != ["s", "f"]:
            yield f"arrow {pair}"
            continue
        start, finish = pair
        if (start["name"], start["cat"]) != (finish["name"], finish["cat"]) or finish["ts"] < start["ts"]:
            yield f"arrow {pair}"
        if finish.get("bp") != "e":
            yield f"{finish} is bound to the next span, not to the one around it"
        for end in pair:
            around = [
                entry
                for entry in trace["traceEvents"]
                if entry["ph"] == "X" and entry["tid"] == end["tid"] and entry["cat"] in ("running", "polling")
                and entry["ts"] <= end["ts"] <= entry["ts"] + entry["dur"]
            ]  # fmt: skip
            if not around:
                yield f"nobody runs where {end} is"


def names(trace: Trace) -> dict[int, str]:
    metadata = [entry for entry in trace["traceEvents"] if entry["name"] == "thread_name"]
    return {entry["tid"]: entry["args"]["name"] for entry in metadata}


def states(trace: Trace) -> dict[str, list[tuple[float, float, str]]]:
    """Return each lane's spans as (ms, ms, name), with descriptors' numbers left out."""
    found: dict[str, list[tuple[float, float, str]]] = {name: [] for name in names(trace).values()}
    for entry in trace["traceEvents"]:
        if entry["ph"] == "X":
            text = re.sub(r"<fd \d+.*>", "<fd>", entry["name"])
            found[names(trace)[entry["tid"]]].append((entry["ts"] / 1000, entry["dur"] / 1000, text))
    return found


def arrows(trace: Trace) -> list[tuple[float, str, str, str]]:
    """Return each arrow as (ms, wake or spawn, from, to)."""
    found = []
    for start in (entry for entry in trace["traceEvents"] if entry["ph"] == "s"):
        [finish] = [one for one in trace["traceEvents"] if one["ph"] == "f" and one["id"] == start["id"]]
        whom = names(trace)[finish["tid"]]
        found.append((start["ts"] / 1000, start["name"], names(trace)[start["tid"]], whom))
    return found


# --- three clients of an echo server ----------------------------------------------------------------------------------


def named(name: str, task: greenswitch.Task) -> greenswitch.Task:
    task.name = name
    return task


def talk(conn: sockets.Socket) -> None:
    with conn:
        while data := conn.recv(1024):
            conn.sendall(data.upper())


def serve(listener: sockets.Socket) -> None:
    for number in range(3):
        conn, _ = listener.accept()
        named(f"talk {number}", spawn(talk, conn))


def ask(path: str, seconds: float) -> None:
    sleep(seconds)
    with sockets.Socket(socket.AF_UNIX) as conn:
        conn.connect(path)
        conn.sendall(b"hello")
        assert conn.recv(1024) == b"HELLO"
        sleep(0.01)


def echo(path: str) -> None:
    """Serve three clients, which come 1, 2 and 3 ms after the start and stay for 10 ms after the answer."""
    with sockets.Socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = named("serve", spawn(serve, listener))
        clients = [named(f"client {number}", spawn(ask, path, (number + 1) / 1000)) for number in range(3)]
        joinall([*clients, server])


@pytest.fixture
def echoed(tmp_path: Path) -> Trace:
    time = VirtualTime()
    with record(clock=time) as recording:
        run(echo, str(tmp_path / "echo"), hub=time.hub())
    return saved(recording, tmp_path)


def visit(number: int) -> list[tuple[float, float, str]]:
    came, left = number + 1, number + 11
    return [
        (0, 0, "ready"), (0, 0, "running"), (0, came, f"parked: sleep {came / 1000}"),
        (came, 0, "ready"), (came, 0, "running"), (came, 0, "parked: read <fd>"),
        (came, 0, "ready"), (came, 0, "running"), (came, 10, "parked: sleep 0.01"),
        (left, 0, "ready"), (left, 0, "running"),
    ]  # fmt: skip


def test_echo_of_three_clients_shows_each_park_and_how_long_it_took(echoed: Trace) -> None:
    found = states(echoed)
    assert list(found) == [
        "main greenlet", "echo", "hub", "serve", "client 0", "client 1", "client 2", "talk 0", "talk 1", "talk 2"
    ]  # fmt: skip
    for number in range(3):
        assert found[f"client {number}"] == visit(number)
        came, left = number + 1, number + 11
        assert found[f"talk {number}"] == [
            (came, 0, "ready"), (came, 0, "running"), (came, 10, "parked: read <fd>"),
            (left, 0, "ready"), (left, 0, "running"),
        ]  # fmt: skip
    assert [span for span in found["serve"] if span[2].startswith("parked")] == [
        (0, 1, "parked: read <fd>"),
        (1, 1, "parked: read <fd>"),
        (2, 1, "parked: read <fd>"),
    ]
    assert [span for span in found["echo"] if span[2].startswith("parked")] == [
        (0, 11, "parked: join Task 'client 0'"),
        (11, 1, "parked: join Task 'client 1'"),
        (12, 1, "parked: join Task 'client 2'"),
    ]
    assert [span for span in found["hub"] if span[1]] == [
        (0, 1, "polling"), (1, 1, "polling"), (2, 1, "polling"), (3, 8, "polling"), (11, 1, "polling"),
        (12, 1, "polling"),
    ]  # fmt: skip


def test_echo_of_three_clients_shows_each_wake_and_who_woke_whom(echoed: Trace) -> None:
    expected = [
        (0, "spawn", "main greenlet", "echo"),
        (0, "spawn", "echo", "serve"),
        *((0, "spawn", "echo", f"client {number}") for number in range(3)),
    ]
    for number in range(3):
        came = number + 1
        expected += [
            (came, "wake", "hub", f"client {number}"),  # its sleep is over
            (came, "wake", "hub", "serve"),  # it has connected
            (came, "spawn", "serve", f"talk {number}"),
            (came, "wake", "hub", f"client {number}"),  # its answer has come
        ]
    for number in range(3):
        left = number + 11
        expected += [
            (left, "wake", "hub", f"client {number}"),  # its sleep is over
            (left, "wake", f"client {number}", "echo"),  # which joins it
            (left, "wake", "hub", f"talk {number}"),  # it has closed
        ]
    # When the last client has gone, the program ends, and what is left over is killed.
    last = expected.pop()
    expected += [
        (13, "wake", "echo", "main greenlet"),
        (last[0], "wake", "main greenlet", "talk 2"),
        (13, "wake", "talk 2", "main greenlet"),
    ]
    assert arrows(echoed) == expected


# --- any recording ----------------------------------------------------------------------------------------------------


def test_hand_switched_greenlets_are_threads_too(tmp_path: Path) -> None:
    ticks = iter(range(100))
    with record(clock=lambda: next(ticks) / 1000) as recording:
        relay.ping_pong(1)
    trace = saved(recording, tmp_path)
    assert states(trace)["play_ping"] == [(1, 1, "running"), (2, 1, "suspended"), (3, 1, "running")]
    assert states(trace)["play_pong"] == [(2, 1, "running"), (3, 2, "suspended"), (5, 1, "running")]
    assert arrows(trace) == []
    given = [entry["args"].get("given") for entry in trace["traceEvents"] if entry["ph"] == "X"]
    assert [text for text in given if text] == ["its result", "its result", "0", "2", "1", "raises GreenletExit"]


def test_file_tells_the_process_its_lanes_and_what_was_dropped(tmp_path: Path) -> None:
    with record(limit=2) as recording:
        relay.ping_pong(1)
    trace = saved(recording, tmp_path)
    assert trace["otherData"] == {"recorder": "greenswitch", "dropped_events": 4}
    assert {entry["pid"] for entry in trace["traceEvents"]} == {os.getpid()}
    assert sorted(names(trace).values()) == ["main greenlet", "play_pong"]


@pytest.mark.parametrize("limit", [1, 7, 50, 1000])
def test_any_part_of_any_recording_keeps_the_rules(limit: int, real_hub: Hub, tmp_path: Path) -> None:
    """Real times, so that spans are of any length and meet at any fraction of a microsecond."""
    chance = random.Random(limit)

    def work(depth: int) -> None:
        for _ in range(chance.randrange(6)):
            sleep(chance.choice([0, 0, 0.0001]))
            if depth < 2:
                spawn(work, depth + 1).join()
        relay.ping_pong(1)

    with record(limit) as recording:
        joinall([spawn(work, 0) for _ in range(5)])
    trace = saved(recording, tmp_path)
    assert sum(entry["ph"] == "X" for entry in trace["traceEvents"]) > limit // 2 or len(recording) < limit


def test_recording_of_nothing_can_be_saved(tmp_path: Path) -> None:
    with record() as recording:
        pass
    assert [entry["name"] for entry in saved(recording, tmp_path)["traceEvents"]] == ["process_name"]


def test_names_and_values_of_any_alphabet_are_kept(tmp_path: Path) -> None:
    with record() as recording:
        other = greenlet.greenlet(lambda text: None)
        other.name = 'Käse "№1"\n'  # type: ignore[attr-defined]
        other.switch("→")
    trace = saved(recording, tmp_path)
    assert 'Käse "№1"\n' in names(trace).values()
    assert {"given": "'→'"} in [entry["args"] for entry in trace["traceEvents"]]


def test_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with record() as recording:
        pass
    with pytest.raises(OSError, match="nowhere"):
        recording.save(tmp_path / "nowhere" / "trace.json")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda spans, arrows: spans[0].pop("dur"), "dur of"),
        (lambda spans, arrows: spans[0].update(dur=-1), "time of"),
        (lambda spans, arrows: spans[0].update(ts="1"), "ts of"),
        (lambda spans, arrows: spans[1].update(dur=1.5e6), "overlap"),
        (lambda spans, arrows: arrows[0].update(id=99), "arrow"),
        (lambda spans, arrows: arrows[0].update(name="other"), "arrow"),
        (lambda spans, arrows: arrows[1].update(ts=arrows[0]["ts"] - 1), "arrow"),
        (lambda spans, arrows: arrows[1].pop("bp"), "next span"),
        (lambda spans, arrows: arrows[1].update(tid=99), "nobody runs"),
    ],
)
def test_planted_breach_of_the_format_is_found(change: Any, complaint: str, hub: Hub, tmp_path: Path) -> None:
    with record() as recording:
        spawn(sleep, 1).join()
        spawn(sleep, 1).join()
    trace = saved(recording, tmp_path)
    main = [entry for entry in trace["traceEvents"] if entry["ph"] == "X" and entry["tid"] == 1]
    change(main, [entry for entry in trace["traceEvents"] if entry["ph"] in "sf"])
    assert any(complaint in text for text in breaches(trace)), list(breaches(trace))
