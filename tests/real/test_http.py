"""HTTP in a patched process: requests and urllib3 against servers of the standard library's and of werkzeug's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
CERTIFICATES = Path(__file__).resolve().parent.parent / "certificates"

SERVER = """
import http.server, socketserver, threading

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        opened.add(self.client_address)
        status, _, rest = self.path[1:].partition("/")
        if status == "wait":
            time.sleep(float(rest.partition("?")[0]))
        self.send_response(302 if status == "to" else 200)
        if status == "to":
            self.send_header("Location", f"/{rest}")
        body = self.path.encode()
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body[::-1])
    def log_message(self, *words):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

opened = set()
server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
"""
CLIENT = """
import requests
from requests.adapters import HTTPAdapter
session = requests.Session()
session.trust_env = False
for scheme in ("http://", "https://"):
    session.mount(scheme, HTTPAdapter(pool_connections=10, pool_maxsize=100, pool_block=True))
"""


@pytest.fixture
def needs_requests() -> None:
    pytest.importorskip("requests")


def test_a_hundred_requests_wait_at_once_in_one_session(needs_requests: None, script: Callable[..., str]):
    script(SERVER + CLIENT + """
get = lambda number: session.get(f"{url}/wait/0.2?{number}").text
assert at_once(get) == [f"/wait/0.2?{number}" for number in range(100)]
assert len(opened) <= 100
at_once(get)
assert len(opened) <= 100, "connections are kept alive"
""")


def test_a_small_pool_has_requests_wait_for_a_connection(needs_requests: None, script: Callable[..., str]):
    script(SERVER + CLIENT + """
session.mount("http://", HTTPAdapter(pool_maxsize=10, pool_block=True))
assert at_once(lambda number: session.get(f"{url}/wait/0.2").status_code, range(60)) == [200] * 60
assert len(opened) == 10
""")


def test_large_bodies_go_both_ways(needs_requests: None, script: Callable[..., str]):
    script(SERVER + CLIENT + """
def post(number):
    body = bytes([number]) * 1_000_000 + b"end"
    return session.post(url, data=body).content == body[::-1]
assert at_once(post, range(20), seconds=10) == [True] * 20
""")


def test_redirects_are_followed(needs_requests: None, script: Callable[..., str]):
    script(SERVER + CLIENT + """
def get(number):
    answer = session.get(f"{url}/to/to/wait/0.2")
    return len(answer.history), answer.text
assert at_once(get, range(50)) == [(2, "/wait/0.2")] * 50
""")


def test_time_outs_and_kills_leave_a_session_that_works(needs_requests: None, script: Callable[..., str]):
    script(SERVER + CLIENT + """
session.mount("http://", HTTPAdapter(pool_maxsize=5, pool_block=True))
def impatient(number):
    try:
        session.get(f"{url}/wait/60", timeout=(20, 0.2))
    except requests.ReadTimeout:
        return "read timed out"
assert at_once(impatient, range(5), seconds=2) == ["read timed out"] * 5
victims = [greenswitch.spawn(session.get, f"{url}/wait/60") for _ in range(5)]
greenswitch.sleep(0.1)
greenswitch.killall(victims)
try:
    with greenswitch.timeout(0.1):
        session.get(f"{url}/wait/60")
except TimeoutError:
    pass
else:
    raise AssertionError("not timed out")
get = lambda number: session.get(f"{url}/ok/{number}").text
assert at_once(get, range(20), seconds=2) == [f"/ok/{n}" for n in range(20)]
""")


def test_tls_with_a_certificate_authority_of_ones_own(needs_requests: None, script: Callable[..., str]):
    script(SERVER + CLIENT + """
import ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + "/localhost.pem")
secure = Server(("127.0.0.1", 0), Handler)
secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=secure.serve_forever, daemon=True).start()
url = f"https://localhost:{secure.server_port}"
try:
    session.get(url)
except requests.exceptions.SSLError as error:
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)
else:
    raise AssertionError("nobody knows this authority")
session.verify = sys.argv[1] + "/ca.pem"
get = lambda number: session.get(f"{url}/wait/0.2?{number}").text
assert at_once(get, range(60)) == [f"/wait/0.2?{number}" for number in range(60)]
""", CERTIFICATES)


def test_requests_that_was_imported_before_the_patching_works_too(needs_requests: None, script: Callable[..., str]):
    script("""
import requests
from greenswitch import monkey
report = monkey.patch_all()
""" + SERVER + CLIENT + """
at_once(lambda number: session.get(f"{url}/wait/0.2").text, range(40))
""", patched=False)


def test_urllib_of_the_standard_library_waits_at_once(script: Callable[..., str]):
    script(SERVER + """
import urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def get(number):
    with opener.open(f"{url}/wait/0.2?{number}") as answer:
        return answer.read()
assert at_once(get) == [f"/wait/0.2?{n}".encode() for n in range(100)]
""")


def test_the_server_can_be_shut_down_while_requests_wait(script: Callable[..., str]):
    script(SERVER + """
import http.client
connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
connection.request("GET", "/wait/0.2")
greenswitch.sleep(0.05)
server.shutdown()
assert connection.getresponse().read() == b"/wait/0.2"
connection.close()
server.server_close()
""")


def test_flask_serves_a_hundred_at_once_by_werkzeugs_server(script: Callable[..., str]):
    pytest.importorskip("flask")
    script("""
import threading
from http.client import HTTPConnection
from flask import Flask, request
from werkzeug.serving import make_server, WSGIRequestHandler

class Quiet(WSGIRequestHandler):
    def log(self, *words): pass

app = Flask("app")
@app.route("/<int:number>")
def wait(number):
    time.sleep(0.2)
    return {"number": number, "query": request.args["q"]}
server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
thread = threading.Thread(target=server.serve_forever)
thread.start()

def get(number):
    connection = HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", f"/{number}?q={number}")
    answer = connection.getresponse().read()
    connection.close()
    return answer
assert at_once(get) == [b'{"number":%d,"query":"%d"}\\n' % (n, n) for n in range(100)]
server.shutdown()
thread.join()
server.server_close()
""")
