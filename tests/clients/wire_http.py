"""Envelopes, hosts, bodies, members and connections, right and wrong."""

import base64
import concurrent.futures
import http.client
import json
import re
import socket
import time

from service import KEYS, LIMIT
from wire_request import JSON, KEY, MAC, MESSAGE, SLACK, TO_PROVE, Request, answer, closed_after, send

# The longest body, and what is read beyond it so that clients see the answer.
BODY_LIMIT = 256 << 10


def good_requests(wire):
    checks = wire.checks
    got = wire.ask(wire.signed())
    checks.equal("a good request", (got.status, got.mac), (200, KEY.mac(MESSAGE)))
    for name, expected in [("content-type", JSON), ("content-length", str(len(got.body)))]:
        checks.equal(f"its {name}", got.headers.get(name), expected)
    checks.holds("its request ID and date", {"x-amzn-requestid", "date"} <= set(got.headers), got.headers)
    checks.holds(
        "no word of the server's make, no CORS",
        not {"server", "access-control-allow-origin"} & set(got.headers),
        got.headers,
    )
    got = wire.ask(wire.signed({"KeyId": KEY.key_id}, "TrentService.DescribeKey"))
    created = json.loads(got.body)["KeyMetadata"]["CreationDate"]
    checks.holds(
        "a date is a number of seconds", isinstance(created, (int, float)) and abs(created - time.time()) < 600, created
    )
    got = wire.ask(wire.signed({"KeyId": KEY.key_id}, "TrentService.EnableKey"))
    checks.equal(
        "an answer without members", (got.status, got.body, got.headers.get("content-length")), (200, b"", "0")
    )
    got = wire.ask(wire.signed(MAC | {"MacAlgorithm": "HMAC_SHA_512"}))
    checks.equal("a modelled error's members", sorted(json.loads(got.body)), ["__type", "message"])
    got = wire.ask(wire.signed(MAC | {"Mac": base64.b64encode(bytes(32)).decode()}, "TrentService.VerifyMac"))
    checks.equal("an error without a text", got.body, b'{"__type":"KMSInvalidMacException"}')
    got = wire.ask(wire.signed(MAC | {"Unknown": {"deep": [1, None]}, "GrantTokens": None, "DryRun": None}))
    checks.equal("unknown and null members are passed over", (got.status, got.mac), (200, KEY.mac(MESSAGE)))
    request = wire.signed()
    request.headers.append(("User-Agent", "unsigned"))
    checks.equal("headers that need not be signed", wire.ask(request).status, 200)
    request = wire.signed(headers=[("X-Other", "  two   words "), ("X-Amz-Meta", "a,b")])
    checks.equal("spaces in signed headers", wire.ask(request).status, 200)


def envelopes(wire):
    def changed(request=None, **attributes):
        request = request or wire.signed()
        for name, value in attributes.items():
            setattr(request, name, value)
        return request

    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
        wire.refused(f"the method {method}", changed(method=method), 403, None, method=method)
    wire.refused("HEAD", changed(method="HEAD", body=b""), 403, None, method="HEAD")
    for path in ("/x", "//", "/index.html", "/..%2f", "*"):
        got = wire.ask(changed(path=path))
        wire.checks.holds(f"the path {path}: refused", got.status in (400, 403, 404), vars(got))
        wire.innocent(path, got)
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "application/x-amz-json-1.1x",
    ):
        wire.refused(f"the content type {kind!r}", wire.signed().change("Content-Type", kind), 404, None)
    wire.refused("no content type", wire.signed().change("Content-Type", None), 404, None)
    for target in (
        None,
        "",
        "TrentService",
        "TrentService.",
        "TrentService.generateMac",
        "TrentService.GenerateMacs",
        "DynamoDB_20120810.GetItem",
        "trentservice.GenerateMac",
    ):
        wire.refused(f"the target {target!r}", wire.signed(target=target), 400, "UnknownOperationException")
        wire.refused(f"the target {target!r}, unsigned", wire.unsigned(target=target), 400, "UnknownOperationException")
    two = wire.signed()
    wire.refused("two targets", two.add("X-Amz-Target", "TrentService.ListKeys"), 400, "UnknownOperationException")
    page = wire.ask(
        changed(
            method="OPTIONS",
            headers=[
                ("Host", wire.service.address),
                ("Origin", "http://evil.example"),
                ("Access-Control-Request-Method", "POST"),
            ],
        ),
        "OPTIONS",
    )
    cors = [name for name in page.headers if name.startswith("access-control")]
    wire.checks.equal("no page of another origin is let in", cors, [])


def hosts(wire):
    port = wire.at[1]
    for host in (
        "evil.example",
        f"evil.example:{port}",
        f"127.0.0.1.evil.example:{port}",
        "user@127.0.0.1",
        "",
        "a b",
        "169.254.169.254",
    ):
        request = Request(headers=[("Host", host)])
        got = wire.ask(request.sign() if host.strip() == host and " " not in host and host else request)
        wire.checks.holds(
            f"the host {host!r}: refused",
            (got.status, got.name) in [(400, "AccessDeniedException"), (400, None)],
            vars(got),
        )
        wire.innocent(host, got)
    for host in (f"localhost:{port}", "localhost", f"127.0.0.1:{port}", f"[::1]:{port}", f"LOCALHOST:{port}"):
        got = wire.ask(Request(headers=[("Host", host)]).sign())
        wire.checks.equal(f"the host {host}", (got.status, got.mac), (200, KEY.mac(MESSAGE)))
    nobody = wire.signed()
    nobody.headers = [(name, value) for name, value in nobody.headers if name != "Host"]
    got = wire.ask(nobody)
    wire.checks.holds("no host: refused", got.status == 400, vars(got))
    got = wire.ask(wire.signed().add("Host", "evil.example"))
    wire.checks.holds("two hosts: refused", got.status == 400, vars(got))
    wire.innocent("two hosts", got)
    old = wire.signed()
    old.version = "HTTP/1.0"
    got = wire.ask(old)
    wire.checks.equal("HTTP/1.0", (got.status, got.mac), (200, KEY.mac(MESSAGE)))
    whole = wire.signed()
    whole.path = f"http://{wire.service.address}/"
    got = wire.ask(whole)
    wire.checks.equal("an absolute target", (got.status, got.mac), (200, KEY.mac(MESSAGE)))
    elsewhere = wire.signed()
    elsewhere.path = "http://evil.example/"
    got = wire.ask(elsewhere)
    wire.checks.holds("an absolute target elsewhere brings nobody there", got.status in (200, 400), vars(got))
    wire.innocent("an absolute target", got)


def bodies(wire):
    serialization = "SerializationException"
    for what, body in [
        ("no body", b""),
        ("no JSON", b"hello"),
        ("half of JSON", json.dumps(MAC).encode()[:-1]),
        ("JSON and more", json.dumps(MAC).encode() + b"x"),
        ("two objects", b"{}{}"),
        ("single quotes", b"{'KeyId': 'x'}"),
        ("bytes that are no text", b'{"KeyId": "\xff\xfe"}'),
        ("half a surrogate", b'{"KeyId": "\\ud800"}'),
        ("a NUL", b'{"KeyId": "a\0b"}'),
        ("a number that is none", b'{"Limit": NaN}'),
        ("nesting of 200 lists", b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}"),
        ("nesting of 100,000 lists", b"[" * 100_000 + b"]" * 100_000),
        ("nesting of 40,000 objects", b'{"a":' * 40_000 + b"1" + b"}" * 40_000),
        ("protobuf", bytes.fromhex("0a24") + KEY.key_id.encode()),
        ("XML", b"<GenerateMac/>"),
    ]:
        wire.refused(what, wire.signed(body), 400, serialization, re.compile(""))
        # Strangers are told as little as will do: of some bodies only whoever may call.
        got = wire.ask(wire.unsigned(body))
        refusals = [(400, serialization), (400, "MissingAuthenticationTokenException")]
        wire.checks.holds(f"{what}, unsigned: refused", (got.status, got.name) in refusals, vars(got))
        wire.innocent(what, got)
    for what, body in [("a list", b"[]"), ("a text", b'"x"'), ("null", b"null"), ("a number", b"7")]:
        wire.refused(what, wire.signed(body), 400, serialization, re.compile(""))
        wire.refused(
            f"{what}, unsigned", wire.unsigned(body), 400, "MissingAuthenticationTokenException", re.compile("")
        )


def members(wire):
    serialization = "SerializationException"
    for member, value, say in [
        ("KeyId", True, "class java.lang.Boolean can not be converted to an String"),
        ("KeyId", 1, "class java.math.BigDecimal can not be converted to an String"),
        ("KeyId", [], "Start of list found where not expected"),
        ("KeyId", {}, "Start of structure or map found where not expected."),
        ("MacAlgorithm", 256, "class java.math.BigDecimal can not be converted to an String"),
        ("GrantTokens", "token", "Expected list or null"),
        ("GrantTokens", {}, "Expected list or null"),
        ("GrantTokens", [1], "class java.math.BigDecimal can not be converted to an String"),
        ("GrantTokens", [["a"]], "Start of list found where not expected"),
        ("Message", 1, re.compile("class java.math.BigDecimal can not be converted to an? ")),
        ("Message", ["SGk="], "Start of list found where not expected"),
        (
            "Message",
            "abc",
            re.compile(
                ".*can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 3"
            ),
        ),
        ("Message", "ab*d", re.compile(r".*can not be converted to a Blob: Invalid Base64 character: '\*'")),
        ("Message", "ab-_", re.compile(".*can not be converted to a Blob: Invalid Base64 character: '[-_]'")),
        ("Message", "SGVs\nbG8=", re.compile(".*can not be converted to a Blob: ")),
        ("Message", "====", re.compile(".*can not be converted to a Blob: ")),
        ("DryRun", "true", re.compile("class java.lang.String can not be converted to an? ")),
        ("DryRun", 1, re.compile("class java.math.BigDecimal can not be converted to an? ")),
    ]:
        wire.refused(f"{member} is {value!r}", wire.signed(MAC | {member: value}), 400, serialization, say)
    for operation, given, say in [
        ("GenerateRandom", {"NumberOfBytes": "8"}, re.compile("class java.lang.String can not be converted to an? ")),
        ("GenerateRandom", {"NumberOfBytes": 1.5}, re.compile("")),
        ("GenerateRandom", {"NumberOfBytes": 1e400}, re.compile("")),
        ("ListKeys", {"Limit": 1 << 70}, re.compile("")),
        ("TagResource", {"KeyId": KEY.key_id, "Tags": [1]}, re.compile("")),
        ("TagResource", {"KeyId": KEY.key_id, "Tags": {"TagKey": "a"}}, "Expected list or null"),
    ]:
        wire.refused(
            f"{operation} with {given}", wire.signed(given, f"TrentService.{operation}"), 400, serialization, say
        )
    for what, given in [
        ("null members", {name: None for name in MAC}),
        ("no members", {}),
        ("members in another case", {name.lower(): value for name, value in MAC.items()}),
    ]:
        wire.refused(what, wire.signed(given), 400, "ValidationException", re.compile("3 validation errors detected: "))
    shown = wire.ask(wire.signed(MAC | {"Message": base64.b64encode(b"secret words" * 400).decode()}))
    wire.checks.holds(
        "a message is never shown",
        shown.status == 400 and b"secret" not in shown.body and b"c2Vjcm" not in shown.body,
        shown.body,
    )
    reserved = base64.b64encode(b"\0hsmac-reserved\0" + b"key check v1").decode()
    wire.refused(
        "a message that hsmac keeps for itself",
        wire.signed(MAC | {"Message": reserved}),
        400,
        "ValidationException",
        re.compile(".* at 'message' failed to satisfy constraint: "),
    )
    last = wire.ask(wire.signed(json.dumps(MAC)[:-1].encode() + b', "KeyId": "' + KEYS[512].key_id.encode() + b'"}'))
    wire.checks.holds(
        "a member twice is refused, or one of both", last.status == 400 or last.mac == KEY.mac(MESSAGE), vars(last)
    )


def long_requests(wire):
    checks = wire.checks
    room = BODY_LIMIT - len(json.dumps(MAC | {"Unknown": ""}))
    got = wire.ask(wire.signed(MAC | {"Unknown": "x" * room}))
    checks.equal("a body of 256 KiB", (got.status, got.mac), (200, KEY.mac(MESSAGE)))
    too_long = re.compile(f"The request is too long: its body may have at most {BODY_LIMIT} bytes.")
    for what, more in [("one byte more", room + 1), ("10 MB", 10_000_000)]:
        wire.refused(what, wire.signed(MAC | {"Unknown": "x" * more}), 400, "ValidationException", too_long)
        wire.refused(
            f"{what}, unsigned", wire.unsigned(MAC | {"Unknown": "x" * more}), 400, "ValidationException", too_long
        )
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for size, what in [(160, "10 MB in chunks"), (16 << 10, "1 GB in chunks")]:
        began = time.monotonic()
        with socket.create_connection(wire.at, LIMIT) as connection:
            send(connection, wire.unsigned(b"").add("Transfer-Encoding", "chunked").bytes(length=False))
            try:
                for _ in range(size):
                    connection.sendall(chunk)
                connection.sendall(b"0\r\n\r\n")
            except OSError:
                pass
            try:
                got = answer(connection)
                told = (got.status, got.name)
            except OSError:
                told = "closed"
        # Who has proved nothing is answered before the body is read.
        allowed = [(400, "MissingAuthenticationTokenException")] + (["closed"] if size > 1000 else [])
        checks.holds(f"{what}: refused", told in allowed and time.monotonic() - began < TO_PROVE + SLACK, told)
        wire.innocent(what)
    small = json.dumps(MAC).encode()
    chunked = wire.signed()
    chunked.body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(small), small)
    got = wire.ask(chunked.add("Transfer-Encoding", "chunked").bytes(length=False))
    checks.equal("a good body in chunks", (got.status, got.mac), (200, KEY.mac(MESSAGE)))
    for what, header in [
        ("a length that is no number", "Content-Length: ten"),
        ("a negative length", "Content-Length: -1"),
        ("two lengths", "Content-Length: 10\r\nContent-Length: 11"),
        ("a length beyond all numbers", "Content-Length: " + "9" * 30),
        ("a transfer coding that nobody knows", "Transfer-Encoding: gzip"),
    ]:
        got = wire.ask(
            wire.unsigned(b"").bytes(length=False).replace(b"\r\n\r\n", b"\r\n" + header.encode() + b"\r\n\r\n")
        )
        checks.holds(f"{what}: refused", 400 <= got.status < 600 and got.mac is None, vars(got))
        wire.innocent(what, got)
    for what, headers in [
        ("a header of 100 KB", [("X-Long", "x" * 100_000)]),
        ("a target of 100 KB", [("X-Amz-Target", "TrentService." + "x" * 100_000)]),
        ("500 headers", [(f"X-{number}", "x") for number in range(500)]),
    ]:
        got = wire.ask(wire.unsigned(headers=headers))
        checks.holds(f"{what}: refused", 400 <= got.status < 500, got.status)
        wire.innocent(what, got)
    long = wire.signed()
    long.path = "/?" + "x" * 100_000
    got = wire.ask(long)
    checks.holds("a path of 100 KB: refused", 400 <= got.status < 500, got.status)
    wire.innocent("a long path", got)


def connections(wire):
    checks = wire.checks
    with socket.create_connection(wire.at, LIMIT) as connection:
        for number in range(3):
            connection.sendall(wire.signed().bytes())
            got = answer(connection)
            checks.equal(f"call {number + 1} on one connection", (got.status, got.mac), (200, KEY.mac(MESSAGE)))
        connection.sendall(wire.signed(MAC | {"KeyId": "alias/nobody"}).bytes())
        checks.equal("an error", answer(connection).status, 400)
        connection.sendall(wire.signed().bytes())
        checks.equal("does not end the connection", answer(connection).status, 200)
    two = wire.signed().bytes() + wire.signed(MAC | {"KeyId": KEYS[512].key_id, "MacAlgorithm": "HMAC_SHA_512"}).bytes()
    with socket.create_connection(wire.at, LIMIT) as connection:
        connection.sendall(two)
        reader = connection.makefile("rb")
        macs = []
        for _ in range(2):
            status = reader.readline()
            headers = http.client.parse_headers(reader)
            macs.append((status.split()[1], json.loads(reader.read(int(headers["content-length"])))["Mac"]))
    expected = [(b"200", base64.b64encode(KEYS[bits].mac(MESSAGE)).decode()) for bits in (256, 512)]
    checks.equal("two requests in one go are answered in order", macs, expected)
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(200)
    for what, garbage in [
        ("garbage", b"\0\1\2 nonsense \xff" * 50),
        ("lines of garbage", b"hello\r\n" * 50 + b"\r\n"),
        ("TLS", hello),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("a header with a NUL", wire.unsigned(b"").add("X-Nul", "a\0b").bytes()),
        ("a folded header", wire.unsigned(b"").add("X-Fold", "a\r\n b").bytes()),
        ("a header without a name", wire.unsigned(b"").bytes().replace(b"Host:", b":", 1)),
    ]:
        with socket.create_connection(wire.at, LIMIT) as connection:
            send(connection, garbage)
            took = closed_after(connection) if what != "a folded header" else answered_or_closed(connection)
        checks.holds(f"{what}: the connection is closed", took < TO_PROVE + SLACK, took)
        wire.innocent(what)
        with socket.create_connection(wire.at, LIMIT) as connection:
            send(connection, wire.signed().bytes() + garbage)
            got = answer(connection)
            checks.equal(f"a good request, then {what}", (got.status, got.mac), (200, KEY.mac(MESSAGE)))
        wire.innocent(what)
    # Shorter than it is: what is left over is no request.
    liar = wire.signed()
    spoilt = liar.bytes(length=False).replace(b"\r\n\r\n", b"\r\nContent-Length: 20\r\n\r\n", 1)
    with socket.create_connection(wire.at, LIMIT) as connection:
        send(connection, spoilt)
        got = answer(connection)
        checks.equal("a length that is too small", (got.status, got.name), (400, "SerializationException"))
        checks.holds("ends the connection", closed_after(connection) < TO_PROVE + SLACK)
    wire.innocent("a length that is too small", got)
    for _ in range(50):
        with socket.create_connection(wire.at, LIMIT) as connection:
            connection.sendall(wire.signed().bytes()[:-10])
    wire.innocent("50 connections that broke")


def answered_or_closed(connection):
    began = time.monotonic()
    try:
        answer(connection)
    except (OSError, http.client.HTTPException):
        pass
    return time.monotonic() - began


def slow_connections(wire):
    """All at once: each takes as long as hsmac lets it."""
    request = wire.signed().bytes()
    head, _, _ = request.partition(b"\r\n\r\n")
    kinds = {
        "nothing at all": b"",
        "half a request line": request[:6],
        "half a header": head[:-10],
        "a head without its body": head + b"\r\n\r\n",
        "half a body": request[:-10],
        "a promise of 10 MB": wire.unsigned(b"")
        .bytes(length=False)
        .replace(b"\r\n\r\n", b"\r\nContent-Length: 10000000\r\n\r\n{"),
        "chunks that stop": wire.unsigned(b"").add("Transfer-Encoding", "chunked").bytes(length=False) + b"5\r\n{",
    }

    def silent(data):
        with socket.create_connection(wire.at, LIMIT) as connection:
            send(connection, data)
            return closed_after(connection)

    def trickles(data):
        """A byte now and then: never silent, never done."""
        began = time.monotonic()
        with socket.create_connection(wire.at, LIMIT) as connection:
            connection.settimeout(0.5)
            for byte in data:
                try:
                    connection.sendall(bytes([byte]))
                    if not connection.recv(1000):
                        break
                except TimeoutError:
                    pass
                except OSError:
                    break
                if time.monotonic() - began > TO_PROVE + SLACK:
                    break
        return time.monotonic() - began

    # More of them than hsmac keeps: who calls is not held up.
    silent_ones = [socket.create_connection(wire.at, LIMIT) for _ in range(400)]
    began = time.monotonic()
    for _ in range(5):
        wire.innocent("400 silent strangers")
    took = time.monotonic() - began
    wire.checks.holds("5 good calls beside 400 silent strangers", took < TO_PROVE + SLACK, f"{took:.1f} s")
    for connection in silent_ones:
        connection.close()

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        waiting = {what: pool.submit(silent, data) for what, data in kinds.items()}
        waiting["a byte every half second"] = pool.submit(trickles, request)
        crowd = [pool.submit(silent, request[:40]) for _ in range(40)]
        began = time.monotonic()
        for _ in range(20):
            wire.innocent("slow strangers")
        took = time.monotonic() - began
        wire.checks.holds("20 good calls beside 48 slow strangers", took < TO_PROVE + SLACK, f"{took:.1f} s")
        for what, future in waiting.items():
            took = future.result()
            wire.checks.holds(f"{what}: the connection is closed", took < TO_PROVE + SLACK, f"only after {took:.1f} s")
        took = max(future.result() for future in crowd)
        wire.checks.holds("and those of all the others", took < TO_PROVE + SLACK, f"only after {took:.1f} s")
