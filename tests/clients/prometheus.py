"""Debian's Prometheus scrapes real hsmacs with the alerts of docs/prometheus.

    python prometheus.py PATH-OF-HSMAC FAULT-TOKEN     (prometheus, jq, curl and openssl)

Each drill has an hsmac of its own, which is an instance to Prometheus. Its alerts must fire while the drill is
on, no other alert may fire but those of slowness, and for an hsmac that is well none at all. The rules are as they
are, but the alerts of the drills do not wait before they fire, and those that compare with an hour or a day ago look
back for less (`WINDOWS`). What compares, what is no single hsmac's, and what takes a processor comes after the other
drills, one by one.
"""

import contextlib
import json
import pathlib
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import typing
import urllib.parse
import urllib.request

from service import LIMIT, Service, Suite, clean_environment, free_address, until

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
RULES = DOCS / "prometheus" / "hsmac.rules.yml"
DASHBOARD = DOCS / "prometheus" / "grafana.json"
RUNBOOK = DOCS / "operators.md"
# What the runbook's commands have in the place of an hsmac's own.
ADMIN, CONFIG = "/run/hsmac/admin.sock", "/etc/hsmac/hsmac.toml"
# The functions of jq that they use.
JQ = {"select", "length", "todate"}
MAC = "kms generate-mac --mac-algorithm HMAC_SHA_256 --key-id"
# Prometheus and hsmac are on this machine.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url):
    with DIRECT.open(url, timeout=LIMIT) as answer:
        return answer.read().decode()


class Hsmac:
    """An hsmac over a token that misbehaves as its rules say, and an instance to Prometheus."""

    def __init__(self, origin, folder, name):
        self.name, self.folder, self.callers = name, folder / name.replace(" ", "-"), None
        self.folder.mkdir()
        self.control, self.admin, self.socket = self.folder / "control", free_address(), self.folder / "dev" / "admin.sock"
        self.service = origin.another(self.folder, {"FAULT_TOKEN_CONTROL": str(self.control)})

    def start(self, settings):
        listen = (f"admin.listen={self.admin}",)
        # No call fails because this machine is slow, and a call that hangs does not hold up the end.
        self.service.serve(*listen, "grpc.default_deadline=1m", "drain_timeout=1s", *settings(self.folder))

    def end(self):
        if self.callers:
            self.callers.kill()
            self.callers.wait(LIMIT)
        self.service.stop()

    def environment(self):
        """For `hsmac` as a client: this server is its endpoint."""
        return self.service.environment | {"HSMAC_ENDPOINT": f"http://{self.service.grpc}"}

    def run(self, words):
        arguments = [self.service.hsmac, *words.split()]
        return subprocess.run(arguments, capture_output=True, text=True, env=self.environment(), timeout=LIMIT)

    def key_to_be_deleted(self):
        made = self.run("kms create-key --key-spec HMAC_256 --key-usage GENERATE_VERIFY_MAC")
        key = json.loads(made.stdout)["KeyMetadata"]["KeyId"]
        assert self.run(f"kms schedule-key-deletion --key-id {key}").returncode == 0
        return key

    def token(self, *rules):
        """What the token does wrong from now on."""
        (self.folder / "new").write_text("".join(f"{rule}\n" for rule in rules))
        (self.folder / "new").rename(self.control)


def certificate(folder, listener, days):
    """The settings that give the listener a certificate that ends in so many days."""
    file, key = folder / f"{days}-days.pem", folder / f"{days}-days.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        + ["-subj", "/CN=localhost", "-days", str(days), "-keyout", key, "-out", file],
        check=True,
        capture_output=True,
    )
    return f"{listener}.tls.certificate={file}", f"{listener}.tls.key={key}"


class Drill(typing.NamedTuple):
    """What is done to an hsmac of this name, and the alerts that fire for it."""

    name: str
    alerts: set
    # What its start needs besides: given the drill's own folder, settings.
    settings: typing.Callable = lambda folder: ()
    # None: it begins with the start.
    begin: typing.Callable | None = None
    # What may fire as well, as chance has it.
    also: set = set()
    # What is done before its start.
    prepare: typing.Callable | None = None


def calls(hsmac):
    """Callers' calls, until hsmac ends."""
    hsmac.callers = callers(hsmac, 50)


def callers(hsmac, rate):
    return subprocess.Popen(
        [hsmac.service.hsmac, *f"bench grpc --key-id alias/demo --rate {rate} --duration 1h".split()],
        env=hsmac.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def token(*rules):
    def begin(hsmac):
        calls(hsmac)
        hsmac.token(*rules)

    return begin


def outage(hsmac):
    """While callers call."""
    calls(hsmac)
    made = 'hsmac_calls_total{wire="grpc",operation="GenerateMac",exception=""} '
    until("calls are made", lambda: re.search(re.escape(made) + "[1-9]", get(f"http://{hsmac.admin}/metrics")))
    hsmac.token("hide token")


def token_away(hsmac):
    hsmac.token("hide token")
    refused = hsmac.run(f"{MAC} alias/demo --message x")
    assert "KeyUnavailableException" in refused.stderr, refused


def wrong_pin(folder):
    (folder / "wrong").write_text("0000\n")
    (folder / "wrong").chmod(0o400)
    return (f"token.dev.pin_file={folder}/wrong",)


def never_killed(_):
    """A host whose call hangs is stuck from the call's deadline on."""
    return "token.dev.call_timeout=1h", "grpc.default_deadline=2s"


def two_hang(hsmac):
    """One after the other, and each host is killed for it."""
    calls(hsmac)
    for killed in 1, 2:
        hsmac.token(f"hang C_Sign once {killed}")
        ends = f'hsmac_host_ends_total{{token="dev",reason="hang"}} {killed}\n'
        until("a host is killed", lambda: ends in get(f"http://{hsmac.admin}/metrics"))


def wrong_pin_later(hsmac):
    """One host goes on with its login; the other one has to log in again."""
    (hsmac.service.config.parent / "new").write_text("0000\n")
    (hsmac.service.config.parent / "new").chmod(0o400)
    (hsmac.service.config.parent / "new").rename(hsmac.service.config.parent / "pin")
    hsmac.service.all_hosts()
    hsmac.token("crash C_Sign once")
    hsmac.run(f"{MAC} alias/demo --message x")


def no_pin_any_more(hsmac):
    """Nobody has the PIN, and every host has to log in again."""
    (hsmac.service.config.parent / "pin").unlink()
    hsmac.token("crash C_Sign")
    for _ in range(2):
        hsmac.run(f"{MAC} alias/demo --message x")


def full_disk(hsmac):
    with hsmac.service.full_disk():
        made = hsmac.run("kms create-key --key-spec HMAC_256 --key-usage GENERATE_VERIFY_MAC")
    assert "KMSInternalException" in made.stderr, made


def restored(hsmac):
    """A backup is in the catalogue's place, and nobody has confirmed it."""
    for words in ("store backup", "store restore"):
        done = hsmac.run(f"{words} {hsmac.folder}/backup.db --config {hsmac.service.config}")
        assert done.returncode == 0, done


def undeletable(hsmac):
    """A key's date has come, and its token destroys nothing."""
    hsmac.start(lambda folder: ())
    key = hsmac.key_to_be_deleted()
    hsmac.service.stop()
    with contextlib.closing(sqlite3.connect(hsmac.service.config.parent / "catalogue.db")) as catalogue, catalogue:
        edit(catalogue, f"key/000000000000/{key}", rb'"deletion_date":\d+', b'"deletion_date":1')
        # A catalogue whose time of day is not known long enough deletes nothing for a day.
        edit(catalogue, "clock", rb'"held":\d+', b'"held":0')
    hsmac.token("return C_DestroyObject CKR_TOKEN_WRITE_PROTECTED")


def edit(catalogue, name, old, new):
    """Changes a record, as hsmac would write it."""
    value, revision = catalogue.execute("SELECT value, revision FROM record WHERE name = ?", [name]).fetchone()
    value, found = re.subn(old, new, value)
    assert found == 1, value
    checksum = crc32c(name.encode() + revision.to_bytes(8, "big") + value)
    catalogue.execute("UPDATE record SET value = ?, checksum = ? WHERE name = ?", [value, checksum, name])


def crc32c(data):
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (0x82F63B78 if checksum & 1 else 0)
    return checksum ^ 0xFFFFFFFF


def token_of_its_own(hsmac):
    """Its token has a name that no other instance has: what tokens take is told by their names."""
    config = hsmac.service.config
    config.write_text(config.read_text().replace("[token.dev]", '[token.slow]\ngroup = "dev"'))


def one_worker(hsmac):
    hsmac.service.environment["TOKIO_WORKER_THREADS"] = "1"


def changed_setting(hsmac):
    text = hsmac.service.config.read_text()
    hsmac.service.config.write_text(text.replace("[grpc]\n", "[grpc]\nmax_connections = 77\n"))
    hsmac.service.process.send_signal(signal.SIGHUP)


def wrong_token(hsmac):
    """Its new settings name a token that is not there."""
    text = hsmac.service.config.read_text()
    wrong = re.sub(r"pkcs11:token=[^?;]*", "pkcs11:token=nowhere", text)
    assert wrong != text
    hsmac.service.config.write_text(wrong)
    hsmac.service.process.send_signal(signal.SIGHUP)


def without_a_proof(hsmac):
    """More than one such call a second, until hsmac ends."""

    def ask():
        request = urllib.request.Request(f"http://{hsmac.service.address}/", b"{}", method="POST")
        request.add_header("Content-Type", "application/x-amz-json-1.1")
        request.add_header("X-Amz-Target", "TrentService.GenerateMac")
        while hsmac.service.process.poll() is None:
            with contextlib.suppress(OSError):
                DIRECT.open(request, timeout=LIMIT)

    threading.Thread(target=ask, daemon=True).start()


def hostile_callers(hsmac):
    """One asks for a key that will be deleted, one for a MAC that only hsmac may make."""
    refused = hsmac.run(f"{MAC} {hsmac.key_to_be_deleted()} --message x")
    assert "KMSInvalidStateException" in refused.stderr, refused
    (hsmac.folder / "reserved").write_bytes(b"\0hsmac-reserved\0x")
    refused = hsmac.run(f"{MAC} alias/demo --message fileb://{hsmac.folder}/reserved")
    assert "ValidationException" in refused.stderr, refused


def broken_policy(hsmac):
    (hsmac.service.config.parent / "dev.policy.json").write_text("{")
    hsmac.service.process.send_signal(signal.SIGHUP)


def ends(hsmac):
    hsmac.service.stop()


AWAY = {"HsmacTokenAway", "HsmacNotReady"}
# Alerts of slowness: they fire in their drills. A machine with much else to do is slow in the others too, the more
# so as nothing waits here before it fires.
SLOW = {"HsmacSlow", "HsmacSessionsBusy", "HsmacQueueWait", "HsmacHedging"}
# What a token that is too slow for its load may bring besides.
LOAD = {"HsmacShedding", "HsmacErrorBudget"}
# Where hosts end, a call may be refused, and on a slow machine the token be without a host for a moment.
HOSTS_END = AWAY | {"HsmacErrorBudget"}
# What MACs are counted under.
QUOTA = "cryptographic_operations_symmetric"
# Of another account: not this caller's to describe.
FOREIGN = "arn:aws:kms:us-east-1:999999999999:key/00000000-0000-4000-8000-000000000001"
# What the rules say, and what they say here: there is no day to wait for.
WINDOWS = {
    "HsmacTokenSlow": [("[10m] offset 1d", "[20s] offset 40s"), ("[10m]", "[20s]")],
    "HsmacDeniedSurge": [("[1h] offset 5m", "[20s] offset 20s"), ("[5m]", "[10s]")],
    "HsmacBusy": [("[5m]", "[10s]")],
}
WELL = Drill("well", set(), lambda folder: certificate(folder, "aws", 365))
DRILLS = [
    Drill("token away", AWAY, begin=token_away),
    Drill("wrong PIN", {"HsmacPinRefused", "HsmacNotReady"}, wrong_pin),
    Drill("device faults", {"HsmacDeviceFaults"}, begin=token("return C_Sign CKR_DEVICE_ERROR every 10")),
    Drill("crashes", {"HsmacHostsLoop"}, begin=token("crash C_Sign every 50"), also=HOSTS_END),
    Drill("a call hangs", {"HsmacHostStuck"}, never_killed, token("hang C_Sign once"), HOSTS_END),
    Drill("calls hang", {"HsmacHostStuck"}, lambda _: ["token.dev.call_timeout=1s"], two_hang, HOSTS_END),
    Drill("outage", AWAY | {"HsmacErrorBudget"}, begin=outage),
    Drill("wrong PIN later", {"HsmacTokenDegraded"}, begin=wrong_pin_later, also=HOSTS_END),
    Drill("no PIN any more", {"HsmacTokenMisconfigured", "HsmacNotReady"}, begin=no_pin_any_more, also=HOSTS_END | {"HsmacHostsLoop"}),
    Drill(
        "slow token",
        {"HsmacSlow", "HsmacSessionsBusy", "HsmacQueueWait"},
        begin=token("delay C_Sign 500ms"),
        also=LOAD,
    ),
    Drill(
        "short queue",
        {"HsmacShedding"},
        lambda _: ["token.dev.queue=1"],
        token("delay C_Sign 500ms"),
        also=LOAD,
    ),
    Drill(
        "late calls",
        {"HsmacHedging"},
        lambda _: ["token.dev.hedge_after=20ms"],
        token("delay C_Sign 300ms every 5"),
        also=LOAD,
    ),
    Drill(
        "greedy caller",
        {"HsmacThrottled"},
        lambda _: [f"limits.default.rates.{QUOTA}.{setting}" for setting in ("rate=5", "burst=1")],
        calls,
    ),
    Drill("full disk", {"HsmacStoreFaults"}, begin=full_disk, also={"HsmacErrorBudget"}),
    Drill("restored catalogue", {"HsmacDeletionsHeld"}, prepare=restored),
    Drill("changed setting", {"HsmacRestartPending"}, begin=changed_setting),
    Drill("wrong token", {"HsmacTokenSettingsPending"}, begin=wrong_token),
    Drill("no proof", {"HsmacAuthenticationFailures"}, begin=without_a_proof),
    Drill("full listener", {"HsmacConnections"}, lambda _: ["grpc.max_connections=1"], calls),
    Drill("certificate ends now", {"HsmacCertificateEnds", "HsmacCertificateEndsSoon"}, lambda folder: certificate(folder, "aws", 2)),
    Drill("ends", {"HsmacDown"}, begin=ends),
    Drill("key gone", {"HsmacKeysUnavailable"}, lambda _: ["token.dev.working_copies=false"], token("hide key demo")),
    Drill("hostile callers", {"HsmacDeletedKeyWanted", "HsmacReservedPrefix"}, begin=hostile_callers),
    Drill("certificate ends", {"HsmacCertificateEnds"}, lambda folder: certificate(folder, "aws", 10)),
    Drill("broken file", {"HsmacReloadFailed"}, begin=broken_policy),
    Drill("undeletable object", {"HsmacDeletionAlarm"}, prepare=undeletable),
    # These come later.
    Drill("denied calls", set()),
    Drill("slower than before", set(), begin=calls, prepare=token_of_its_own),
    Drill("busy", set(), prepare=one_worker),
]
# The alerts of what comes later; those of tokens and versions are no single hsmac's.
LATER = {"HsmacDeniedSurge", "HsmacTokenSlow", "HsmacVersions", "HsmacBusy"}


class Prometheus:
    """Scrapes some hsmacs once a second; their names are their instances."""

    def __init__(self, folder, hsmacs):
        self.address = free_address()
        (folder / "rules.yml").write_text(impatient(RULES.read_text()))
        self.config = folder / "prometheus.yml"
        self.scrape(hsmacs)
        self.log = folder / "prometheus.log"
        arguments = [f"--config.file={self.config}", f"--storage.tsdb.path={folder}/data"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                ["prometheus", *arguments, f"--web.listen-address={self.address}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
            )

    def scrape(self, hsmacs):
        targets = [{"targets": [one.admin], "labels": {"instance": one.name}} for one in hsmacs]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "hsmac", "static_configs": targets}],
        }
        # JSON is YAML.
        self.config.write_text(json.dumps(config))

    def scrape_anew(self, hsmacs):
        self.scrape(hsmacs)
        self.process.send_signal(signal.SIGHUP)

    def end(self):
        self.process.kill()
        self.process.wait(LIMIT)

    def is_ready(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return "Ready" in get(f"http://{self.address}/-/ready")
        except OSError:
            return False

    def api(self, path, **parameters):
        answer = json.loads(get(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        return answer["data"]

    def alerts(self):
        """The rules of the alerts, as Prometheus has read them."""
        groups = self.api("rules", type="alert")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def firing(self):
        """The alerts that fire, by the instance for which they do."""
        fire = {}
        for alert in self.api("query", query='ALERTS{alertstate="firing"}')["result"]:
            labels = alert["metric"]
            fire.setdefault(labels.get("instance", ""), set()).add(labels["alertname"])
        return fire


def impatient(rules):
    """The rules, with alerts of drills that fire at once."""
    first, *rest = rules.split("- alert: ")
    drilled = LATER.union(*(drill.alerts for drill in DRILLS))
    rest = [re.sub(r"(?m)^ +for: .*\n", "", rule) if rule.split()[0] in drilled else rule for rule in rest]
    for at, rule in enumerate(rest):
        for window, shorter in WINDOWS.get(rule.split()[0], ()):
            assert window in rule, rule
            rule = rule.replace(window, shorter)
        rest[at] = rule
    return "- alert: ".join([first, *rest])


def runbook(checks, prometheus):
    text = RUNBOOK.read_text()
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    led = set()
    for alert in prometheus.alerts():
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        led.add(anchor)
        checks.holds(f"{alert['name']} leads to a section", page == "docs/operators.md" and anchor in anchors, anchor)
    sections = {anchor for anchor in anchors if anchor.startswith("alert-")}
    checks.equal("sections without an alert", sections - led, set())


def commands_of_the_runbook(checks, hsmac):
    """Those that ask hsmac, or are hsmac's own, do as they are written; others are the system's."""
    section = RUNBOOK.read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?s)### Alert: (\w+)\n.*?```sh\n(.*?)```", section)
    checks.equal("alerts without three commands", [name for name, block in blocks if block.count("\n") != 3], [])
    commands = sorted({line for _, block in blocks for line in block.splitlines()})
    for command in commands:
        if re.match(r"(sudo -u hsmac )?hsmac ", command):
            accepted(checks, hsmac, command)
    # One of those was refused, so that the state has such a call.
    known = members(json.loads(shell(hsmac, f"curl -s --unix-socket {ADMIN} localhost/status.json").stdout))
    for command in commands:
        if command.startswith("curl"):
            asked_for(checks, hsmac, command, known)


def shell(hsmac, command):
    return subprocess.run(command.replace(ADMIN, str(hsmac.socket)), shell=True, capture_output=True, text=True)


def members(value):
    """The names of all members of a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(members, value.values()))
    return set().union(*map(members, value)) if isinstance(value, list) else set()


def asked_for(checks, hsmac, command, known):
    program = re.sub(r'"[^"]*"', "", command.partition("| jq ")[2])
    asked = set(re.findall(r"[a-z_][a-z_0-9]*", program)) - JQ
    checks.equal(f"members that are not there: {command}", asked - known, set())
    ran = shell(hsmac, command)
    checks.holds(command, ran.returncode == 0 and not ran.stderr, ran)


def accepted(checks, hsmac, command):
    """The command line is understood, and ends well."""
    words = command.removeprefix("sudo -u hsmac ").removeprefix("hsmac ").replace(CONFIG, str(hsmac.service.config))
    ran = hsmac.run(words.replace(" primary", " dev").replace("--duration 5s", "--duration 10ms"))
    # The key here is declared, and has no deletion to cancel: 254 is its service's refusal.
    expected = 254 if "cancel-key-deletion" in words else 0
    checks.holds(command, ran.returncode == expected, ran)


def metrics_that_are_asked_for(checks, prometheus):
    """By the names that Prometheus has read from hsmacs in all these troubles."""
    names = set(prometheus.api("label/__name__/values", **{"match[]": '{job="hsmac"}'}))
    for what, expression in expressions(prometheus):
        asked = set(re.findall(r"\b(?:hsmac|process)_\w+", expression))
        checks.equal(f"{what}: metrics that are not there", asked - names, set())


def expressions(prometheus):
    return [(alert["name"], alert["query"]) for alert in prometheus.alerts()] + list(panels())


def panels():
    """The title and an expression of each panel of the dashboard, as Grafana would ask them for everything."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")


def denied_call(hsmac):
    denied = hsmac.run(f"kms describe-key --key-id {FOREIGN}")
    assert "AccessDeniedException" in denied.stderr, denied


def ordinary_trouble(hsmac):
    """What callers do wrong every day, so that there is something to see."""
    hsmac.key_to_be_deleted()
    denied_call(hsmac)
    host, port = hsmac.service.address.split(":")
    with socket.create_connection((host, port), LIMIT) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            while plain.recv(1024):
                pass


def drills(checks, prometheus, hsmacs):
    until("Prometheus has scraped all", lambda: len(prometheus.api("query", query="up == 1")["result"]) == len(hsmacs))
    fire = prometheus.firing()
    checks.equal("alerts before the drills", [one.name for one in DRILLS if one.begin and one.name in fire], [])
    for drill in DRILLS:
        if drill.begin:
            drill.begin(hsmacs[drill.name])
    missing = lambda: {one.name for one in DRILLS if not one.alerts <= prometheus.firing().get(one.name, set())}
    with contextlib.suppress(AssertionError):
        until("all alerts fire", lambda: not missing(), 3 * LIMIT)
    nothing_else_fires(checks, prometheus, hsmacs)


def nothing_else_fires(checks, prometheus, hsmacs):
    fire = prometheus.firing()
    for drill in [WELL, *DRILLS]:
        told = fire.pop(drill.name, set())
        right = drill.alerts <= told <= drill.alerts | drill.also | SLOW
        if not checks.holds(f"{drill.name}: {', '.join(sorted(drill.alerts)) or 'no alert'}", right, told):
            print(hsmacs[drill.name].service.log(), file=sys.stderr)
    # Tokens of several hsmacs have one name here, and some of them are slow by now.
    checks.equal("alerts of no hsmac", fire.pop("", set()) - {"HsmacTokenSlow"} | set(fire), set())


def panels_with_data(checks, prometheus):
    for title, expression in panels():
        found = prometheus.api("query", query=expression)["result"]
        checks.holds(f"{title}: {expression}", any(one["value"][1] != "NaN" for one in found), found)


def healed(checks, prometheus, hsmac):
    """The alerts of a token that is back end."""
    hsmac.token()
    hsmac.run(f"token kick dev --config {hsmac.service.config}")
    ended = until("the alerts end", lambda: not prometheus.firing().get(hsmac.name, set()) - SLOW)
    checks.holds(f"{hsmac.name}: the alerts end", ended)


def fires(checks, prometheus, alert, **labels):
    chosen = "".join(f',{label}="{value}"' for label, value in labels.items())
    query = f'ALERTS{{alertstate="firing",alertname="{alert}"{chosen}}}'
    there = lambda: prometheus.api("query", query=query)["result"]
    with contextlib.suppress(AssertionError):
        return checks.holds(f"{alert} fires", until(alert, there, 3 * LIMIT))
    return checks.holds(f"{alert} fires", False)


def is_silent(checks, prometheus, alert, **labels):
    chosen = "".join(f',{label}="{value}"' for label, value in labels.items())
    there = prometheus.api("query", query=f'ALERTS{{alertname="{alert}"{chosen}}}')["result"]
    checks.equal(f"{alert} is silent before", there, [])


def denied_calls(checks, prometheus, hsmac):
    """A few, and ten times as many then."""
    labels = {"alert": "HsmacDeniedSurge", "instance": hsmac.name}
    counted = f'sum(hsmac_denied_total{{instance="{hsmac.name}"}} offset 40s)'
    denied_call(hsmac)
    until("a while with few", lambda: prometheus.api("query", query=counted)["result"], 2 * LIMIT)
    is_silent(checks, prometheus, **labels)
    surge = threading.Event()

    def deny():
        while not surge.is_set():
            denied_call(hsmac)

    callers = threading.Thread(target=deny, daemon=True)
    callers.start()
    fires(checks, prometheus, **labels)
    surge.set()
    callers.join(LIMIT)


def slower_than_before(checks, prometheus, hsmac):
    labels = {"alert": "HsmacTokenSlow", "token": "slow"}
    made = 'hsmac_token_call_duration_seconds_count{token="slow",function="mac"} offset 1m'
    until("MACs a while ago", lambda: prometheus.api("query", query=made)["result"], 2 * LIMIT)
    is_silent(checks, prometheus, **labels)
    hsmac.token("delay C_Sign 700ms")
    fires(checks, prometheus, **labels)
    hsmac.token()


def two_versions(checks, prometheus, hsmacs, origin, folder, ending):
    """The same binary, which says that it is another version."""
    is_silent(checks, prometheus, "HsmacVersions")
    program = pathlib.Path(origin.hsmac)
    version = lambda program: subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()[1]
    now = version(program)
    later = now[:-1] + ("1" if now[-1] != "1" else "2")
    other = folder / "other-version"
    other.write_bytes(program.read_bytes().replace(now.encode(), later.encode()))
    other.chmod(0o755)
    checks.equal("the version of the copy", version(other), later)
    upgraded = Hsmac(origin, folder, "another version")
    upgraded.service.hsmac = str(other)
    ending.callback(upgraded.end)
    upgraded.start(lambda folder: ())
    prometheus.scrape_anew([*hsmacs.values(), upgraded])
    fires(checks, prometheus, "HsmacVersions")
    prometheus.scrape_anew(hsmacs.values())
    upgraded.service.stop()
    ended = lambda: not prometheus.api("query", query='ALERTS{alertname="HsmacVersions"}')["result"]
    checks.holds("HsmacVersions ends with the upgrade", until("one version", ended))


def all_its_processors(checks, prometheus, hsmac):
    labels = {"alert": "HsmacBusy", "instance": hsmac.name}
    is_silent(checks, prometheus, **labels)
    many = [callers(hsmac, 3000) for _ in range(4)]
    fires(checks, prometheus, **labels)
    for one in many:
        one.kill()
        one.wait(LIMIT)


def suite(checks, hsmac, module, folder, ending):
    origin = Service(hsmac, folder, module)
    ending.callback(origin.process.kill)
    origin.stop()
    hsmacs = {drill.name: Hsmac(origin, folder, drill.name) for drill in [WELL, *DRILLS]}
    for drill in [WELL, *DRILLS]:
        ending.callback(hsmacs[drill.name].end)
        if drill.prepare:
            drill.prepare(hsmacs[drill.name])
        hsmacs[drill.name].start(drill.settings)
    prometheus = Prometheus(folder, hsmacs.values())
    ending.callback(prometheus.end)
    until("Prometheus is ready", prometheus.is_ready)
    well = hsmacs[WELL.name]
    calls(well)
    ordinary_trouble(well)
    checks.part(runbook, checks, prometheus)
    checks.part(commands_of_the_runbook, checks, well)
    checks.part(drills, checks, prometheus, hsmacs)
    checks.part(metrics_that_are_asked_for, checks, prometheus)
    checks.part(panels_with_data, checks, prometheus)
    checks.part(nothing_else_fires, checks, prometheus, hsmacs)
    checks.part(healed, checks, prometheus, hsmacs["token away"])
    checks.part(denied_calls, checks, prometheus, hsmacs["denied calls"])
    checks.part(slower_than_before, checks, prometheus, hsmacs["slower than before"])
    checks.part(two_versions, checks, prometheus, hsmacs, origin, folder, ending)
    checks.part(all_its_processors, checks, prometheus, hsmacs["busy"])
    panicked = [name for name, one in hsmacs.items() if "panicked" in one.service.log()]
    checks.equal("hsmacs that panicked", panicked, [])
    return checks.end(well.service)


def main(hsmac, module):
    with contextlib.ExitStack() as ending:
        folder = ending.enter_context(tempfile.TemporaryDirectory(prefix="hsmac-clients-"))
        code = suite(Suite("Prometheus"), hsmac, module, pathlib.Path(folder), ending)
    sys.exit(code)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve())
