"""The measuring part of softhsm/bench: `python3 bench.py PATH-OF-HSMAC PATH-OF-TEST-ENGINES`.

Every figure is a ratio to the naive loop, C_SignInit + C_Sign on the token object in one process
(`hsmac bench token`), which is measured before and after it in the same round: a machine whose speed
drifts does not move the ratio.
"""

import contextlib
import copy
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

SHORT = bool(os.environ.get("SHORT"))
POLICIES = bool(os.environ.get("POLICIES"))
GRANTS = bool(os.environ.get("GRANTS"))
ROUNDS = 1 if SHORT else 3
SECONDS = 5 if SHORT else 30
TOKEN_SECONDS = 3 if SHORT else 10
TRIAL_SECONDS = 2 if SHORT else 5
CONNECTIONS, STREAMS = 16, 8
# Streams of items, and how many each has: h2load knows requests alone, and each of them is a stream.
ITEM_CONNECTIONS, ITEM_STREAMS, ITEMS = 4, 2, 1000
MESSAGE = b"m" * 32
KEY = "alias/demo"
ACCOUNT = "000000000000"  # of `hsmac dev`
CALLER = f"arn:aws:iam::{ACCOUNT}:user/dev"
HOSTS = (1, 2, 3)
# One call at a time on each, as AWS's clients have it. With 32 the hosts wait for calls (0.47 of the
# naive loop where 64 make 0.60 and 128 make 0.55: token object, two cores).
AWS_CONNECTIONS = 64
MANY_KEYS = 10_000
MANY_GRANTS = 50_000
STATEMENTS = (1, 50)
# Conditions of one statement of many, by its number: they hold for no call of the bench.
HERE = lambda number: {
    "StringLike": {"kms:RequestAlias": ["alias/*"]},
    "NotIpAddress": {"aws:SourceIp": ["127.0.0.0/8", f"10.{number}.0.0/16"]},
}
EVERYWHERE = lambda number: {"StringLike": {"kms:RequestAlias": [f"alias/none-{number}-*"]}}
# Who the client is over TLS, by its certificate.
CLIENT = "spiffe://bench/client"
SERVER_FILES = {"certificate": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
# Which object the hosts sign with: setting, name, goal for unary gRPC.
OBJECTS = ((False, "token object", 0.75), (True, "working copies", 1.0))


def main(hsmac, engines, base=None):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hsmac-bench-"))
    try:
        bench = Bench(hsmac, folder)
        bench.provision()
        if base:
            other = Bench(base, folder / "base")
            other.provision()
            if POLICIES:
                print(policies_against(other, bench))
                return
            bench.certify()
            other.certify()
            print(against(other, bench))
            return
        if POLICIES:
            print(bench.policies())
            return
        if GRANTS:
            print(bench.grants(engines))
            return
        bench.certify()
        bench.fill(engines)
        conditions = bench.conditions()
        measured = [bench.measure(*one) for one in OBJECTS]
        print(report(conditions, measured, bench.many(measured[-1]["hosts"])))
    finally:
        shutil.rmtree(folder)


def quartiles(ratios):
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"median {middle:.3f} ({low:.3f} to {high:.3f} the half in the middle, {len(ratios)} turns of 2 s each)"


def against(base, bench):
    """What one binary makes of what another one does: calls over gRPC, on copies, plain and over TLS."""
    lines = []
    for scheme in ("http", "https"):
        of = lambda one: one.serve(2, True, one.tls() if scheme == "https" else ())
        ratios = in_turns(scheme, base, bench, of(base), of(bench), scheme)
        lines.append(f"unary gRPC over {scheme}, working copies, to the rate of the base: {quartiles(ratios)}")
    return "\n".join(lines)


def policies_against(base, bench):
    """The same with policies of 1 and of 50 statements, the same documents for both binaries."""
    lines = []
    for statements in STATEMENTS:
        of = lambda one: one.with_policies(statements, EVERYWHERE).serve(2, True, ())
        ratios = in_turns(f"{statements} statements", base, bench, of(base), of(bench))
        lines.append(f"unary gRPC, policies of {statements} statements, to the rate of the base: {quartiles(ratios)}")
    return "\n".join(lines)


def in_turns(name, base, bench, base_serving, serving, scheme="http"):
    """The rates of one server to those of another, in short turns, so that a machine whose speed drifts
    does so to both. Who does not serve waits, which costs nothing."""
    ratios = []
    with base_serving as (_, base_port, _), serving as (_, port, _):
        for turn in range(2 if SHORT else 20):
            # Each goes first as often as the other.
            if turn % 2:
                rate, base_rate = bench.h2load(port, 2, scheme), base.h2load(base_port, 2, scheme)
            else:
                base_rate, rate = base.h2load(base_port, 2, scheme), bench.h2load(port, 2, scheme)
            ratios.append(rate / base_rate)
            progress(f"{name}: base {base_rate:.0f}/s, this {rate:.0f}/s: {ratios[-1]:.3f}")
    return ratios


class Bench:
    def __init__(self, hsmac, folder):
        folder.mkdir(exist_ok=True)
        self.hsmac = hsmac
        self.dir = folder / "dev"
        self.config = self.dir / "hsmac.toml"
        self.many_keys = folder / "many.db"
        self.request = folder / "request.bin"
        self.request.write_bytes(frame(generate_mac_request()))
        self.items = folder / "items.bin"
        self.items.write_bytes(b"".join(frame(generate_macs_request(number)) for number in range(ITEMS)))
        self.log = open(folder / "log", "w")
        self.load_before = os.getloadavg()[0]
        # Nothing of the caller's own settings may reach the figures.
        mine = lambda name: name.startswith(("HSMAC", "AWS_"))
        self.env = {name: value for name, value in os.environ.items() if not mine(name)}

    def provision(self):
        """A fresh token with a key, made by `hsmac dev`, which is then ended."""
        addresses = ["--grpc", "127.0.0.1:0", "--aws", "127.0.0.1:0"]
        with self.process(["dev", "--dir", self.dir, *addresses]) as dev:
            for line in dev.stdout:
                if line.startswith("Ctrl-C"):
                    return
        raise SystemExit("softhsm/bench: hsmac dev did not serve")

    def certify(self):
        """An authority, a certificate for the server, and one for a principal of the same rights."""
        def openssl(*arguments):
            self.output("openssl", *arguments)

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        ca = [self.dir / "ca.pem", self.dir / "ca.key"]
        openssl("req", "-x509", *key, "-subj", "/CN=bench", "-out", ca[0], "-keyout", ca[1])
        for name, san, usage in (
            ("server", "IP:127.0.0.1", "serverAuth"), ("client", f"URI:{CLIENT}", "clientAuth"),
        ):
            file = lambda suffix: self.dir / f"{name}.{suffix}"
            file("ext").write_text(f"subjectAltName={san}\nextendedKeyUsage={usage}\n")
            openssl("req", *key, "-subj", f"/CN={name}", "-out", file("csr"), "-keyout", file("key"))
            openssl(
                "x509", "-req", "-in", file("csr"), "-CA", ca[0], "-CAkey", ca[1], "-CAcreateserial",
                "-extfile", file("ext"), "-out", file("pem"),
            )
        with open(self.config, "a") as config:
            config.write(
                f'\n[[principal]]\narn = "arn:aws:iam::{ACCOUNT}:user/client"\n'
                f'certificate_uri = "{CLIENT}"\npolicy_file = "dev.policy.json"\n'
            )

    def fill(self, engines):
        """A catalogue of many keys, besides the one that the configuration declares."""
        progress(f"putting {MANY_KEYS} keys into a catalogue")
        ids = (f"{number:08x}" for number in range(MANY_KEYS))
        keys = (key_record(f"{number}-0000-4000-8000-00000000cafe", cka_id=number) for number in ids)
        self.put(engines, self.many_keys, keys)

    def put(self, engines, store, records):
        """Records by their names, into a catalogue that nobody has open."""
        lines = [f"put {name} {json.dumps(record, separators=(',', ':'))}" for name, record in records]
        lines = ["open", *lines, "close"]
        done = subprocess.run(
            [engines, "--exact", "store_tool::a_catalogue_in_another_process", "--nocapture"],
            input="\n".join(lines) + "\n", text=True, capture_output=True,
            env=self.env | {"TEST_HELPER_ARGUMENT": str(store)},
        )
        # What comes before is the test harness's.
        said = done.stdout.partition("helper: ready\n")[2].split("\n")[:-1]
        if done.returncode or len(said) != len(lines) or not all(line.startswith("ok") for line in said):
            raise SystemExit(f"softhsm/bench: the catalogue could not be filled: {said[-1:]} {done.stderr}")

    def many(self, hosts):
        """The rate with many keys in the catalogue, to the rate with one before and after it."""
        ratios = []
        for _ in range(ROUNDS):
            one, many, again = (self.rate_over(store, hosts) for store in (None, self.many_keys, None))
            ratios.append(many / ((one + again) / 2))
            progress(f"one key {one:.0f}/s, {MANY_KEYS} keys {many:.0f}/s, one key {again:.0f}/s")
        return sorted(ratios)

    def rate_over(self, store, hosts):
        more = {"store.sqlite.path": store} if store else {}
        with self.serve(hosts, True, more) as (_, port, _):
            if store:
                self.output(
                    self.hsmac, "kms", "describe-key", "--endpoint", f"http://127.0.0.1:{port}",
                    "--key-id", f"{MANY_KEYS - 1:08x}-0000-4000-8000-00000000cafe",
                )
            return self.h2load(port, TOKEN_SECONDS)

    def policies(self):
        """What policies cost: calls over gRPC, on copies, by a caller that needs none, the account's root,
        and by one whose identity policy and whose key's policy have 1 or 50 statements each; in turns."""
        measured = {statements: [] for statements in (0, *STATEMENTS)}
        with contextlib.ExitStack() as running:
            fronts = {}
            for statements in measured:
                own = {"store.sqlite.path": f"{statements}.db", "state_dir": f"state-{statements}"}
                serving = self.with_policies(statements).serve(2, True, own)
                fronts[statements] = running.enter_context(serving)
            for turn in range(2 if SHORT else 40):
                # Each goes first, second and last as often as the others.
                at = turn % len(measured)
                for statements in [*measured][at:] + [*measured][:at]:
                    front, port, _ = fronts[statements]
                    measured[statements].append(self.loaded(port, 2, front=front))
                progress(", ".join(f"{n} statements {all_[-1]['rate']:.0f}/s" for n, all_ in measured.items()))
        lines = [
            "| statements in each of the two | unary gRPC, to the rate without | front, µs of CPU a call |",
            "|---|---|---|",
        ]
        for statements, all_ in measured.items():
            ratios = [one["rate"] / without["rate"] for one, without in zip(all_, measured[0])]
            cpu = statistics.median(one["cpu"] for one in all_)
            lines.append(f"| {statements} | {quartiles(ratios) if statements else 1} | {cpu:.1f} |")
        return "\n".join(lines)

    def grants(self, engines):
        """What grants cost: calls over gRPC, on copies, by a caller whom a key's policy lets in, to those with
        a key that has 50,000 grants, of which one lets the caller in; in turns on one server."""
        by_policy, by_grant = (f"{number:08x}-0000-4000-8000-00000000cafe" for number in (1, 2))
        rights = {"Effect": "Allow", "Principal": {"AWS": CALLER}, "Resource": "*"}
        policy = lambda **actions: json.dumps({"Statement": rights | actions}, separators=(",", ":"))
        grant = lambda number, grantee: (
            f"grant/{ACCOUNT}/{by_grant}/{number:064x}",
            {
                "grantee": {"arn": grantee}, "operations": ["GenerateMac"], "issuer": ACCOUNT,
                "created": 1_700_000_000_000,
            },
        )
        others = (grant(number, f"arn:aws:iam::{ACCOUNT}:user/{number}") for number in range(1, MANY_GRANTS))
        store = self.dir / "grants.db"
        progress(f"putting {MANY_GRANTS} grants into a catalogue")
        self.put(engines, store, [
            key_record(by_policy, cka_id="01", label="demo", policy=policy(Action="kms:*")),
            key_record(by_grant, cka_id="01", label="demo", policy=policy(NotAction="kms:GenerateMac")),
            grant(MANY_GRANTS, CALLER),
            *others,
        ])
        askers, rates, cpu = {}, {by_policy: [], by_grant: []}, {by_policy: [], by_grant: []}
        for key in rates:
            askers[key] = copy.copy(self)
            askers[key].request = self.dir / f"{key}.bin"
            askers[key].request.write_bytes(frame(generate_mac_request(key)))
        with self.serve(2, True, {"store.sqlite.path": store}) as (front, port, _):
            for turn in range(4 if SHORT else 40):
                # Each goes first as often as the other.
                for key in list(rates) if turn % 2 else reversed(rates):
                    told = askers[key].loaded(port, 2, front=front)
                    rates[key].append(told["rate"])
                    cpu[key].append(told["cpu"])
                progress(f"key policy {rates[by_policy][-1]:.0f}/s, grant {rates[by_grant][-1]:.0f}/s")
        ratios = [granted / allowed for granted, allowed in zip(rates[by_grant], rates[by_policy])]
        of_policy, of_grant = (statistics.median(cpu[key]) for key in (by_policy, by_grant))
        return (
            f"unary gRPC, working copies, by one of {MANY_GRANTS:,} grants on the key, to the rate by a key policy: "
            f"{quartiles(ratios)}\nfront, µs of CPU a call: {of_grant:.1f} by the grant, {of_policy:.1f} by the policy"
        )

    def with_policies(self, statements, conditions=HERE):
        """This, with policies of so many statements; of many the last one allows, and all others are looked
        at in vain: each is about this key and this caller, and has a condition that does not hold."""
        other = copy.copy(self)
        other.config = self.dir / f"statements-{statements}.toml"
        config = self.config.read_text()
        if not statements:
            config = config.replace(f"{ACCOUNT}:user/dev", f"{ACCOUNT}:root")
            config = config.replace('policy_file = "dev.policy.json"', "#")
        else:
            last = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
            others = [
                {
                    "Effect": "Deny",
                    "Action": ["kms:GenerateMac", "kms:VerifyMac"],
                    "Resource": "arn:aws:kms:*:*:key/*",
                    "Condition": conditions(number),
                }
                for number in range(statements - 1)
            ]
            whom = {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
            for name, more in (("own", {}), ("key", whom)):
                document = {"Version": "2012-10-17", "Statement": [one | more for one in (*others, last)]}
                (self.dir / f"{name}-{statements}.json").write_text(json.dumps(document))
            config = config.replace('"dev.policy.json"', f'"own-{statements}.json"')
            config = config.replace("[[key]]\n", f'[[key]]\npolicy_file = "key-{statements}.json"\n')
        other.config.write_text(config)
        return other

    def measure(self, copies, name, goal):
        trials = {hosts: self.trial(hosts, copies) for hosts in HOSTS}
        hosts = max(trials, key=trials.get)
        progress(f"{name}: {hosts} hosts do best: " + ", ".join(f"{h}: {r:.0f}/s" for h, r in trials.items()))
        rounds = [self.round(hosts, copies) for _ in range(ROUNDS)]
        median = lambda figure: statistics.median(one[figure] for one in rounds)
        for one in rounds:
            progress(f"{name}: " + ", ".join(f"{figure} {value:.2f}" for figure, value in one.items()))
        return {
            "name": name,
            "goal": goal,
            "hosts": hosts,
            "trials": trials,
            **{figure: median(figure) for figure in rounds[0]},
            "ratios": sorted(one["ratio"] for one in rounds),
            "items_ratios": sorted(one["items_ratio"] for one in rounds),
            "tls_ratios": sorted(one["tls_ratio"] for one in rounds),
            "aws_ratios": sorted(one["aws_ratio"] for one in rounds),
        }

    def trial(self, hosts, copies):
        with self.serve(hosts, copies) as (_, port, _):
            return self.h2load(port, TRIAL_SECONDS)

    def round(self, hosts, copies):
        before = self.token_rate()
        with self.serve(hosts, copies) as (front, port, aws_port):
            rate = self.h2load(port, SECONDS)
            items_rate = self.streamed(port)
            closed = self.grpc(port)
            open_loop = self.grpc(port, rate=int(rate / 2))
            aws = self.aws(aws_port)
            front_memory, host_memory = memory(front)
        with self.serve(hosts, copies, self.tls()) as (_, port, _):
            tls_rate = self.h2load(port, SECONDS, "https")
            tls_closed = self.grpc(port, scheme="https")
        naive = (before + self.token_rate()) / 2
        return {
            "naive": naive,
            "copy": self.token_rate("--working-copies") if copies else 0,
            "rate": rate,
            "ratio": rate / naive,
            "items_rate": items_rate,
            "items_ratio": items_rate / naive,
            "closed": closed["calls_per_second"],
            "closed_cpu": closed["own_cpu_percent"],
            "tls_rate": tls_rate,
            "tls_ratio": tls_rate / naive,
            "tls_closed": tls_closed["calls_per_second"],
            "tls_closed_cpu": tls_closed["own_cpu_percent"],
            "p50": open_loop["latency_us"]["p50"],
            "p99": open_loop["latency_us"]["p99"],
            "half": open_loop["calls_per_second"],
            "aws": aws["calls_per_second"],
            "aws_cpu": aws["own_cpu_percent"],
            "aws_ratio": aws["calls_per_second"] / naive,
            "aws_p50": aws["latency_us"]["p50"],
            "aws_p99": aws["latency_us"]["p99"],
            "front_memory": front_memory,
            "host_memory": host_memory,
        }

    def token_rate(self, *flags):
        arguments = ["bench", "token", "--config", self.config, "--key-id", KEY, "--json"]
        arguments += ["--duration", f"{TOKEN_SECONDS}s", "--message-bytes", str(len(MESSAGE)), *flags]
        return json.loads(self.output(self.hsmac, *arguments))["macs_per_second"]

    def grpc(self, port, rate=None, scheme="http"):
        """The closed loop of hsmac's own client, or with `rate` the open one."""
        arguments = ["bench", "grpc", *self.endpoint(port, scheme), "--key-id", KEY, "--json"]
        # The open loop on few connections: on many, the client takes the time of the machine that
        # the server is measured on.
        connections, streams = (4, 32) if rate else (CONNECTIONS, STREAMS)
        arguments += ["--connections", str(connections), "--streams", str(streams)]
        arguments += ["--duration", f"{TOKEN_SECONDS}s", "--message-bytes", str(len(MESSAGE))]
        if rate:
            arguments += ["--rate", str(rate)]
        return self.measured(arguments)

    def aws(self, port):
        """The closed loop over AWS's wire; each request is signed anew with the key pair of `dev`."""
        arguments = ["bench", "aws", "--endpoint", f"http://127.0.0.1:{port}", "--key-id", KEY, "--json"]
        arguments += ["--connections", str(AWS_CONNECTIONS), "--message-bytes", str(len(MESSAGE))]
        return self.measured([*arguments, "--duration", f"{SECONDS}s"])

    def measured(self, arguments):
        measured = json.loads(self.output(self.hsmac, *arguments))
        if measured["errors"]:
            raise SystemExit(f"softhsm/bench: calls failed: {measured['errors']}")
        return measured

    def endpoint(self, port, scheme="http"):
        words = ["--endpoint", f"{scheme}://127.0.0.1:{port}"]
        if scheme == "https":
            words += ["--ca-bundle", self.dir / "ca.pem"]
            words += ["--certificate", self.dir / "client.pem", "--key", self.dir / "client.key"]
        return words

    def h2load(self, port, seconds, scheme="http"):
        """Calls a second, all of them answered with a MAC. h2load has no certificate to show."""
        return self.loaded(port, seconds, scheme)["rate"]

    def streamed(self, port):
        """Items a second, over a few streams at a time, all of them answered with a MAC."""
        call = ("GenerateMacs", self.items, ITEM_CONNECTIONS, ITEM_STREAMS)
        return self.loaded(port, SECONDS, call=call)["rate"] * ITEMS

    def loaded(self, port, seconds, scheme="http", front=None, call=None):
        """What h2load counts; with the process of a front, its microseconds of CPU a call too."""
        method, body, connections, streams = call or ("GenerateMac", self.request, CONNECTIONS, STREAMS)
        url = f"{scheme}://127.0.0.1:{port}/hsmac.v1.MacService/{method}"
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        request = ["-d", str(body), *headers, url]
        # To HTTP a failed gRPC call is a success without data. So one call tells how many bytes an
        # answer has, and all others must have as many.
        one = h2load_counts(self.output("h2load", "-n1", "-c1", *request))
        if not one["data"]:
            raise SystemExit("softhsm/bench: the first call failed; see hsmac kms generate-mac")
        # The warm-up is a run of its own: h2load would count its bytes, and not its calls.
        load = [f"-c{connections}", f"-m{streams}", "-t1"]
        self.output("h2load", *load, "-D1", *request)
        before = cpu_seconds(front) if front else 0
        all_ = h2load_counts(self.output("h2load", *load, f"-D{seconds}", *request))
        if front:
            all_["cpu"] = (cpu_seconds(front) - before) / all_["succeeded"] * 1e6
        # Answers that the end of the time cut in two count for h2load's bytes, not for its calls.
        spare = connections * streams * one["data"]
        if all_["failed"] or abs(all_["data"] - all_["succeeded"] * one["data"]) > spare:
            raise SystemExit(f"softhsm/bench: calls failed: {all_}, {one['data']:.0f} bytes an answer")
        return all_

    @contextlib.contextmanager
    def serve(self, hosts, copies, more=()):
        port, aws_port = free_port(), free_port()
        settings = {
            "grpc.listen": f"127.0.0.1:{port}",
            "aws.listen": f"127.0.0.1:{aws_port}",
            "token.dev.hosts": hosts,
            "token.dev.sessions": 1,
            "token.dev.working_copies": str(copies).lower(),
            **dict(more),
        }
        sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        with self.process(["serve", "--config", self.config, *sets]) as front:
            self.wait_until_ready(front, port, hosts, "https" if "grpc.tls.key" in settings else "http")
            yield front.pid, port, aws_port

    def tls(self):
        return {f"grpc.tls.{name}": file for name, file in SERVER_FILES.items()}

    def wait_until_ready(self, front, port, hosts, scheme):
        mac = ["kms", "generate-mac", *self.endpoint(port, scheme), "--key-id", KEY]
        mac += ["--message", "ready?", "--mac-algorithm", "HMAC_SHA_256"]
        until = time.monotonic() + 30
        while time.monotonic() < until and front.poll() is None:
            made = subprocess.run([self.hsmac, *mac], env=self.env, capture_output=True)
            if made.returncode == 0 and len(children(front.pid)) == hosts:
                return
            time.sleep(0.05)
        raise SystemExit("softhsm/bench: hsmac serve did not serve within 30 s")

    @contextlib.contextmanager
    def process(self, arguments):
        child = subprocess.Popen(
            [self.hsmac, *arguments], env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log,
        )
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            child.communicate(timeout=60)

    def output(self, *arguments):
        done = subprocess.run(arguments, env=self.env, text=True, capture_output=True)
        if done.returncode:
            words = " ".join(str(word) for word in arguments)
            raise SystemExit(f"softhsm/bench: {words}\n{done.stdout}{done.stderr}")
        return done.stdout

    def conditions(self):
        git = lambda *words: subprocess.run(
            ["git", "-C", pathlib.Path(__file__).parent, *words], text=True, capture_output=True
        ).stdout.strip()
        check = self.output(self.hsmac, "check", "--config", self.config)
        module = re.search(r"module +(.*)", check)
        return {
            "date": time.strftime("%Y-%m-%d"),
            "revision": git("describe", "--always", "--dirty", "--abbrev=12") or "unknown",
            "processor": f"{processor()}, {os.cpu_count()} cores, shared by server, token and load generator",
            "system": f"{system()}, Linux {platform.release()}" if sys.platform == "linux" else platform.platform(),
            "token": f"SoftHSM {softhsm_version()}: {module.group(1) if module else 'unknown module'}",
            "load": f"h2load {h2load_version()}, {CONNECTIONS} connections × {STREAMS} streams, "
            f"{len(MESSAGE)}-byte messages, HMAC-SHA-256, {ROUNDS} × {SECONDS} s, medians; AWS's wire: "
            f"{AWS_CONNECTIONS} connections, one call at a time on each",
            "load average at the start": "%.2f" % self.load_before,
        }


def report(conditions, measured, many):
    plain, copies = measured
    lines = ["| | token object | working copies | goal |", "|---|---|---|---|"]

    def row(title, shown, goal=""):
        lines.append(f"| {title} | {shown(plain)} | {shown(copies)} | {goal} |")

    row("naive loop in one process, MACs/s", lambda m: f"{m['naive']:,.0f}")
    lines.append(f"| the same on a session-object copy, MACs/s | | {copies['copy']:,.0f} | |")
    row("hosts (best of 1 to 3, one session each)", lambda m: m["hosts"])
    row("unary gRPC, h2load, calls/s", lambda m: f"{m['rate']:,.0f}")
    goals = " and ".join(f"{m['goal']:.2f}" for m in measured)
    row(
        "**its ratio to the naive loop** (each round)",
        lambda m: f"**{m['ratio']:.2f}** ({', '.join('%.2f' % r for r in m['ratios'])})",
        f"≥ {goals}",
    )
    row(
        "unary gRPC, `hsmac bench grpc`, calls/s (client's CPU)",
        lambda m: f"{m['closed']:,.0f} ({m['closed_cpu']:.0f} %)",
    )
    row(
        f"GenerateMacs, h2load, {ITEM_CONNECTIONS} × {ITEM_STREAMS} streams of {ITEMS:,} items, items/s",
        lambda m: f"{m['items_rate']:,.0f}",
    )
    row(
        "**its ratio to the naive loop** (each round)",
        lambda m: f"**{m['items_ratio']:.2f}** ({', '.join('%.2f' % r for r in m['items_ratios'])})",
        "≥ 1.20 and 2.50",
    )
    row("unary gRPC over TLS, h2load, calls/s", lambda m: f"{m['tls_rate']:,.0f}")
    row(
        "**its ratio to the naive loop** (each round)",
        lambda m: f"**{m['tls_ratio']:.2f}** ({', '.join('%.2f' % r for r in m['tls_ratios'])})",
        "≥ 0.90 with copies",
    )
    row(
        "the same with a client certificate, `hsmac bench grpc`, calls/s (client's CPU)",
        lambda m: f"{m['tls_closed']:,.0f} ({m['tls_closed_cpu']:.0f} %)",
    )
    row("open loop, calls/s", lambda m: f"{m['half']:,.0f}", "half of h2load's")
    row("its p50, p99", lambda m: f"{m['p50'] / 1000:.2f} ms, {m['p99'] / 1000:.2f} ms", "p99 < 2 ms")
    row(
        "AWS JSON with SigV4, `hsmac bench aws`, calls/s (client's CPU)",
        lambda m: f"{m['aws']:,.0f} ({m['aws_cpu']:.0f} %)",
    )
    row(
        "**its ratio to the naive loop** (each round)",
        lambda m: f"**{m['aws_ratio']:.2f}** ({', '.join('%.2f' % r for r in m['aws_ratios'])})",
        "≥ 0.50",
    )
    row("its p50, p99", lambda m: f"{m['aws_p50'] / 1000:.2f} ms, {m['aws_p99'] / 1000:.2f} ms")
    shown = ", ".join("%.2f" % ratio for ratio in many)
    lines.append(
        f"| unary gRPC with {MANY_KEYS:,} keys in the catalogue, h2load, to the rate with one (each round) "
        f"| | **{statistics.median(many):.2f}** ({shown}) | ≥ 0.95 |"
    )
    row("front's memory", lambda m: f"{m['front_memory']:.1f} MB", "< 50 MB")
    row("largest host's memory", lambda m: f"{m['host_memory']:.1f} MB", "< 30 MB")
    for m in measured:
        tried = ", ".join(f"{hosts}: {rate:,.0f}" for hosts, rate in m["trials"].items())
        lines.append(f"\nHosts tried with {m['name']}, calls/s: {tried}.")
    lines.append("\nConditions:\n")
    lines += [f"* {name}: {value}" for name, value in conditions.items()]
    return "\n".join(lines)


def cpu_seconds(process):
    """User and system time of a process, without its children's."""
    stat = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def key_record(key_id, cka_id, label=None, policy=""):
    """The name of a key's record in the catalogue, and its value."""
    return f"key/{ACCOUNT}/{key_id}", {
        "key_id": key_id, "account": ACCOUNT, "spec": "HMAC_256", "origin": "AWS_KMS",
        "life": "Enabled", "description": "", "created": 1_700_000_000_123, "tags": [],
        "policy": policy, "check_value": None, "epoch": 1,
        "locator": {"token": "dev", "cka_id": cka_id, "label": label},
    }


def generate_mac_request(key=KEY):
    """hsmac.v1.GenerateMacRequest: key_id = 1, message = 2, mac_algorithm = 3 (HMAC_SHA_256 = 2)."""
    key = key.encode()
    return b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(MESSAGE)]) + MESSAGE + b"\x18\x02"


def generate_macs_request(number):
    """hsmac.v1.GenerateMacsRequest: id = 1, of two bytes, request = 2."""
    request = generate_mac_request()
    number += 1 << 7
    return bytes([0x08, number & 0x7F | 0x80, number >> 7, 0x12, len(request)]) + request


def frame(message):
    """A gRPC message: not compressed, its length, itself."""
    return struct.pack(">BI", 0, len(message)) + message


def h2load_counts(said):
    number = lambda pattern: float(re.search(pattern, said).group(1))
    return {
        "rate": number(r"([\d.]+) req/s"),
        "succeeded": number(r"(\d+) succeeded"),
        "failed": number(r"(\d+) failed"),
        "data": number(r"\((\d+)\) data"),
    }


def h2load_version():
    said = subprocess.run(["h2load", "--version"], text=True, capture_output=True).stdout
    return said.split("/")[-1].strip()


def softhsm_version():
    with contextlib.suppress(OSError):
        return subprocess.run(["softhsm2-util", "--version"], text=True, capture_output=True).stdout.strip()
    return "of unknown version"


def memory(front):
    """Resident memory in MB: the front's, and the largest host's."""
    return resident(front), max(resident(host) for host in children(front))


def resident(process):
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) / 1000


def children(process):
    tasks = pathlib.Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def processor():
    with contextlib.suppress(OSError, AttributeError):
        return re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text()).group(1)
    return platform.processor() or platform.machine()


def system():
    with contextlib.suppress(OSError, AttributeError):
        return re.search(r'PRETTY_NAME="(.*)"', pathlib.Path("/etc/os-release").read_text()).group(1)
    return "unknown system"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def progress(text):
    print(f"softhsm/bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*map(os.path.abspath, sys.argv[1:]))
