"""PyMySQL, unchanged, in a patched process: a hundred queries that a real MariaDB takes its time for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("pymysql")
pytestmark = pytest.mark.slow

CONNECT = """
import pymysql
def connect():
    return pymysql.connect(host="127.0.0.1", port=int(sys.argv[1]), user="root", database="mysql", ssl_disabled=True)
def query(connection, text):
    with connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetchone()[0]
"""


def test_a_hundred_queries_wait_at_once(mariadb_port: int, script: Callable[..., str]):
    script(CONNECT + """
connections = [task.get() for task in [greenswitch.spawn(connect) for _ in range(100)]]
assert at_once(lambda number: query(connections[number], f"select {number} + sleep(0.2)")) == list(range(100))
""", mariadb_port)


def test_a_killed_query_leaves_a_connection_that_can_be_made_anew(mariadb_port: int, script: Callable[..., str]):
    script(CONNECT + """
connection = connect()
victim = greenswitch.spawn(query, connection, "select sleep(60)")
greenswitch.sleep(0.1)
victim.kill()
assert victim.dead
connection.ping(reconnect=True)
assert query(connection, "select 7") == 7
""", mariadb_port)


def test_the_drivers_own_time_out_ends_a_query(mariadb_port: int, script: Callable[..., str]):
    script(CONNECT + """
def impatient(number):
    connection = pymysql.connect(host="127.0.0.1", port=int(sys.argv[1]), user="root", read_timeout=1,
                                 ssl_disabled=True)
    try:
        query(connection, "select sleep(60)")
    except pymysql.OperationalError as error:
        return "timed out" in str(error)
assert at_once(impatient, range(30), seconds=1) == [True] * 30
""", mariadb_port)
