"""A program that closes all its descriptors, as daemons do: the hub makes a new poller and a new wake-up descriptor."""

import subprocess
import sys

import pytest

from greenswitch.hub import pollers

BEFORE = """
import os, socket, threading, time
from greenswitch import get_hub, sleep, spawn
from greenswitch.green import socket as green
spawn(sleep, 0.001).join()
os.closerange(3, 256)
"""

AFTER = {
    "sleeps": "sleep(0.01); turns = get_hub().turns; sleep(0.01); assert get_hub().turns - turns < 10; print('right')",
    "is rung by a thread": """
from greenswitch import Event
event = Event()
threading.Thread(target=lambda: (time.sleep(0.02), event.set())).start()
event.wait()
print('right')
""",
    "has sockets": """
one, two = green.socketpair()
reader = spawn(one.recv, 10)
sleep(0)
two.sendall(b'x')
assert reader.get(10) == b'x'
print('right')
""",
    "has sockets with the numbers of those that are gone": """
pairs = [green.socketpair() for _ in range(4)]
readers = [spawn(one.recv, 10) for one, _ in pairs]
sleep(0)
for _, two in pairs:
    two.sendall(b'x')
assert [reader.get(10) for reader in readers] == [b'x'] * 4
print('right')
""",
}


@pytest.mark.parametrize("then", AFTER)
@pytest.mark.parametrize("poller", [name for name in ("epoll", "poll", "select") if name in pollers._choices()])
def test_it_goes_on(poller: str, then: str) -> None:
    program = f"import os; os.environ['GREENSWITCH_POLLER'] = {poller!r}\n{BEFORE}\n{AFTER[then]}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert (done.stdout, done.returncode) == ("right\n", 0), done.stderr
