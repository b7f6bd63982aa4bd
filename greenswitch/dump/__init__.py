"""Who waits for what: a list of all tasks, at any moment, from inside or outside of the process.

    from greenswitch.dump import dump
    print(dump())                                # or dump().to_json()

    install_dump_signal()                        # then, in a shell: python -m greenswitch.dump PID

Each task with its name, what it is doing (running, ready, parked, new), what it waits for and how long that may still
take, and where it stands. `note_times()` adds since when, and `note_spawns()` who has spawned it: both cost a little,
so both are asked for.
"""

from greenswitch.dump.notes import note_spawns, note_times
from greenswitch.dump.on_signal import DumpSignal, install_dump_signal
from greenswitch.dump.report import Report, dump

__all__ = ["DumpSignal", "Report", "dump", "install_dump_signal", "note_spawns", "note_times"]
