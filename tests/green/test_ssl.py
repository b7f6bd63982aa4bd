"""The twin of `ssl`: every public name is there, contexts make cooperative sockets; and patching, early and late."""

from __future__ import annotations

import http.client
import ssl as original
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from greenswitch import sleep, spawn
from greenswitch.green import ssl
from greenswitch.sockets import Socket, create_connection, create_server
from greenswitch.tls import TLSSocket

ROOT = Path(__file__).resolve().parents[2]
CERTIFICATES = ROOT / "tests" / "certificates"
CA = str(CERTIFICATES / "ca.pem")


def public(module):
    return [name for name in dir(module) if not name.startswith("_")]


@pytest.fixture
def server(hub):
    """A server that speaks just enough HTTP, in a task: its address."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATES / "localhost.pem")

    def serve(listener):
        while True:
            spawn(answer, listener.accept()[0])

    def answer(conn):
        with context.wrap_socket(conn, server_side=True) as secure:
            if secure.recv(1000):
                sleep(1)
                secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")

    with create_server(("127.0.0.1", 0)) as listener:
        task = spawn(serve, listener)
        yield listener.getsockname()
        task.kill()
        sleep(1)


# -- the twin ----------------------------------------------------------------------------------------------------------


def test_every_public_name_of_the_original_is_there_and_listed():
    assert [name for name in public(original) if not hasattr(ssl, name)] == []
    assert set(public(original)) == set(ssl.__all__) <= set(dir(ssl))


def test_only_what_makes_sockets_is_ours():
    differing = {name for name in public(original) if getattr(ssl, name) is not getattr(original, name)}
    assert differing - {"wrap_socket"} == {
        *("SSLContext", "SSLSocket", "create_connection", "create_default_context", "get_server_certificate", "socket")
    }
    assert ssl.SSLObject is original.SSLObject and ssl.MemoryBIO is original.MemoryBIO


def test_star_import_brings_the_same_names_as_the_original_s():
    theirs, ours = {}, {}
    exec("from ssl import *", theirs)
    exec("from greenswitch.green.ssl import *", ours)
    assert set(ours) == set(theirs)


def test_unknown_name_is_an_attribute_error_that_names_both_modules():
    with pytest.raises(AttributeError, match=r"greenswitch\.green\.ssl has no 'wrap'.*standard library"):
        ssl.wrap


@pytest.mark.parametrize(
    "make",
    [
        lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        ssl.create_default_context,
        ssl._create_unverified_context,
        ssl._create_default_https_context,
        ssl._create_stdlib_context,
    ],
)
def test_every_context_of_the_twin_s_makes_cooperative_sockets(hub, make):
    context = make()
    assert type(context) is ssl.SSLContext and isinstance(context, original.SSLContext)
    context.check_hostname = False
    context.options |= ssl.OP_NO_TICKET  # the setters of the original recurse where its name is replaced
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with Socket() as plain, context.wrap_socket(plain) as secure:
        assert type(secure) is TLSSocket


def test_originals_stay_as_they_are_without_patching():
    assert original.SSLContext.sslsocket_class is original.SSLSocket
    assert type(original.create_default_context()) is original.SSLContext


def test_certificate_of_a_server_is_fetched(server):
    pem = ssl.get_server_certificate(server)
    assert (CERTIFICATES / "localhost.pem").read_text().endswith(pem)
    assert ssl.get_server_certificate(("127.0.0.1", server[1]), ca_certs=CA) == pem


@pytest.mark.skipif(not hasattr(original, "wrap_socket"), reason="Python 3.12 has taken it away")
def test_wrap_socket_of_the_module_is_cooperative(server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with ssl.wrap_socket(create_connection(server)) as secure:
            assert type(secure) is TLSSocket and secure.version()


def test_http_client_takes_a_context_of_the_twin_s(server, time):
    def ask():
        conn = http.client.HTTPSConnection("localhost", server[1], context=ssl.create_default_context(cafile=CA))
        conn._create_connection = lambda address, *args: create_connection(server)
        conn.request("GET", "/")
        with conn.getresponse() as response:
            return response.read()

    tasks = [spawn(ask) for _ in range(5)]
    assert [task.get() for task in tasks] == [b"hello"] * 5
    assert time.now == 1


# -- the patching, each in a process of its own -------------------------------------------------------------------

SERVER = f"""
import socket, threading

def serve(context):
    listener = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
    all_ten = threading.Barrier(10)
    def answer(conn):
        with conn:
            head = b""
            while b"\\r\\n\\r\\n" not in head:
                head += conn.recv(1000)
            all_ten.wait(30)  # nobody is answered before all have asked
            conn.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nConnection: close\\r\\n\\r\\nhello")
    def accept():
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]

def server_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain({str(CERTIFICATES / "localhost.pem")!r})
    return context

def ten_at_once(ask):
    import greenswitch
    tasks = [greenswitch.spawn(ask) for _ in range(10)]
    greenswitch.joinall(tasks, raise_error=True)
    return [task.value for task in tasks]

CA = {CA!r}
"""

PATCH = "from greenswitch import monkey; monkey.patch_all()\n"

TALK = """
ours = ssl.create_default_context(cafile=CA)
def ask():
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") as conn:
        conn.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        return conn.recv(1000)[-5:], type(conn).__name__, isinstance(conn, ssl.SSLSocket)
port = serve(server_context())
for context in (context, ours):
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.verify_flags |= 0
    assert ten_at_once(ask) == [(b"hello", "TLSSocket", True)] * 10
print("talked")
"""

REQUESTS = """
port = serve(server_context())
session = requests.Session()
session.trust_env = False
session.verify = CA
def ask():
    return session.get(f"https://localhost:{port}/", timeout=10).text
assert ten_at_once(ask) == ["hello"] * 10
print("talked")
"""

BEFORE = {
    "a context": "import ssl; context = ssl.create_default_context(cafile=CA)\n" + PATCH,
    "names by star": "from ssl import *; import socket, ssl; context = create_default_context(cafile=CA)\n" + PATCH,
    "nothing": PATCH + "import ssl; context = ssl.create_default_context(cafile=CA)\n",
    "the class by name": (
        "import ssl; from ssl import SSLContext, PROTOCOL_TLS_CLIENT\n"
        + PATCH
        + "context = SSLContext(PROTOCOL_TLS_CLIENT); context.load_verify_locations(CA)\n"
    ),
    "a subclass": (
        "import ssl\nclass Mine(ssl.SSLContext):\n    pass\n"
        + PATCH
        + "context = Mine(ssl.PROTOCOL_TLS_CLIENT); context.load_verify_locations(CA)\n"
    ),
}


def run(script):
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "talked\n"), done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("before", BEFORE)
def test_whatever_was_made_before_patching_is_cooperative_and_does_not_recurse(before):
    run(SERVER + BEFORE[before] + TALK)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["before", "after"])
def test_requests_imported_before_or_after_patching_goes_on_while_others_do(order):
    pytest.importorskip("requests")
    head = "import requests\n" + PATCH if order == "before" else PATCH + "import requests\n"
    run(SERVER + head + "import ssl\n" + REQUESTS)


@pytest.mark.slow
def test_classes_keep_their_identity_and_unpatching_restores_all():
    run(
        "import ssl, socket\n"
        "def look(): return {one: dict(vars(one)) for one in (ssl, socket, ssl.SSLContext)}\n"
        "before = look()\n"
        "context, cls, sock = ssl.SSLContext, ssl.SSLObject, ssl.SSLSocket\n"
        + PATCH
        + "assert ssl.SSLContext is context and ssl.SSLObject is cls\n"
        "assert ssl.SSLSocket is not sock and issubclass(ssl.SSLSocket, sock)\n"
        "assert context.sslsocket_class is ssl.SSLSocket\n"
        "class Mine(ssl.SSLSocket): pass\n"
        "context = ssl.create_default_context(); context.sslsocket_class = Mine\n"
        "with context.wrap_socket(socket.socket(), server_hostname='localhost') as one: assert type(one) is Mine\n"
        "monkey.unpatch_all()\n"
        "after = look()\n"
        "for one, names in before.items():\n"
        "    assert names == after[one], [key for key in names if names[key] is not after[one][key]]\n"
        "print('talked')\n"
    )
