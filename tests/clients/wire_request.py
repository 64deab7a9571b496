"""Requests signed with botocore's own signer, which can still be spoilt, and what hsmac answers."""

import base64
import datetime
import http.client
import json
import re
import socket
import time
from unittest import mock

from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from service import ACCESS_KEY, KEYS, LIMIT, REGION, SECRET

KEY = KEYS[256]
MESSAGE = b"Hello World"
TARGET = "TrentService.GenerateMac"
JSON = "application/x-amz-json-1.1"
MAC = {"KeyId": KEY.key_id, "Message": base64.b64encode(MESSAGE).decode(), "MacAlgorithm": KEY.algorithm}
# How long hsmac keeps a connection that does not prove who it is, and what a slow machine may add.
TO_PROVE, SLACK = 10, 20
LEAKS = re.compile(rb"CKR_|C_Sign|pkcs11|softhsm|sqlite|panicked|/tmp/|\.rs\b|serde|line \d+ column", re.I)
ADDED = ("X-Amz-Date", "Authorization")
SIGNING = ("region", "service", "key", "secret", "minutes", "query")


class Request:
    """A request that can still be changed: its headers are pairs, some of them twice."""

    def __init__(self, body=None, target=TARGET, headers=(), **signing):
        self.method, self.path, self.version = "POST", "/", "HTTP/1.1"
        self.body = json.dumps(MAC if body is None else body).encode() if not isinstance(body, bytes) else body
        self.headers = [("Content-Type", JSON)] + ([("X-Amz-Target", target)] if target is not None else [])
        self.headers += headers
        self.signing = signing

    def to(self, address):
        if not any(name.lower() == "host" for name, _ in self.headers):
            self.headers.insert(0, ("Host", address))
        return self

    def sign(self, region=REGION, service="kms", key=ACCESS_KEY, secret=SECRET, minutes=0, query=False):
        host = dict((name.lower(), value) for name, value in self.headers)["host"]
        asked = AWSRequest(self.method, f"http://{host}{self.path}", data=self.body)
        for name, value in self.headers:
            asked.headers[name] = value
        credentials = Credentials(key, secret)
        signer = SigV4QueryAuth(credentials, service, region, 60) if query else SigV4Auth(credentials, service, region)
        now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
        with mock.patch("botocore.auth.get_current_datetime", return_value=now + datetime.timedelta(minutes=minutes)):
            signer.add_auth(asked)
        if query:
            self.path = asked.url[asked.url.index("/", len("http://")) :]
        else:
            self.headers += [(name, value) for name, value in asked.headers.items() if name in ADDED]
        return self

    def header(self, name):
        return dict(self.headers)[name]

    def change(self, name, to):
        """Replaces a header after it was signed; None takes it away."""
        value = to(self.header(name)) if callable(to) else to
        self.headers = [(n, v) for n, v in self.headers if n != name] + ([(name, value)] if value is not None else [])
        return self

    def add(self, name, value):
        self.headers.append((name, value))
        return self

    def bytes(self, length=True):
        headers = self.headers + ([("Content-Length", str(len(self.body)))] if length else [])
        lines = [f"{self.method} {self.path} {self.version}", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


class Wire:
    def __init__(self, checks, service):
        self.checks, self.service = checks, service
        host, _, port = service.address.rpartition(":")
        self.at = (host, int(port))

    def signed(self, *arguments, **more):
        signing = {name: more.pop(name) for name in list(more) if name in SIGNING}
        return Request(*arguments, **more).to(self.service.address).sign(**signing)

    def unsigned(self, *arguments, **more):
        return Request(*arguments, **more).to(self.service.address)

    def ask(self, asked, method="POST"):
        """Sends bytes, and gives the first answer: status, `__type`, text, headers."""
        with socket.create_connection(self.at, LIMIT) as connection:
            send(connection, asked.bytes() if isinstance(asked, Request) else asked)
            return answer(connection, method)

    def refused(self, what, asked, status, name, say="", method="POST"):
        """One refusal, and a good call after it."""
        began = time.monotonic()
        got = self.ask(asked, method)
        took = time.monotonic() - began
        good = re.match(say, got.text) if isinstance(say, re.Pattern) else say == got.text
        expected = (status, name)
        if (got.status, got.name) != expected or not good:
            self.checks.equal(what, (got.status, got.name, got.text), (*expected, say))
        else:
            self.checks.holds(f"{what}: {status} {name or ''}", took < TO_PROVE, f"only after {took:.1f} s")
        self.innocent(what, got)

    def innocent(self, after, got=None):
        """Nothing was told, and a good call works."""
        if got:
            leak = LEAKS.search(got.body)
            if leak or SECRET.encode() in got.body:
                self.checks.holds(f"{after}: nothing leaks", False, got.body)
            if got.name and not got.headers.get("x-amzn-requestid"):
                self.checks.holds(f"{after}: it has a request ID", False, got.headers)
        served = self.ask(self.signed())
        if (served.status, served.mac) != (200, KEY.mac(MESSAGE)):
            self.checks.holds(f"{after}: a good call works after it", False, vars(served))


class Answer:
    def __init__(self, response):
        self.status, self.headers = response.status, {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()
        try:
            told = json.loads(self.body or b"{}")
        except ValueError:
            told = {}
        self.name, self.text = told.get("__type"), told.get("message", told.get("Message", ""))
        self.mac = base64.b64decode(told["Mac"]) if "Mac" in told else None


def send(connection, data):
    try:
        connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        # The answer is there already.
        pass


def answer(connection, method="POST"):
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return Answer(response)


def closed_after(connection):
    """How long until the other end has closed; what it says before does not matter."""
    began = time.monotonic()
    connection.settimeout(TO_PROVE + SLACK)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began
