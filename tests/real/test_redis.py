"""redis-py, unchanged, in a patched process: a hundred tasks that block on a real Redis at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("redis")
pytestmark = pytest.mark.slow

CONNECT = """
import redis
client = redis.Redis(port=int(sys.argv[1]), decode_responses=True, socket_timeout=20, max_connections=200)
client.flushall()
"""


def test_a_hundred_tasks_block_on_lists_at_once(redis_port: int, script: Callable[..., str]):
    script(CONNECT + """
def push():
    greenswitch.sleep(0.2)
    for number in range(100):
        client.lpush(f"list {number}", number)
pusher = greenswitch.spawn(push)
assert at_once(lambda number: client.blpop(f"list {number}")) == [(f"list {n}", str(n)) for n in range(100)]
# The server's own time-out, too.
assert at_once(lambda number: client.blpop(f"list {number}", timeout=0.2)) == [None] * 100
""", redis_port)


def test_every_subscriber_gets_every_message(redis_port: int, script: Callable[..., str]):
    script(CONNECT + """
def subscribe(number):
    with client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("news")
        return [message["data"] for _, message in zip(range(20), (m for m in channel.listen() if m))]
def publish():
    while client.pubsub_numsub("news")[0][1] < 50:
        greenswitch.sleep(0.01)
    for number in range(20):
        assert client.publish("news", number) == 50
publisher = greenswitch.spawn(publish)
assert at_once(subscribe, range(50)) == [[str(n) for n in range(20)]] * 50
publisher.get()
""", redis_port)


def test_pipelines_of_many_tasks_do_not_mix(redis_port: int, script: Callable[..., str]):
    script(CONNECT + """
def count(number):
    with client.pipeline() as pipeline:
        for step in range(50):
            pipeline.incr(f"counter {number}").incr("all")
        return pipeline.execute()[::2]
assert at_once(count) == [list(range(1, 51))] * 100
assert client.get("all") == "5000"
""", redis_port)


def test_a_bounded_pool_lets_tasks_wait_for_a_connection(redis_port: int, script: Callable[..., str]):
    script(CONNECT + """
pool = redis.BlockingConnectionPool(max_connections=10, timeout=20, port=int(sys.argv[1]))
client = redis.Redis(connection_pool=pool)
assert at_once(lambda number: client.blpop("nothing", timeout=0.2), range(40)) == [None] * 40
assert len(client.client_list()) <= 11
""", redis_port)


def test_kill_and_time_out_lose_no_connection_of_the_pool_and_no_item(redis_port: int, script: Callable[..., str]):
    script(CONNECT + """
pool = redis.BlockingConnectionPool(max_connections=2, timeout=2, port=int(sys.argv[1]), decode_responses=True)
client = redis.Redis(connection_pool=pool)
for _ in range(5):
    victims = [greenswitch.spawn(client.blpop, "nothing") for _ in range(2)]
    greenswitch.sleep(0.02)
    greenswitch.killall(victims)
    try:
        with greenswitch.timeout(0.02):
            client.blpop("nothing")
    except TimeoutError:
        pass
    else:
        raise AssertionError("not timed out")
# Had a killed one's connection gone back as it was, its answer would be the next one's.
def both(number):
    client.set(f"key {number}", number)
    return client.get(f"key {number}")
assert at_once(both, range(20)) == [str(n) for n in range(20)]
client.lpush("nothing", "something")
assert client.blpop("nothing", timeout=1) == ("nothing", "something")
""", redis_port)
