"""psycopg2 and psycopg 3, which wait in C: `greenswitch.drivers` has them park, with and without monkey patching."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow
with_and_without_patching = pytest.mark.parametrize("patched", [True, False], ids=["patched", "not patched"])

CONNECT = """
from greenswitch import drivers
{driver}
DSN = f"host=127.0.0.1 port={{sys.argv[1]}} user=test dbname=postgres"
def query(connection, text, *arguments):
    with connection.cursor() as cursor:
        cursor.execute(text, arguments)
        return cursor.fetchone()[0]
"""
PSYCOPG2 = CONNECT.format(driver="import psycopg2 as driver\ndrivers.patch_psycopg2()")
PSYCOPG3 = CONNECT.format(driver="import psycopg as driver\ndrivers.patch_psycopg()\ndrivers.patch_psycopg()")
both_drivers = pytest.mark.parametrize(
    ("module", "connect"), [("psycopg2", PSYCOPG2), ("psycopg", PSYCOPG3)], ids=["psycopg2", "psycopg 3"]
)


@both_drivers
@with_and_without_patching
def test_a_hundred_queries_wait_at_once(
    postgres_port: int, script: Callable[..., str], module: str, connect: str, patched: bool
):
    pytest.importorskip(module)
    script(connect + """
connections = [task.get() for task in [greenswitch.spawn(driver.connect, DSN) for _ in range(100)]]
sleep = "select %s::int from pg_sleep(0.2)"
assert at_once(lambda number: query(connections[number], sleep, number)) == list(range(100))
for connection in connections:
    connection.close()
""", postgres_port, patched=patched)


@both_drivers
def test_a_large_query_and_a_large_answer_go_both_ways(
    postgres_port: int, script: Callable[..., str], module: str, connect: str
):
    pytest.importorskip(module)
    script(connect + """
def echo(number):
    connection = driver.connect(DSN)
    try:
        text = str(number) * 2_000_000
        return query(connection, "select %s::text", text) == text
    finally:
        connection.close()
assert at_once(echo, range(8), seconds=20) == [True] * 8
""", postgres_port)


@both_drivers
def test_an_error_of_the_server_reaches_its_own_task_only(
    postgres_port: int, script: Callable[..., str], module: str, connect: str
):
    pytest.importorskip(module)
    script(connect + """
def divide(number):
    connection = driver.connect(DSN)
    try:
        return query(connection, "select 10 / %s from pg_sleep(0.2)", number)
    except driver.errors.DivisionByZero:
        connection.rollback()
        return query(connection, "select -1")
    finally:
        connection.close()
assert at_once(divide, [1, 0] * 10) == [10, -1] * 10
""", postgres_port)


def test_after_a_kill_psycopg2_closes_the_connection_and_its_pool_makes_another(
    postgres_port: int, script: Callable[..., str]
):
    pytest.importorskip("psycopg2")
    script(PSYCOPG2 + """
from psycopg2.pool import ThreadedConnectionPool
pool = ThreadedConnectionPool(1, 2, DSN)
def sleep():
    connection = pool.getconn()
    try:
        return query(connection, "select 1 from pg_sleep(60)")
    finally:
        pool.putconn(connection)
for _ in range(5):
    victim = greenswitch.spawn(sleep)
    greenswitch.sleep(0.1)
    victim.kill()
    try:
        with greenswitch.timeout(0.1):
            sleep()
    except TimeoutError:
        pass
    else:
        raise AssertionError("not timed out")
connections = [pool.getconn(), pool.getconn()]
assert [query(connection, "select 7") for connection in connections] == [7, 7]
""", postgres_port)


@with_and_without_patching
def test_after_a_kill_psycopg_has_cancelled_the_query_and_the_connection_goes_on(
    postgres_port: int, script: Callable[..., str], patched: bool
):
    pytest.importorskip("psycopg")
    script(PSYCOPG3 + """
connection = driver.connect(DSN, autocommit=True)
victim = greenswitch.spawn(query, connection, "select 1 from pg_sleep(50)")
greenswitch.sleep(0.1)
victim.kill()
assert victim.dead and not connection.closed
assert query(connection, "select 7") == 7
try:
    with greenswitch.timeout(0.1):
        query(connection, "select 1 from pg_sleep(50)")
except TimeoutError:
    pass
else:
    raise AssertionError("not timed out")
assert query(connection, "select 8") == 8
other = driver.connect(DSN)
assert query(other, "select count(*) from pg_stat_activity where query like '%%pg_sleep(50)%%' and state = 'active' "
                    "and pid <> pg_backend_pid()") == 0
""", postgres_port, patched=patched)


def test_psycopg_is_told_of_notifications_and_of_time_outs(postgres_port: int, script: Callable[..., str]):
    pytest.importorskip("psycopg")
    script(PSYCOPG3 + """
def listen(number):
    with driver.connect(DSN, autocommit=True) as connection:
        connection.execute("listen news")
        ready.append(number)
        got = [notice.payload for notice in connection.notifies(timeout=20, stop_after=1)]
        return got + [notice.payload for notice in connection.notifies(timeout=0.2)]
def notify():
    while len(ready) < 20:
        greenswitch.sleep(0.01)
    with driver.connect(DSN, autocommit=True) as connection:
        connection.execute("notify news, 'hello'")
ready = []
greenswitch.spawn(notify)
assert at_once(listen, range(20), seconds=1) == [["hello"]] * 20
""", postgres_port, patched=False)
