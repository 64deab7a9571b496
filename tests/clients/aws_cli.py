"""The AWS CLI, version 1, against a real hsmac: generate-mac and verify-mac with each of their options,
and a key's life.

    python aws_cli.py PATH-OF-HSMAC      (requirements.txt beside this file)

Version 1 ends with 255 where version 2 has 254 (the service says no) and 253 (no such profile), and
with 2 where version 2 has 252 (wrong usage).
"""

import base64
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

from service import ACCESS_KEY, ACCOUNT, CALLER, DECLARED_ARN, KEYS, LIMIT, NOBODY_ARN, REGION, SECRET, clean_environment, run

KEY = KEYS[256]
MESSAGE = b"Hello World"
OF = ["--key-id", KEY.alias, "--message", "Hello World", "--mac-algorithm", KEY.algorithm]
FAULT = r"\s*An error occurred \({}\) when calling the {} operation( \(reached max retries: \d\))?: {}"


def suite(checks, service):
    cli = Cli(checks, service)
    print(cli("--version").out.strip())
    for part in (messages_and_keys, macs, outputs, skeletons_and_json, refusals, where_and_who, usage):
        checks.part(part, cli)
    for part in (keys, grants, pages, other_operations, time_limits):
        checks.part(part, cli)


class Cli:
    """`aws` with its own configuration files, in a folder of its own."""

    aws = pathlib.Path(sys.executable).with_name("aws")
    # How it ends when the service says no.
    refused = 255

    def __init__(self, checks, service):
        self.checks, self.service, self.folder = checks, service, service.folder / "cli"
        self.folder.mkdir()
        self.path("config").write_text(
            f"[default]\nregion = {REGION}\nendpoint_url = {service.endpoint}\n"
            f"[profile other-region]\nregion = eu-west-1\nendpoint_url = {service.endpoint}\n"
            f"[profile service]\nregion = {REGION}\nservices = hsm\noutput = text\n"
            f"[services hsm]\nkms =\n  endpoint_url = {service.endpoint}\n"
            f"[profile bare]\n"
        )
        pair = f"aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = "
        self.path("credentials").write_text(
            f"[default]\n{pair}{SECRET}\n[service]\n{pair}{SECRET}\n[bare]\n{pair}{SECRET}\n"
            f"[other-region]\n{pair}{SECRET}\n[wrong]\n{pair}{'x' * 40}\nregion = {REGION}\n"
        )
        self.environment = clean_environment() | {
            "AWS_CONFIG_FILE": str(self.path("config")),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.path("credentials")),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PAGER": "",
            "COLUMNS": "200",
        }

    def path(self, name):
        return self.folder / name

    def blob(self, name, content):
        """A file, as an argument."""
        self.path(name).write_bytes(content)
        return f"fileb://{self.path(name)}"

    def __call__(self, *arguments, **environment):
        done = subprocess.run(
            [self.aws, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            cwd=self.folder,
            env=self.environment | environment,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def kms(self, *arguments, **environment):
        return self("kms", *arguments, **environment)

    def all(self, cases):
        """Runs `aws kms` for each case, two at a time, and checks what it said.

        A case is its name, its arguments, and what stdout must be if all goes well, as text or as JSON,
        or a pattern that stderr must match if not.
        """
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            cases = [(*case, {}) if len(case) == 3 else case for case in cases]
            running = [(case, pool.submit(self.kms, *case[1], **case[3])) for case in cases]
            for (what, _, expected, _), future in running:
                self.tell(what, future.result(), expected)

    def tell(self, what, done, expected):
        if isinstance(expected, re.Pattern):
            good = done.code == self.refused and not done.out and expected.match(done.err)
            self.checks.holds(f"{what}: {done.err.strip()[:90]}" if good else what, good, done)
            return
        out = done.out
        if out != expected:
            try:
                out = json.loads(out)
            except ValueError:
                pass
        self.checks.equal(what, (done.code, out, done.err), (0, expected, ""))


class Done:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"exit code {self.code}, stdout {self.out!r}, stderr {self.err!r}"


def made(key, message):
    return {"KeyId": key.arn, "Mac": base64.b64encode(key.mac(message)).decode(), "MacAlgorithm": key.algorithm}


def checked(key):
    return {"KeyId": key.arn, "MacValid": True, "MacAlgorithm": key.algorithm}


def fault(name, operation, say=""):
    return re.compile(FAULT.format(name, operation, say))


def messages_and_keys(cli):
    binary = bytes(range(256))
    file, whole = cli.blob("message.bin", binary), cli.blob("whole.bin", bytes(4096))
    cases = []
    for key in KEYS.values():
        of = ["generate-mac", "--mac-algorithm", key.algorithm]
        cases.append(
            (
                f"--message as text, {key.algorithm}",
                [*of, "--key-id", key.key_id, "--message", "Hello World"],
                made(key, MESSAGE),
            )
        )
        cases.append(
            (f"--message fileb://, {key.algorithm}", [*of, "--key-id", key.alias, "--message", file], made(key, binary))
        )
    of = ["generate-mac", "--mac-algorithm", KEY.algorithm]
    for name in KEY.names:
        cases.append((f"--key-id {name}", [*of, "--key-id", name, "--message", "Hello World"], made(KEY, MESSAGE)))
    cases.append(
        ("--message with umlauts", [*of, "--key-id", KEY.arn, "--message", "Grüße"], made(KEY, "Grüße".encode()))
    )
    cases.append(("--message of 4,096 bytes", [*of, "--key-id", KEY.arn, "--message", whole], made(KEY, bytes(4096))))
    cases.append(("--no-dry-run", ["generate-mac", *OF, "--no-dry-run"], made(KEY, MESSAGE)))
    cli.all(cases)


def macs(cli):
    cases = []
    for key in KEYS.values():
        mac = cli.blob(f"{key.algorithm}.mac", key.mac(MESSAGE))
        of = ["verify-mac", "--mac-algorithm", key.algorithm, "--message", "Hello World", "--mac", mac]
        names = key.names if key is KEY else key.names[:1]
        cases += [
            (f"verify-mac {key.algorithm} --key-id {name}", [*of, "--key-id", name], checked(key)) for name in names
        ]
    wrong, right = cli.blob("wrong.mac", bytes(32)), cli.blob("right.mac", KEY.mac(MESSAGE))
    no = fault("KMSInvalidMacException", "VerifyMac")
    cases += [
        ("verify-mac --no-dry-run", ["verify-mac", *OF, "--mac", right, "--no-dry-run"], checked(KEY)),
        (
            "verify-mac --message fileb://",
            ["verify-mac", *OF, "--mac", right, "--message", cli.blob("hello", MESSAGE)],
            checked(KEY),
        ),
        ("verify-mac with a wrong MAC", ["verify-mac", *OF, "--mac", wrong], no),
        ("verify-mac with another message", ["verify-mac", *OF, "--mac", right, "--message", "Hello Moon"], no),
        ("verify-mac --dry-run with a wrong MAC", ["verify-mac", *OF, "--mac", wrong, "--dry-run"], no),
        (
            "verify-mac --dry-run",
            ["verify-mac", *OF, "--mac", right, "--dry-run"],
            fault(
                "DryRunOperationException",
                "VerifyMac",
                "The request would have succeeded, but the DryRun option is set.",
            ),
        ),
        (
            "verify-mac --grant-tokens",
            ["verify-mac", *OF, "--mac", right, "--grant-tokens", "token"],
            fault("InvalidGrantTokenException", "VerifyMac"),
        ),
    ]
    cli.all(cases)
    # As the manual page has it: the MAC goes to a file, and from there to verify-mac.
    text = cli.kms("generate-mac", *OF, "--output", "text", "--query", "Mac").out
    cli.checks.equal("a MAC through base64 --decode", base64.b64decode(text), KEY.mac(MESSAGE))


def outputs(cli):
    mac = made(KEY, MESSAGE)["Mac"]
    generate = ["generate-mac", *OF]
    table = cli.kms(*generate, "--output", "table")
    good = table.code == 0 and all(word in table.out for word in ("GenerateMac", "| ", KEY.arn, mac, KEY.algorithm))
    cli.checks.holds("--output table", good, table)
    table = cli.kms("list-aliases", "--output", "table", "--color", "off")
    cli.checks.holds(
        "--output table of a list", table.code == 0 and KEY.alias_arn in table.out and "Aliases" in table.out, table
    )
    cli.all(
        [
            ("--output json", [*generate, "--output", "json"], made(KEY, MESSAGE)),
            ("--output text", [*generate, "--output", "text"], f"{KEY.arn}\t{mac}\t{KEY.algorithm}\n"),
            ("--query", [*generate, "--query", "KeyId"], KEY.arn),
            ("--query, --output text", [*generate, "--query", "Mac", "--output", "text"], f"{mac}\n"),
            ("--query of several", [*generate, "--query", "[MacAlgorithm,KeyId]"], [KEY.algorithm, KEY.arn]),
            ("--no-paginate", ["list-keys", "--no-paginate", "--query", "Truncated"], False),
            ("--color", [*generate, "--color", "off"], made(KEY, MESSAGE)),
        ]
    )


def skeletons_and_json(cli):
    given = {"KeyId": KEY.alias_arn, "Message": "Hello World", "MacAlgorithm": KEY.algorithm}
    cli.path("input.json").write_text(json.dumps(given))
    empty = {"Message": None, "KeyId": "", "GrantTokens": [""], "DryRun": True}
    for operation in ("generate-mac", "verify-mac"):
        for kind in ([], ["input"]):
            told = json.loads(cli.kms(operation, "--generate-cli-skeleton", *kind).out)
            members = sorted([*empty, "MacAlgorithm"] + (["Mac"] if operation == "verify-mac" else []))
            cli.checks.equal(f"{operation} --generate-cli-skeleton {' '.join(kind)}", sorted(told), members)
    # No service is asked: this version's own sample of a Mac does not pass its own check.
    told = cli.kms("generate-mac", *OF, "--generate-cli-skeleton", "output")
    cli.tell(
        "--generate-cli-skeleton output",
        told,
        re.compile(r"\s*Parameter validation failed:\s*Invalid type for parameter Mac"),
    )
    told = json.loads(cli.kms("verify-mac", *OF, "--mac", "m", "--generate-cli-skeleton", "output").out)
    cli.checks.equal("verify-mac --generate-cli-skeleton output", sorted(told), ["KeyId", "MacAlgorithm", "MacValid"])
    # A skeleton that was filled in goes back in.
    filled = (
        json.loads(cli.kms("generate-mac", "--generate-cli-skeleton").out)
        | given
        | {"GrantTokens": [], "DryRun": False}
    )
    cli.all(
        [
            ("--cli-input-json", ["generate-mac", "--cli-input-json", json.dumps(given)], made(KEY, MESSAGE)),
            (
                "--cli-input-json file://",
                ["generate-mac", "--cli-input-json", f"file://{cli.path('input.json')}"],
                made(KEY, MESSAGE),
            ),
            (
                "a skeleton that was filled in",
                ["generate-mac", "--cli-input-json", json.dumps(filled)],
                made(KEY, MESSAGE),
            ),
            (
                "an option goes before --cli-input-json",
                ["generate-mac", "--cli-input-json", json.dumps(given), "--message", "Hello Moon"],
                made(KEY, b"Hello Moon"),
            ),
        ]
    )


def refusals(cli):
    cli.blob("long.bin", bytes(4097))
    generate = ["generate-mac", *OF]
    key, cases = f"arn:aws:kms:{REGION}:{ACCOUNT}", []
    for what, arguments, name, say in [
        ("--grant-tokens", ["--grant-tokens", "token"], "InvalidGrantTokenException", ""),
        ("--grant-tokens with two", ["--grant-tokens", "one", "two"], "InvalidGrantTokenException", ""),
        (
            "--dry-run",
            ["--dry-run"],
            "DryRunOperationException",
            "The request would have succeeded, but the DryRun option is set.",
        ),
        ("an unknown key", ["--key-id", NOBODY_ARN], "NotFoundException", f"Key '{NOBODY_ARN}' does not exist"),
        (
            "an unknown alias",
            ["--key-id", "alias/nobody"],
            "NotFoundException",
            f"Alias {key}:alias/nobody is not found.",
        ),
        ("no key ID", ["--key-id", "key_id"], "NotFoundException", "Invalid keyId 'key_id'"),
        (
            "another region's key",
            ["--key-id", KEY.arn.replace(REGION, "eu-west-1")],
            "NotFoundException",
            "Invalid arn eu-west-1",
        ),
        (
            "another account's key",
            ["--key-id", KEY.arn.replace(ACCOUNT, "123456789012")],
            "AccessDeniedException",
            "User: ",
        ),
        (
            "another spec's algorithm",
            ["--mac-algorithm", "HMAC_SHA_512"],
            "InvalidKeyUsageException",
            "Algorithm HMAC_SHA_512 is incompatible with key spec HMAC_256.",
        ),
        (
            "an unknown algorithm",
            ["--mac-algorithm", "HMAC_MD5"],
            "ValidationException",
            "1 validation error detected: Value 'HMAC_MD5' at 'macAlgorithm' ",
        ),
        (
            "an empty message",
            ["--message", ""],
            "ValidationException",
            "1 validation error detected: Value at 'message' failed to satisfy constraint: Member must have length greater",
        ),
        (
            "4,097 bytes",
            ["--message", f"fileb://{cli.path('long.bin')}"],
            "ValidationException",
            "1 validation error detected: Value at 'message' failed to satisfy constraint: Member must have length less",
        ),
    ]:
        cases.append((what, [*generate, *arguments], fault(name, "GenerateMac", re.escape(say))))
    cli.all(cases)


def where_and_who(cli):
    generate, good = ["generate-mac", *OF], made(KEY, MESSAGE)
    mac = good["Mac"]
    endpoint = ["--endpoint-url", cli.service.endpoint]
    invalid = lambda say: fault("InvalidSignatureException", "GenerateMac", say)
    no_files = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    pair = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    cli.all(
        [
            ("endpoint_url of ~/.aws/config", generate, good),
            ("--endpoint-url and --region", [*generate, *endpoint, "--region", REGION, "--profile", "bare"], good),
            (
                "--profile, with an endpoint of kms alone",
                [*generate, "--profile", "service"],
                f"{KEY.arn}\t{mac}\t{KEY.algorithm}\n",
            ),
            ("AWS_PROFILE", generate, f"{KEY.arn}\t{mac}\t{KEY.algorithm}\n", {"AWS_PROFILE": "service"}),
            (
                "AWS_ENDPOINT_URL_KMS, and nothing but the environment",
                generate,
                good,
                {**no_files, **pair, "AWS_ENDPOINT_URL_KMS": cli.service.endpoint, "AWS_DEFAULT_REGION": REGION},
            ),
            (
                "AWS_ENDPOINT_URL",
                generate,
                good,
                {**no_files, **pair, "AWS_ENDPOINT_URL": cli.service.endpoint, "AWS_DEFAULT_REGION": REGION},
            ),
            (
                "--region of somewhere else",
                [*generate, "--region", "eu-west-1"],
                invalid("Credential should be scoped to a valid region, not 'eu-west-1'."),
            ),
            (
                "--profile with another region",
                [*generate, "--profile", "other-region"],
                invalid("Credential should be scoped to a valid region, not 'eu-west-1'."),
            ),
            (
                "a wrong secret",
                [*generate, *endpoint, "--profile", "wrong"],
                invalid("The request signature we calculated does not match"),
            ),
            (
                "an unknown access key",
                generate,
                fault(
                    "UnrecognizedClientException",
                    "GenerateMac",
                    "The security token included in the request is invalid.",
                ),
                {"AWS_ACCESS_KEY_ID": "AKIDNOBODY", "AWS_SECRET_ACCESS_KEY": SECRET},
            ),
            (
                "a session token",
                generate,
                fault(
                    "UnrecognizedClientException",
                    "GenerateMac",
                    "The security token included in the request is invalid.",
                ),
                {**pair, "AWS_SESSION_TOKEN": "token"},
            ),
            (
                "--no-sign-request",
                [*generate, "--no-sign-request"],
                fault("MissingAuthenticationTokenException", "GenerateMac", "Missing Authentication Token"),
            ),
            (
                "an endpoint where nobody is",
                [*generate, "--endpoint-url", "http://127.0.0.1:1"],
                re.compile(r"\s*Could not connect to the endpoint URL"),
            ),
        ]
    )
    debug = cli.kms(*generate, "--debug")
    cli.checks.holds(
        "--debug", debug.code == 0 and json.loads(debug.out) == good and "x-amzn-requestid" in debug.err.lower(), debug
    )


def usage(cli):
    for what, arguments, code in [
        ("no algorithm", ["generate-mac", *OF[:4]], 2),
        ("an output that there is not", ["generate-mac", *OF, "--output", "xml"], 2),
        ("an operation that there is not", ["make-mac"], 2),
        ("an option that there is not", ["generate-mac", *OF, "--nonsense"], 255),
        ("a profile that there is not", ["generate-mac", *OF, "--profile", "nobody"], 255),
        ("a file that there is not", ["generate-mac", *OF, "--message", "fileb:///nonexistent"], 255),
    ]:
        done = cli.kms(*arguments)
        cli.checks.equal(f"{what}: the exit code", (done.code, done.out), (code, ""))


def keys(cli):
    made = json.loads(
        cli.kms(
            "create-key",
            "--key-spec",
            "HMAC_512",
            "--key-usage",
            "GENERATE_VERIFY_MAC",
            "--description",
            "from aws",
            "--tags",
            "TagKey=team,TagValue=billing",
        ).out
    )["KeyMetadata"]
    key_id, arn = made["KeyId"], made["Arn"]
    expected = ("HMAC_512", "Enabled", ["HMAC_SHA_512"], "from aws")
    cli.checks.equal(
        "create-key", (made["KeySpec"], made["KeyState"], made["MacAlgorithms"], made["Description"]), expected
    )
    generate = ["generate-mac", "--message", "m", "--mac-algorithm", "HMAC_SHA_512", "--key-id", "alias/cli"]
    steps = [
        ("create-alias", ["create-alias", "--alias-name", "alias/cli", "--target-key-id", key_id], ""),
        ("describe-key", ["describe-key", "--key-id", "alias/cli", "--query", "KeyMetadata.Arn"], arn),
        ("a MAC with the new key", [*generate, "--query", "KeyId"], arn),
        (
            "get-key-last-usage",
            ["get-key-last-usage", "--key-id", key_id, "--query", "KeyLastUsage.Operation"],
            "GenerateMac",
        ),
        (
            "list-resource-tags",
            ["list-resource-tags", "--key-id", key_id, "--query", "Tags"],
            [{"TagKey": "team", "TagValue": "billing"}],
        ),
        (
            "tag-resource",
            ["tag-resource", "--key-id", key_id, "--tags", "TagKey=team,TagValue=ledger", "TagKey=a,TagValue="],
            "",
        ),
        ("untag-resource", ["untag-resource", "--key-id", key_id, "--tag-keys", "a"], ""),
        (
            "the tags then",
            ["list-resource-tags", "--key-id", key_id, "--output", "text", "--query", "Tags"],
            "team\tledger\n",
        ),
        ("update-key-description", ["update-key-description", "--key-id", arn, "--description", ""], ""),
        ("disable-key", ["disable-key", "--key-id", key_id], ""),
        (
            "a MAC with the disabled key",
            generate,
            fault("DisabledException", "GenerateMac", re.escape(f"{arn} is disabled.")),
        ),
        ("enable-key", ["enable-key", "--key-id", key_id], ""),
        (
            "enable-key by alias",
            ["enable-key", "--key-id", "alias/cli"],
            fault("InvalidArnException", "EnableKey", "Key Aliases are not supported for this operation."),
        ),
        (
            "get-key-rotation-status",
            ["get-key-rotation-status", "--key-id", key_id],
            {"KeyId": arn, "KeyRotationEnabled": False},
        ),
        ("list-key-rotations", ["list-key-rotations", "--key-id", key_id, "--query", "Rotations"], []),
        (
            "enable-key-rotation",
            ["enable-key-rotation", "--key-id", key_id],
            fault("UnsupportedOperationException", "EnableKeyRotation"),
        ),
        (
            "schedule-key-deletion",
            [
                "schedule-key-deletion",
                "--key-id",
                key_id,
                "--pending-window-in-days",
                "7",
                "--query",
                "[KeyId,KeyState,PendingWindowInDays]",
            ],
            [arn, "PendingDeletion", 7],
        ),
        (
            "a MAC with the key that will be deleted",
            generate,
            fault("KMSInvalidStateException", "GenerateMac", re.escape(f"{arn} is pending deletion.")),
        ),
        ("cancel-key-deletion", ["cancel-key-deletion", "--key-id", key_id], {"KeyId": arn}),
        ("its state", ["describe-key", "--key-id", key_id, "--query", "KeyMetadata.KeyState"], "Disabled"),
        ("update-alias", ["update-alias", "--alias-name", "alias/cli", "--target-key-id", KEYS[512].key_id], ""),
        ("the alias's new key", [*generate, "--query", "KeyId"], KEYS[512].arn),
        ("delete-alias", ["delete-alias", "--alias-name", "alias/cli"], ""),
    ]
    for what, arguments, expected in steps:
        cli.tell(what, cli.kms(*arguments), expected)


def pages(cli):
    listed = json.loads(cli.kms("list-keys").out)["Keys"]
    paged = json.loads(cli.kms("list-keys", "--page-size", "2").out)["Keys"]
    cli.checks.equal("list-keys --page-size", paged, listed)
    cli.checks.holds(
        "list-keys has the given and the declared keys",
        {DECLARED_ARN, *(key.arn for key in KEYS.values())} <= {key["KeyArn"] for key in listed},
        listed,
    )
    first = json.loads(cli.kms("list-keys", "--max-items", "2").out)
    rest = json.loads(cli.kms("list-keys", "--starting-token", first["NextToken"]).out)
    cli.checks.equal("list-keys --max-items, --starting-token", first["Keys"] + rest["Keys"], listed)


def grants(cli):
    """A grant's life, for the other version too."""
    policy = {"Effect": "Allow", "Principal": {"AWS": CALLER}, "NotAction": "kms:GenerateMac", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": policy})
    given = ["--key-spec", "HMAC_256", "--key-usage", "GENERATE_VERIFY_MAC", "--policy", policy]
    key_id = json.loads(cli.kms("create-key", *given).out)["KeyMetadata"]["KeyId"]
    of, to = ["--key-id", key_id], ["--grantee-principal", CALLER, "--retiring-principal", CALLER]
    generate = ["generate-mac", *of, "--message", "m", "--mac-algorithm", "HMAC_SHA_256", "--query", "length(Mac)"]
    create = ["create-grant", *of, *to, "--operations", "GenerateMac", "DescribeKey", "--name", "cli"]
    denied = fault("AccessDeniedException", "GenerateMac")
    cli.tell("generate-mac without a grant", cli.kms(*generate), denied)
    made = json.loads(cli.kms(*create).out)
    grant, token = made["GrantId"], made["GrantToken"]
    described = "Grants[].[Name,GrantId,GranteePrincipal,sort(Operations)]"
    wanted = [["cli", grant, CALLER, ["DescribeKey", "GenerateMac"]]]
    for what, arguments, expected in [
        ("generate-mac by the grant", generate, 44),
        ("with its token", [*generate, "--grant-tokens", token], 44),
        ("create-grant again", [*create, "--query", "GrantId", "--output", "text"], f"{grant}\n"),
        ("list-grants", ["list-grants", *of, "--query", described], wanted),
        ("list-retirable-grants", ["list-retirable-grants", *to[2:], "--query", described], wanted),
        ("retire-grant", ["retire-grant", "--grant-token", token], ""),
        ("generate-mac after it", generate, denied),
        ("revoke-grant of it", ["revoke-grant", *of, "--grant-id", grant], fault("NotFoundException", "RevokeGrant")),
        ("create-grant once more", [*create, "--query", "length(GrantId)"], 64),
    ]:
        cli.tell(what, cli.kms(*arguments), expected)
    again = json.loads(cli.kms("list-grants", *of, "--page-size", "1").out)["Grants"]
    cli.checks.holds("it is another grant", len(again) == 1 and again[0]["GrantId"] != grant, again)
    cli.tell("revoke-grant", cli.kms("revoke-grant", *of, "--grant-id", again[0]["GrantId"]), "")
    cli.tell("generate-mac in the end", cli.kms(*generate), denied)


def other_operations(cli):
    cli.all(
        [
            ("generate-random", ["generate-random", "--number-of-bytes", "8", "--query", "length(Plaintext)"], 12),
            (
                "encrypt",
                ["encrypt", "--key-id", KEY.alias, "--plaintext", "x"],
                fault(
                    "InvalidKeyUsageException",
                    "Encrypt",
                    re.escape(f"{KEY.arn} key usage is GENERATE_VERIFY_MAC which is not valid for Encrypt."),
                ),
            ),
            (
                "create-custom-key-store",
                ["create-custom-key-store", "--custom-key-store-name", "x"],
                fault("UnknownOperationException", "CreateCustomKeyStore"),
            ),
        ]
    )


def time_limits(cli):
    good = made(KEY, MESSAGE)
    limits = ["--cli-read-timeout", "30", "--cli-connect-timeout", "30"]
    cli.tell("--cli-read-timeout and --cli-connect-timeout that suffice", cli.kms("generate-mac", *OF, *limits), good)
    cli.service.signal_hosts(signal.SIGSTOP)
    try:
        late = cli.kms("generate-mac", *OF, "--cli-read-timeout", "1")
    finally:
        cli.service.signal_hosts(signal.SIGCONT)
    cli.tell("--cli-read-timeout that passes", late, re.compile(r"\s*Read timeout on endpoint URL"))
    # A listener whose queue is full: its next connection is not made.
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (one, two):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        endpoint = f"http://127.0.0.1:{full.getsockname()[1]}"
        late = cli.kms(
            "generate-mac", *OF, "--cli-connect-timeout", "1", "--cli-read-timeout", "5", "--endpoint-url", endpoint
        )
    cli.tell("--cli-connect-timeout that passes", late, re.compile(r"\s*Connect timeout on endpoint URL"))


if __name__ == "__main__":
    run("AWS CLI", suite, sys.argv[1])
