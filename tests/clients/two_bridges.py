"""Two hsmacs with one configuration over one token: each is replaced in turn, and no call is lost.

    python two_bridges.py PATH-OF-HSMAC

Once with grpcio's round_robin and health checks, once with HAProxy and the file that docs/ shows.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import grpc
from python_grpc import stubs
from service import LIMIT, Suite, clean_environment, free_address, until

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
CALLERS = 4
# What docs/operators.md shows: every endpoint gets calls, one that says NOT_SERVING gets none, and what an
# endpoint has refused at its end is asked of another one.
CLIENT = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


class Bridge:
    """One of the two: its own addresses and state, the token and the keys of both."""

    def __init__(self, hsmac, folder, config, name):
        self.hsmac, self.folder, self.config, self.name = hsmac, folder, config, name
        self.grpc, self.admin = free_address(), free_address()
        self.start()

    def start(self):
        arguments = ["serve", "--config", self.config]
        for setting in (
            f"grpc.listen={self.grpc}",
            f"admin.listen={self.admin}",
            f"state_dir={self.folder / self.name}",
        ):
            arguments += ["--set", setting]
        log = open(self.folder / f"{self.name}.log", "a")
        self.process = subprocess.Popen(
            [self.hsmac, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment()
        )
        until(f"{self.name} is ready", self.is_ready)

    def is_ready(self):
        assert self.process.poll() is None, (self.folder / f"{self.name}.log").read_text()
        try:
            with urllib.request.urlopen(f"http://{self.admin}/readyz", timeout=LIMIT) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def replace(self):
        self.process.terminate()
        ended = self.process.wait(LIMIT)
        self.start()
        return ended


class Load:
    """Callers that ask all the time; what they are told is remembered."""

    def __init__(self, pb, target, options):
        self.pb, self.target, self.options = pb, target, options
        self.macs, self.made, self.lost, self.ended = set(), 0, [], threading.Event()
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CALLERS)]
        for one in self.threads:
            one.start()

    def _ask(self):
        request = self.pb.mac_pb2.GenerateMacRequest(
            key_id="alias/demo", message=b"Hello World", mac_algorithm="HMAC_SHA_256"
        )
        with grpc.insecure_channel(self.target, options=self.options) as channel:
            service = self.pb.mac_pb2_grpc.MacServiceStub(channel)
            while not self.ended.is_set():
                try:
                    answer = service.GenerateMac(request, timeout=LIMIT, wait_for_ready=True)
                    self.macs.add(answer.mac)
                    self.made += 1
                except grpc.RpcError as fault:
                    self.lost.append(f"{fault.code()}: {fault.details()}")

    def goes_on(self):
        before = self.made
        until(f"calls go on: {self.made} made, {self.lost[:3]} lost", lambda: self.made > before + 200)

    def end(self):
        self.ended.set()
        for one in self.threads:
            one.join(LIMIT)


def replaced_in_turn(checks, what, bridges, load):
    try:
        load.goes_on()
        for bridge in bridges * 2:
            checks.equal(f"{what}: {bridge.name} ends with 0", bridge.replace(), 0)
            load.goes_on()
    finally:
        load.end()
    checks.equal(f"{what}: lost calls of {load.made}", load.lost[:3], [])
    checks.equal(f"{what}: different MACs", len(load.macs), 1)


def round_robin(checks, pb, bridges):
    target = "ipv4:" + ",".join(bridge.grpc for bridge in bridges)
    options = [
        ("grpc.service_config", json.dumps(CLIENT)),
        # Without it grpcio sends the whole list as :authority, which is none (RFC 9113, 8.3.1).
        ("grpc.default_authority", "hsmac"),
    ]
    replaced_in_turn(checks, "round_robin", bridges, Load(pb, target, options))


def haproxy(checks, pb, bridges, folder):
    front = free_address()
    text = (DOCS / "examples" / "haproxy.cfg").read_text()
    text = text.replace("127.0.0.1:50050", front)
    for number, bridge in enumerate(bridges, 1):
        said = f"10.0.0.{number}:50051 port 9464"
        assert said in text
        text = text.replace(said, f"{bridge.grpc} port {bridge.admin.split(':')[1]}")
    config = folder / "haproxy.cfg"
    config.write_text(text)
    log = open(folder / "haproxy.log", "w+")
    proxy = subprocess.Popen([shutil.which("haproxy", path="/usr/sbin:/usr/bin"), "-db", "-f", config], stdout=log, stderr=log)
    try:
        replaced_in_turn(checks, "HAProxy", bridges, Load(pb, front, []))
    finally:
        proxy.terminate()
        proxy.wait(LIMIT)


def provision(hsmac, folder):
    """A token with a key, and the configuration that declares it, without a store."""
    dev = subprocess.Popen(
        [hsmac, "dev", "--dir", folder / "dev", "--grpc", "127.0.0.1:0", "--aws", "127.0.0.1:0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=clean_environment(),
    )
    for line in dev.stdout:
        if line.startswith("Ctrl-C"):
            break
    dev.terminate()
    dev.communicate(timeout=LIMIT)
    config = folder / "dev" / "hsmac.toml"
    # Everything that two bridges cannot share, and AWS's listener, which they do not need here.
    sections = re.split(r"(?m)^(?=\[)", config.read_text())
    shared = [one for one in sections if not one.startswith(("[store", "[aws", "[admin"))]
    both = folder / "dev" / "both.toml"
    both.write_text("".join(shared))
    return both


def main(hsmac):
    checks = Suite("two bridges")
    with tempfile.TemporaryDirectory(prefix="hsmac-clients-") as folder:
        folder = pathlib.Path(folder)
        pb, bridges = stubs(folder), []
        try:
            config = provision(hsmac, folder)
            for name in ("one", "two"):
                bridges.append(Bridge(hsmac, folder, config, name))
            checks.part(round_robin, checks, pb, bridges)
            checks.part(haproxy, checks, pb, bridges, folder)
        finally:
            for bridge in bridges:
                bridge.process.kill()
        for bridge in bridges:
            log = (folder / f"{bridge.name}.log").read_text()
            if checks.failures:
                print(log, file=sys.stderr)
    print(f"{checks.passed} passed, {len(checks.failures)} failed")
    sys.exit(1 if checks.failures else 0)


if __name__ == "__main__":
    main(str(pathlib.Path(sys.argv[1]).resolve()))
