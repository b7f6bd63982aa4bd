"""Libraries that run an event loop beside threads, in a patched process: asgiref and Django, anyio, uvicorn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow
Script = Callable[..., str]


# -- asgiref and Django ------------------------------------------------------------------------------------------------

ASGIREF = """
import asyncio, threading
from asgiref.sync import async_to_sync, sync_to_async

def blocking(number):
    time.sleep(0.2)
    return number

async def view(number):
    return await sync_to_async(blocking)(number)
"""


def test_asgiref_goes_from_threads_to_coroutines_and_back(script: Script):
    pytest.importorskip("asgiref")
    script(ASGIREF + """
async def inner(number):
    await asyncio.sleep(0.01)
    return number, asyncio.get_running_loop() is not None
def middle(number):
    return async_to_sync(inner)(number)
async def outer(number):
    sensitive = await sync_to_async(middle)(number)
    return sensitive, await sync_to_async(middle, thread_sensitive=False)(number)
expected = ((1, True), (1, True))
assert async_to_sync(outer)(1) == expected
assert asyncio.run(outer(1)) == expected
assert greenswitch.spawn(async_to_sync(outer), 1).get() == expected
""")


def test_asgirefs_views_in_many_threads_wait_at_once(script: Script):
    pytest.importorskip("asgiref")
    script(ASGIREF + """
assert at_once(async_to_sync(view), range(30)) == list(range(30))
""")


DJANGO = """
import asyncio, threading, urllib.request
import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", DATABASES={}, MIDDLEWARE=[])
django.setup()

def blocking(request):
    time.sleep(0.2)
    return HttpResponse("blocking")

async def waiting(request):
    await asyncio.sleep(0.2)
    return HttpResponse("waiting")

urlpatterns = [path("blocking", blocking), path("waiting", waiting)]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

def get(url):
    with opener.open(url) as answer:
        return answer.read()
"""


def test_django_serves_coroutines_and_functions_by_wsgi_in_threads(script: Script):
    pytest.importorskip("django")
    script(DJANGO + """
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from django.core.wsgi import get_wsgi_application

class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64
class Quiet(WSGIRequestHandler):
    def log_message(self, *words): pass
server = make_server("127.0.0.1", 0, get_wsgi_application(), Server, Quiet)
thread = threading.Thread(target=server.serve_forever)
thread.start()
url = f"http://127.0.0.1:{server.server_port}"
assert at_once(get, [f"{url}/waiting", f"{url}/blocking"] * 15) == [b"waiting", b"blocking"] * 15
server.shutdown()
thread.join()
server.server_close()
""")


UVICORN = """
import uvicorn

class Served:
    '''uvicorn in a thread, from when it has started until it has ended.'''
    def __init__(self, app, loop):
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", loop=loop))
        self.thread = threading.Thread(target=self.server.run)
    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return "http://127.0.0.1:%d" % self.server.servers[0].sockets[0].getsockname()[1]
    def __exit__(self, *error):
        self.server.should_exit = True
        self.thread.join()
"""


def test_django_serves_coroutines_and_functions_by_asgi(script: Script):
    pytest.importorskip("django")
    pytest.importorskip("uvicorn")
    script(DJANGO + UVICORN + """
from django.core.asgi import get_asgi_application
with Served(get_asgi_application(), "asyncio") as url:
    assert at_once(get, [f"{url}/waiting", f"{url}/blocking"] * 15) == [b"waiting", b"blocking"] * 15
""")


# -- uvicorn -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_in_a_thread_serves_the_other_threads_and_ends(loop: str, script: Script):
    pytest.importorskip("uvicorn")
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    script("""
import asyncio, threading, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def get(url):
    with opener.open(url) as answer:
        return answer.read()
async def app(scope, receive, send):
    assert scope["type"] == "http", scope
    await asyncio.sleep(0.2)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})
""" + UVICORN + """
with Served(app, sys.argv[1]) as url:
    assert at_once(get, [f"{url}/{number}" for number in range(30)]) == [b"/%d" % number for number in range(30)]
""", loop)


# -- anyio -------------------------------------------------------------------------------------------------------------


def test_threads_call_coroutines_by_anyios_blocking_portal(script: Script):
    pytest.importorskip("anyio")
    script("""
import anyio
from anyio import from_thread, to_thread
async def double(number):
    await anyio.sleep(0.2)
    return 2 * number
async def by_a_worker(number):
    return await to_thread.run_sync(from_thread.run, double, number)
with from_thread.start_blocking_portal() as portal:
    assert portal.call(double, 2) == 4
    assert at_once(lambda number: portal.call(double, number), range(50)) == list(range(0, 100, 2))
    assert portal.call(by_a_worker, 3) == 6
    future = portal.start_task_soon(anyio.sleep_forever)
    future.cancel()
with from_thread.BlockingPortalProvider() as portal:
    assert portal.call(double, 4) == 8
assert anyio.run(by_a_worker, 5) == 10
""")
