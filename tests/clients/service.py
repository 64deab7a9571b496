"""A real hsmac over a fresh SoftHSM token, for the suites of its clients, and their checks.

The token has one key of each spec with material that is known here, so that every MAC can be made
again with Python's own hmac.
"""

import base64
import copy
import hashlib
import hmac
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import typing

REGION = "us-east-1"
ACCOUNT = "000000000000"
CALLER = f"arn:aws:iam::{ACCOUNT}:user/dev"
# What `hsmac dev` admits: the key pair of AWS's own examples.
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
# Ends a hang; nothing takes long.
LIMIT = 60


class Key(typing.NamedTuple):
    spec: str
    algorithm: str
    key_id: str
    alias: str
    material: bytes

    @property
    def arn(self):
        return f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{self.key_id}"

    @property
    def alias_arn(self):
        return f"arn:aws:kms:{REGION}:{ACCOUNT}:{self.alias}"

    @property
    def names(self):
        """Each form that GenerateMac takes."""
        return [self.key_id, self.arn, self.alias, self.alias_arn]

    def mac(self, message):
        return hmac.new(self.material, message, "sha" + self.spec.removeprefix("HMAC_")).digest()


KEYS = {
    bits: Key(
        f"HMAC_{bits}",
        f"HMAC_SHA_{bits}",
        f"11111111-2222-4333-8444-000000000{bits}",
        f"alias/given-{bits}",
        hashlib.shake_256(b"a secret for %d" % bits).digest(bits // 8),
    )
    for bits in (224, 256, 384, 512)
}
# The key that `hsmac dev` declares: in the token already, changed by the configuration alone.
DECLARED = "00000000-0000-4000-8000-000000000001"
DECLARED_ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{DECLARED}"
NOBODY = "99999999-9999-4999-8999-999999999999"
NOBODY_ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{NOBODY}"


# What `hsmac dev` writes into its configuration.
HOSTS = 2


class Service:
    """`hsmac dev` with the four keys; `serve` restarts it with other settings on the same token."""

    def __init__(self, hsmac, folder, module=None, environment=None):
        self.hsmac, self.folder = hsmac, folder
        self.environment = clean_environment() | (environment or {})
        self.config = folder / "dev" / "hsmac.toml"
        self._said, self._news = [], threading.Condition()
        seeds = folder / "seeds.toml"
        seeds.write_text("".join(map(seed, KEYS.values())))
        self.address, self.grpc = free_address(), free_address()
        arguments = ["dev", "--dir", folder / "dev", "--grpc", self.grpc, "--aws", self.address, "--seed", seeds]
        self._start(arguments + (["--module", module] if module else []), "Ctrl-C ends it.")

    @property
    def endpoint(self):
        return f"http://{self.address}"

    def serve(self, *settings):
        """Ends what runs, and starts `hsmac serve` with what `hsmac dev` has made."""
        self.stop()
        self.address, self.grpc = free_address(), free_address()
        arguments = ["serve", "--config", self.config]
        for setting in (f"aws.listen={self.address}", f"grpc.listen={self.grpc}", *settings):
            arguments += ["--set", setting]
        self._start(arguments, "listening for AWS's clients")

    def another(self, folder, environment):
        """One over a copy of what `hsmac dev` has made, for `serve`. This one must have ended."""
        other = copy.copy(self)
        other.folder, other.environment = folder, self.environment | environment
        other._said, other._news = [], threading.Condition()
        shutil.copytree(self.folder / "dev", folder / "dev")
        other.config = folder / "dev" / "hsmac.toml"
        for file in (other.config, folder / "dev" / "softhsm2.conf"):
            file.write_text(file.read_text().replace(str(self.folder), str(folder)))
        return other

    def _start(self, arguments, ready):
        seen = len(self._said)
        self.process = subprocess.Popen(
            [self.hsmac, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=self.folder,
            env=self.environment,
            # Python ignores SIGXFSZ, and so shall the server: see `full_disk`.
            restore_signals=False,
        )
        threading.Thread(target=self._listen, args=[self.process.stdout], daemon=True).start()
        self.until_said(ready, seen)

    def _listen(self, pipe):
        for line in pipe:
            with self._news:
                self._said.append(line)
                self._news.notify_all()
        with self._news:
            self._said.append(END)
            self._news.notify_all()

    def until_said(self, words, since=0):
        """Waits for a line with these words, after the first `since` lines."""
        with self._news:
            heard = lambda: any(words in line or line is END for line in self._said[since:])
            if not self._news.wait_for(heard, LIMIT) or self._said[-1] is END:
                raise AssertionError(f"hsmac did not say {words!r}:\n{self.log()}")

    @property
    def lines(self):
        return len(self._said)

    def log(self):
        return "".join(self._said)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def hosts(self):
        """The processes that have the token's module."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]

    def all_hosts(self):
        """Both of them: the second one starts when the first one serves."""
        until = time.monotonic() + LIMIT
        while len(hosts := self.hosts()) < HOSTS:
            if time.monotonic() > until:
                raise AssertionError(f"hsmac has {len(hosts)} hosts, not {HOSTS}:\n{self.log()}")
            time.sleep(0.02)
        return hosts

    def signal_hosts(self, number):
        # One that is missed would answer in place of those that are stopped.
        hosts = self.all_hosts() if number == signal.SIGSTOP else self.hosts()
        for host in hosts:
            os.kill(host, number)
        for host in hosts if number == signal.SIGSTOP else ():
            until_stopped(host)

    def full_disk(self):
        """While this lasts no file can grow: what a full disk is to the store."""
        return FullDisk(self.process.pid)


def until_stopped(process):
    """SIGSTOP stops a process when one of its threads comes to take it: on a busy machine the others go on until then."""
    tasks = lambda: pathlib.Path(f"/proc/{process}/task").iterdir()
    until(f"process {process} is stopped", lambda: all(state(task) == "T" for task in tasks()))


def state(task):
    # After the name, which may have anything in it.
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


class FullDisk:
    def __init__(self, process):
        self.process = process

    def __enter__(self):
        import resource

        self.limits = resource.prlimit(self.process, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process, resource.RLIMIT_FSIZE, (0, self.limits[1]))

    def __exit__(self, *_):
        import resource

        resource.prlimit(self.process, resource.RLIMIT_FSIZE, self.limits)


END = "(hsmac has ended)\n"


def seed(key):
    return (
        f'[[key]]\nkey_id = "{key.key_id}"\nkey_spec = "{key.spec}"\naliases = ["{key.alias}"]\n'
        f'description = "given"\nmaterial_hex = "{key.material.hex()}"\n'
    )


def clean_environment():
    """This process's environment without what would lead hsmac or a client elsewhere."""
    foreign = ("AWS_", "HSMAC", "FAULT_TOKEN", "SOFTHSM2_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    proxies = [name for name in kept if name.lower().endswith("_proxy")]
    return {name: value for name, value in kept.items() if name not in proxies}


def free_address():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def until(what, condition, limit=LIMIT):
    """Asks again until the condition holds."""
    end = time.monotonic() + limit
    while True:
        met = condition()
        if met:
            return met
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {limit} s")
        # The one who is waited for needs the processor too.
        time.sleep(0.02)


class Suite:
    """Checks that are told one by one. A failure does not hide the next one."""

    def __init__(self, name):
        self.name, self.passed, self.failures = name, 0, []
        self._began = time.monotonic()

    def equal(self, what, got, expected):
        return self._told(what, got == expected, f"expected {expected!r}\n  got {got!r}")

    def holds(self, what, met, got=""):
        return self._told(what, bool(met), f"got {got!r}")

    def _told(self, what, good, difference):
        if good:
            self.passed += 1
            print(f"ok      {what}", flush=True)
        else:
            self.failures.append(f"{what}\n  {difference}")
            print(f"FAILED  {what}\n  {difference}", flush=True)
        return good

    def part(self, function, *arguments):
        """Runs some checks; what breaks them off is a failure too."""
        print(f"-- {function.__name__.replace('_', ' ')}", flush=True)
        try:
            return function(*arguments)
        except Exception:
            self._told(f"{function.__name__} comes to its end", False, traceback.format_exc())

    def end(self, service):
        """What holds for every suite of a service, and the exit code."""
        self.equal("SIGTERM ends the server with 0", service.stop(), 0)
        log = service.log()
        self.holds("no panic in the log", "panicked" not in log)
        secrets = [SECRET, *(key.material.hex() for key in KEYS.values())]
        secrets += [base64.b64encode(key.material).decode() for key in KEYS.values()]
        # `hsmac dev` itself prints the documented secret once, to be pasted.
        told = log.partition("Ctrl-C ends it.")[2]
        self.holds("no secret in the log", not any(secret in told for secret in secrets))
        if self.failures:
            print("\nhsmac's log:\n" + log, file=sys.stderr)
            print("\n".join(f"FAILED  {failure}" for failure in self.failures), file=sys.stderr)
        print(f"{self.name}: {time.monotonic() - self._began:.1f} s")
        print(f"{self.passed} passed, {len(self.failures)} failed")
        return 1 if self.failures else 0


def run(name, suite, hsmac, **service):
    """Runs a suite on a service of its own, and exits."""
    checks = Suite(name)
    with tempfile.TemporaryDirectory(prefix="hsmac-clients-") as folder:
        folder = pathlib.Path(folder)
        running = Service(pathlib.Path(hsmac).resolve(), folder, **service)
        try:
            suite(checks, running)
            code = checks.end(running)
        finally:
            running.process.kill()
    sys.exit(code)
