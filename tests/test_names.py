"""Looking up names: numbers at once, names in an OS thread while others run."""

import socket as stdlib
import threading

import pytest

from greenswitch import HubError, joinall, names, sleep, spawn
from greenswitch.names import (
    getaddrinfo,
    getfqdn,
    gethostbyaddr,
    gethostbyname,
    gethostbyname_ex,
    getnameinfo,
    is_numeric,
    resolve,
)
from greenswitch.sockets import Socket, create_connection, create_server


@pytest.fixture
def no_threads(monkeypatch):
    """Fail whoever asks for a thread."""

    def refuse(function, *args):
        raise AssertionError(f"{function} was to run in a thread")

    monkeypatch.setattr(names, "_look_up", refuse)


class SlowResolver:
    """Stands for the C library's: holds every look-up until it is let go, and says in which thread it ran."""

    def __init__(self, monkeypatch, result=None, error=None):
        self.go = threading.Event()
        self.threads = []
        self.calls = []
        self.result, self.error = result, error
        monkeypatch.setattr(names, "_getaddrinfo", self)

    def __call__(self, *args, **kwargs):
        self.calls.append(args)
        self.threads.append(threading.current_thread())
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        return self.result


@pytest.mark.parametrize(
    "host",
    [None, "", b"", "127.0.0.1", b"127.0.0.1", "::1", "::", "fe80::1%1", "0.0.0.0", "10.0.0.255", bytearray(b"::1")],
)
def test_numbers_need_no_look_up(host):
    assert is_numeric(host)


@pytest.mark.parametrize("host", ["localhost", b"localhost", "127.1", "1.2.3.4.5", "1.2.3.4%1", "a\0b", "::g", "ü.de"])
def test_names_need_a_look_up(host):
    assert not is_numeric(host)


@pytest.mark.parametrize(
    "args",
    [
        ("127.0.0.1", 80),
        ("127.0.0.1", "80"),
        ("::1", None),
        (None, 80),
        ("127.0.0.1", 80, stdlib.AF_INET, stdlib.SOCK_STREAM),
    ],
)
def test_numeric_addresses_start_no_thread(no_threads, args):
    assert getaddrinfo(*args) == stdlib.getaddrinfo(*args)


def test_numeric_addresses_start_no_thread_in_sockets_either(hub, no_threads):
    with create_server(("127.0.0.1", 0)) as listener:
        with create_connection(listener.getsockname()), listener.accept()[0]:
            pass
    with Socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as one:
        one.bind(("", 0))
        one.sendto(b"abc", ("127.0.0.1", one.getsockname()[1]))
        one.connect(("127.0.0.1", 9))
    assert gethostbyname("127.0.0.1") == "127.0.0.1"
    numeric = stdlib.NI_NUMERICHOST | stdlib.NI_NUMERICSERV
    assert getnameinfo(("127.0.0.1", 80), numeric) == ("127.0.0.1", "80")


def test_the_look_up_of_a_service_by_name_is_no_number(real_hub):
    assert getaddrinfo("127.0.0.1", "http", stdlib.AF_INET, stdlib.SOCK_STREAM)[0][4] == ("127.0.0.1", 80)


def test_localhost_is_looked_up(real_hub):
    assert gethostbyname("localhost") == "127.0.0.1"
    assert "127.0.0.1" in gethostbyname_ex("localhost")[2]
    assert {entry[4][0] for entry in getaddrinfo("localhost", 80)} <= {"127.0.0.1", "::1"}
    assert gethostbyaddr("127.0.0.1") == stdlib.gethostbyaddr("127.0.0.1")
    assert getnameinfo(("127.0.0.1", 80), 0) == stdlib.getnameinfo(("127.0.0.1", 80), 0)
    for name in ("localhost", "127.0.0.1", "", " 0.0.0.0 ", "::", "no such name"):
        assert getfqdn(name) == stdlib.getfqdn(name)


def test_sockets_take_names_everywhere(real_hub):
    with Socket() as listener:
        listener.bind(("localhost", 0))
        listener.listen()
        with Socket() as client:
            client.connect(("localhost", listener.getsockname()[1]))
            listener.accept()[0].close()
        with create_connection(("localhost", listener.getsockname()[1])), listener.accept()[0]:
            pass
    with Socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
        one.sendto(b"a", ("localhost", port))
        one.sendmsg([b"b"], [], 0, ("localhost", port))
        assert one.recv(10) + one.recv(10) == b"ab"
    with create_server(("localhost", 0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_others_run_during_a_look_up(real_hub, monkeypatch):
    resolver = SlowResolver(monkeypatch, result=["found"])
    task = spawn(getaddrinfo, "slow.example", 80)
    other = spawn(getaddrinfo, "slower.example", 81)
    sleep(0.01)
    assert task.state == other.state == "parked"
    assert "getaddrinfo" in repr(task) or "SlowResolver" in repr(task)
    resolver.go.set()
    assert task.get(10) == other.get(10) == ["found"]
    assert threading.current_thread() not in resolver.threads
    assert sorted(call[0] for call in resolver.calls) == ["slow.example", "slower.example"]


def test_failed_look_up_raises_the_original_s_error(real_hub, monkeypatch):
    resolver = SlowResolver(monkeypatch, error=stdlib.gaierror(stdlib.EAI_NONAME, "Name or service not known"))
    resolver.go.set()
    address = ("nobody.example", 80)
    with Socket() as sock:
        for call in (
            lambda: getaddrinfo(*address),
            lambda: create_connection(address),
            lambda: sock.connect(address),
            lambda: sock.connect_ex(address),
            lambda: sock.bind(address),
            lambda: resolve(stdlib.AF_INET, address),
        ):
            with pytest.raises(stdlib.gaierror) as caught:
                call()
            assert caught.value.errno == stdlib.EAI_NONAME


def test_killed_during_a_look_up_leaves_nothing_behind(real_hub, monkeypatch):
    resolver = SlowResolver(monkeypatch, result=["found"])
    tasks = [spawn(create_connection, ("slow.example", 80)), spawn(getaddrinfo, "slow.example", 80)]
    sleep(0.01)
    for task in tasks:
        task.kill()
        assert task.state == "killed"
    resolver.go.set()
    assert getaddrinfo("again.example", 80) == ["found"]


def test_look_up_is_refused_inside_the_hub(real_hub):
    caught = []

    def in_hub():
        assert getaddrinfo("127.0.0.1", 80)
        try:
            getaddrinfo("localhost", 80)
        except HubError as error:
            caught.append(str(error))

    real_hub.call_soon(in_hub)
    sleep(0.01)
    assert "inside the hub" in caught[0]


def test_many_look_ups_at_once_all_end(real_hub):
    tasks = [spawn(gethostbyname, "localhost") for _ in range(100)]
    joinall(tasks, timeout=30, raise_error=True)
    assert {task.value for task in tasks} == {"127.0.0.1"}


@pytest.mark.parametrize(
    "address", ["/path", b"\0abstract", ("::1",), 5, None, ("127.0.0.1", 80), ("::1", 80, 0, 0), (None, 1)]
)
def test_what_needs_no_resolving_stays_as_it_is(no_threads, address):
    assert resolve(stdlib.AF_INET6, address) is address
    assert resolve(getattr(stdlib, "AF_UNIX", -1), address) is address


def test_resolving_keeps_port_and_scope(real_hub):
    assert resolve(stdlib.AF_INET, ("localhost", 80)) == ("127.0.0.1", 80)
    if any(entry[0] == stdlib.AF_INET6 for entry in stdlib.getaddrinfo("localhost", None)):
        assert resolve(stdlib.AF_INET6, ("localhost", 80, 1, 2)) == ("::1", 80, 1, 2)
