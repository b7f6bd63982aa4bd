"""An echo server that answers in capitals, and a client for it: the first socket tutorial, for thousands at once.

Two things differ from the tutorial that serves one client at a time: where `socket` comes from, and the `spawn` around
`talk`. Whatever blocks the thread there (accept, recv, sendall, reading the terminal) parks its own task here.

  python -m greenswitch.echo              serve on 127.0.0.1:8090 until Ctrl-C
  nc 127.0.0.1 8090                       in other terminals, as many as you like: type a line, see it in capitals
  python -m greenswitch.echo --connect    the same without nc; Ctrl-D or a line `exit` ends it
  echo hello | python -m greenswitch.echo --connect 127.0.0.1:8090
  python -m greenswitch.echo --port 0     any free port: the first line says which
  python -m greenswitch.echo '[::1]:8090' --quiet --verbatim

Exit status: 0 for a server stopped by Ctrl-C or SIGTERM, and a client that has sent all; 130 for a client stopped by
Ctrl-C; 1 if something failed, as when the port is taken or the server ends the conversation; 2 for wrong arguments.

Knows sockets and tasks, as any program that uses greenswitch does. Nothing knows it.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from greenswitch import Hub, killall, run, sleep, spawn, wait, wait_readable
from greenswitch.green import socket  # in place of: import socket

Address = tuple[str, int]
Answer = Callable[[bytes], bytes]
Log = Callable[..., Any]

HERE: Address = ("127.0.0.1", 8090)
PAUSE = 0.1  # seconds between two tries to accept while that fails
LAST_REPLIES = 5.0  # seconds that a server gets to answer the last line, and to close
CURES = {
    errno.EADDRINUSE: ": another program listens there; stop it, or choose another port by --port N (0: any free one)",
    errno.ECONNREFUSED: ": nobody listens there; start the server first: python -m greenswitch.echo",
}


def serve(address: Address = HERE, answer: Answer = bytes.upper, log: Log = print) -> None:
    """Listen on `address` and answer every client, each in a task of its own, until killed.

    What is received is logged (`log` gets words, as print does), goes through `answer`, and back. Port 0 takes any free
    one; the line printed first says which. Raises OSError if it can't listen there.
    """
    family, _, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.create_server(where, family=family, backlog=1024) as listener:
        say("listening on", spell(listener.getsockname()))
        welcome(listener, answer, log)


def welcome(listener: socket.socket, answer: Answer = bytes.upper, log: Log = print) -> None:
    """Accept clients until `listener` is closed. Failing to accept one (too many open files) doesn't end it."""
    failing = False
    while True:
        try:
            conn, addr = listener.accept()
        except OSError as error:
            if listener.fileno() < 0:
                return
            if not failing:  # said once, not ten times a second
                say(f"cannot accept: {error.strerror} (`ulimit -n` limits the open files); trying on")
            failing = True
            sleep(PAUSE)
        else:
            failing = False
            spawn(talk, conn, addr, answer, log)


def talk(conn: socket.socket, addr: Any, answer: Answer = bytes.upper, log: Log = print) -> None:
    """Answer one client until it leaves."""
    peer = spell(addr)
    with conn:
        try:
            while True:
                data = conn.recv(1024)
                log(peer, data)
                if not data:
                    break
                conn.sendall(answer(data))
        except ConnectionError as error:
            log(peer, error.strerror)


def connect(address: Address = HERE, lines: Iterable[bytes] = (), show: Log = print) -> None:
    """Send `lines`, and meanwhile show what comes back, until the server has seen the end and closes.

    Raises OSError if it can't be reached, closes before all is sent, or hasn't closed LAST_REPLIES seconds later.
    """
    with socket.create_connection(address) as conn:
        sending = spawn(send_lines, conn, lines)
        showing = spawn(show_replies, conn, show)
        try:
            wait([sending, showing], count=1)
            if sending.successful():
                showing.join(LAST_REPLIES)
            for error in (sending.exception, showing.exception):
                if error is not None:
                    raise error
            if not sending.ready():
                raise ConnectionError("the server has closed the connection")
            if not showing.ready():
                raise TimeoutError(f"the server has not closed the connection {LAST_REPLIES} s after the last line")
        finally:
            killall([sending, showing])


def send_lines(conn: socket.socket, lines: Iterable[bytes]) -> None:
    """Send all `lines`, and that there will be no more."""
    for line in lines:
        conn.sendall(line)
    conn.shutdown(socket.SHUT_WR)


def show_replies(conn: socket.socket, show: Log) -> None:
    """Show what arrives until the other side closes."""
    while data := conn.recv(1024):
        show(data)


# -- at a terminal, and on the command line ----------------------------------------------------------------------------


def typed_lines(prompt: str = "") -> Iterator[bytes]:
    """Yield the lines of standard input (a terminal, a pipe, a file) until its end or a line `exit`.

    Only the task that asks for the next one waits. Other programs share the fd, so it stays a blocking one.
    """
    rest = b""
    say(prompt, end="")
    try:
        while True:
            wait_readable(0)
            more = os.read(0, 65536)
            *lines, rest = (rest + more).split(b"\n")
            for line in lines:
                if line.strip() == b"exit":
                    return
                yield line + b"\n"
            if not more:
                yield rest
                return
    finally:
        if prompt:
            say()  # below the prompt that waits


def converse(address: Address) -> None:
    """Connect standard input and output; if a person sits there, with a prompt."""
    is_person = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    prompt = "> " if is_person else ""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # as the bytes came, whatever they mean

    def show(data: bytes) -> None:
        say(data.decode(errors="surrogateescape"), end=prompt if data.endswith(b"\n") else "")

    connect(address, typed_lines(prompt) if sys.stdin is not None else (), show)


def say(*words: object, end: str = "\n") -> None:
    """Print at once; when nobody reads it any more (`| head`), end the program."""
    try:
        print(" ".join(map(str, words)) + end, end="", flush=True)  # one write: Ctrl-C can't cut a line in two
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains once more when it exits
        raise SystemExit(1) from None


def spell(address: Any) -> str:
    """Return `address` as it is typed: HOST:PORT or [IPV6]:PORT."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> Address:
    """Read HOST:PORT, HOST, PORT or [IPV6]:PORT; what is missing is HERE's."""
    match = re.fullmatch(r"(\[.+\]|[^:\[\]]*)(?::(\d+))?", f":{text}" if text.isdecimal() else text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT (an IPv6 address goes in brackets: [::1]:8090)")
    return match[1].strip("[]") or HERE[0], int(match[2] or HERE[1])


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line, or say what is wrong with it and exit with status 2."""
    parser = argparse.ArgumentParser("python -m greenswitch.echo", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = (__doc__ or "").rpartition("\n\n")[0]
    add = parser.add_argument
    add("address", nargs="?", type=parse_address, metavar="HOST:PORT", help="where to listen (default: 127.0.0.1:8090)")
    add("--host", help="the host alone")
    add("--port", type=int, help="the port alone; 0 takes any free one")
    add("--connect", nargs="?", type=parse_address, const=HERE, metavar="HOST:PORT", help="be a client of that server")
    add("--verbatim", action="store_true", help="answer unchanged, not in capitals")
    add("--quiet", action="store_true", help="don't log what clients send")
    options = parser.parse_args(argv)
    host, port = options.connect or options.address or HERE
    options.address = options.host or host, port if options.port is None else options.port
    if not 0 <= options.address[1] <= 65535:
        parser.error(f"{options.address[1]} is no port: ports go from 0 (any free one) to 65535")
    return options


def stoppable_hub() -> Hub:
    """Return a hub in which Ctrl-C and SIGTERM are heard between two steps of the tasks, not in the middle of one."""
    hub = Hub()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` and a shell's `&` want it
            signal.signal(number, lambda *_: hub.call_soon(hub.interrupt_main, KeyboardInterrupt()))
    return hub


def main(argv: list[str] | None = None) -> int:
    """Run the server, or the client; return the exit status."""
    options = parse_arguments(argv)
    try:
        if options.connect:
            run(converse, options.address)
        else:
            answer: Answer = bytes if options.verbatim else bytes.upper
            run(serve, options.address, answer, (lambda *_: None) if options.quiet else say, hub=stoppable_hub())
    except KeyboardInterrupt:
        if options.connect:
            return 130
        say("stopped")
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that can't be one
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]
        cure = CURES.get(getattr(error, "errno", None) or 0, "")
        print(f"{spell(options.address)}: {reason}{cure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
