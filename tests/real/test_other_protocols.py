"""Mail, files, remote calls, web sockets and SSH in a patched process: the clients' libraries, unchanged."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.slow

LINES = """
import socketserver, threading

class Lines(socketserver.StreamRequestHandler):
    '''A conversation in lines: a command, an answer.'''
    def handle(self):
        self.say(self.greeting)
        while line := self.rfile.readline():
            word, _, rest = line.decode().rstrip().partition(" ")
            self.answer(word.upper(), rest)
    def say(self, text):
        self.wfile.write(f"{text}\\r\\n".encode())

class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 128
    daemon_threads = True

def serve(handler):
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]
"""


def test_smtplib_sends_a_hundred_mails_at_once(script: Callable[..., str]):
    script(LINES + """
import smtplib
mails = []
class Mail(Lines):
    greeting = "220 here"
    def answer(self, word, rest):
        if word == "DATA":
            self.say("354 go on")
            lines = list(iter(self.rfile.readline, b".\\r\\n"))
            mails.append(lines[-1].strip())
            time.sleep(0.2)
        self.say("221 bye" if word == "QUIT" else "250 fine")
port = serve(Mail)
def send(number):
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.sendmail("me@here", ["you@there"], f"Subject: {number}\\r\\n\\r\\nmail {number}\\r\\n")
at_once(send)
assert sorted(mails) == sorted(f"mail {number}".encode() for number in range(100))
""")


def test_ftplib_fetches_a_hundred_files_at_once(script: Callable[..., str]):
    script(LINES + """
import ftplib, io, socket
class Files(Lines):
    greeting = "220 here"
    def answer(self, word, rest):
        match word:
            case "USER": self.say("230 come in")
            case "TYPE": self.say("200 so be it")
            case "EPSV" | "PASV":
                self.data = socket.create_server(("127.0.0.1", 0))
                port = self.data.getsockname()[1]
                if word == "EPSV": self.say(f"229 there (|||{port}|)")
                else: self.say(f"227 there (127,0,0,1,{port >> 8},{port & 255})")
            case "RETR":
                self.say("150 it comes")
                connection, _ = self.data.accept()
                with connection, self.data:
                    time.sleep(0.2)
                    connection.sendall(rest.encode() * 10_000)
                self.say("226 that was it")
            case "QUIT": self.say("221 bye")
port = serve(Files)
def fetch(number):
    file = io.BytesIO()
    with ftplib.FTP() as client:
        client.connect("127.0.0.1", port)
        client.login()
        client.retrbinary(f"RETR file{number}", file.write)
    return file.getvalue() == f"file{number}".encode() * 10_000
assert at_once(fetch) == [True] * 100
""")


def test_xmlrpc_calls_wait_at_once(script: Callable[..., str]):
    script(LINES + """
from xmlrpc.client import Fault, ServerProxy
from xmlrpc.server import SimpleXMLRPCServer
class Threading(socketserver.ThreadingMixIn, SimpleXMLRPCServer):
    request_queue_size = 128
    daemon_threads = True
server = Threading(("127.0.0.1", 0), logRequests=False)
def double(number):
    time.sleep(0.2)
    return 2 * number
server.register_function(double)
threading.Thread(target=server.serve_forever, daemon=True).start()
def call(number):
    with ServerProxy(f"http://127.0.0.1:{server.server_address[1]}") as proxy:
        try:
            return proxy.double(number)
        except Fault as fault:
            return "fault"
assert at_once(call) == [2 * n for n in range(100)]
assert call({}) == "fault"
""")


def test_web_sockets_echo_a_hundred_messages_at_once(script: Callable[..., str]):
    pytest.importorskip("websocket")
    script(LINES + """
import base64, hashlib, struct, websocket
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        lines = [line.decode().strip() for line in iter(self.rfile.readline, b"\\r\\n")]
        headers = dict(line.split(": ", 1) for line in lines[1:])
        secret = headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(secret.encode()).digest()).decode()
        self.wfile.write("HTTP/1.1 101 Switching\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                         f"Sec-WebSocket-Accept: {accept}\\r\\n\\r\\n".encode())
        while head := self.rfile.read(2):
            length = head[1] & 127
            mask = self.rfile.read(4)
            body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(length)))
            if head[0] & 15 == 8:
                self.wfile.write(bytes([0x88, length]) + body)
                return
            time.sleep(0.2)
            self.wfile.write(bytes([head[0], length]) + body)
port = serve(Echo)
def talk(number):
    client = websocket.create_connection(f"ws://127.0.0.1:{port}/", timeout=20)
    client.send(f"hello {number}")
    answer = client.recv()
    client.close()
    return answer
assert at_once(talk) == [f"hello {n}" for n in range(100)]
""")


def test_paramiko_runs_commands_over_one_connection_and_over_many(script: Callable[..., str]):
    pytest.importorskip("paramiko")
    script("""
import socket, threading, logging, paramiko
logging.getLogger("paramiko").setLevel(logging.CRITICAL)
key = paramiko.ECDSAKey.generate()

class Accounts(paramiko.ServerInterface):
    def check_auth_password(self, user, password):
        return paramiko.AUTH_SUCCESSFUL if password == "secret" else paramiko.AUTH_FAILED
    def get_allowed_auths(self, user):
        return "password"
    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED
    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=answer, args=(channel, command), daemon=True).start()
        return True

def answer(channel, command):
    time.sleep(0.2)
    channel.sendall(command.upper())
    channel.send_exit_status(0)
    channel.close()

def serve(listener):
    while True:
        connection, _ = listener.accept()
        transport = paramiko.Transport(connection)
        transports.append(transport)
        transport.add_server_key(key)
        transport.start_server(event=threading.Event(), server=Accounts())

transports = []
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
threading.Thread(target=serve, args=(listener,), daemon=True).start()

def connect():
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect("127.0.0.1", listener.getsockname()[1], "me", "secret", look_for_keys=False, allow_agent=False,
                   banner_timeout=30, auth_timeout=30)
    return client
def run(client, number):
    _, output, _ = client.exec_command(f"say {number}")
    return output.read().decode()

client = connect()
assert at_once(lambda number: run(client, number), range(50)) == [f"SAY {n}" for n in range(50)]
client.close()

def alone(number):
    client = connect()
    try:
        return run(client, number)
    finally:
        client.close()
assert at_once(alone, range(10), seconds=5) == [f"SAY {n}" for n in range(10)]
""")
