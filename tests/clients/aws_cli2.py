"""The AWS CLI, version 2, against a real hsmac: what differs from version 1, and a key's life.

    python aws_cli2.py PATH-OF-HSMAC AWS

AWS is the command; Debian 12's is 2.9, which reads no endpoint from its configuration or environment.
"""

import json
import re
import sys

from aws_cli import MESSAGE, OF, Cli, Done, checked, fault, grants, made
from service import KEYS, NOBODY_ARN, run

KEY = KEYS[256]


class Cli2(Cli):
    aws = sys.argv[2]
    refused = 254

    def __init__(self, checks, service):
        super().__init__(checks, service)
        # Version 2 takes text for base64 unless it is told so.
        config = self.path("config").read_text()
        raw = config.replace("[default]\n", "[default]\ncli_binary_format = raw-in-base64-out\n")
        self.path("config").write_text(raw)

    def kms(self, *arguments, **environment) -> Done:
        return super().kms(*arguments, "--endpoint-url", self.service.endpoint, **environment)


def suite(checks, service):
    cli = Cli2(checks, service)
    version = cli("--version").out.strip()
    checks.holds(f"{version} is version 2", version.startswith("aws-cli/2."), version)
    for part in (macs, refusals, life, grants, pages, exit_codes):
        checks.part(part, cli)


def macs(cli):
    generate, cases = ["generate-mac", *OF], []
    for key in KEYS.values():
        of = ["--key-id", key.alias, "--mac-algorithm", key.algorithm, "--message", "Hello World"]
        mac = cli.blob(f"{key.algorithm}.mac", key.mac(MESSAGE))
        cases += [
            (f"generate-mac {key.algorithm}", ["generate-mac", *of], made(key, MESSAGE)),
            (f"verify-mac {key.algorithm}", ["verify-mac", *of, "--mac", mac], checked(key)),
        ]
    as_base64 = ["--cli-binary-format", "base64", "--message", "SGVsbG8gV29ybGQ="]
    mac = made(KEY, MESSAGE)["Mac"]
    cases += [
        ("--message as base64", [*generate, *as_base64], made(KEY, MESSAGE)),
        ("verify-mac --mac as base64", ["verify-mac", *OF, *as_base64, "--mac", mac], checked(KEY)),
        (
            "--message fileb://",
            [*generate, "--message", cli.blob("all", bytes(range(256)))],
            made(KEY, bytes(range(256))),
        ),
        (
            "--output yaml",
            [*generate, "--output", "yaml"],
            f"KeyId: {KEY.arn}\nMac: {mac}\nMacAlgorithm: {KEY.algorithm}\n",
        ),
        ("--query, --output text", [*generate, "--output", "text", "--query", "Mac"], f"{mac}\n"),
    ]
    cli.all(cases)


def refusals(cli):
    wrong, long = cli.blob("wrong.mac", bytes(32)), cli.blob("long", bytes(4097))
    cases = [("a wrong MAC", ["verify-mac", *OF, "--mac", wrong], fault("KMSInvalidMacException", "VerifyMac"))]
    for what, arguments, name in [
        ("an unknown key", ["--key-id", NOBODY_ARN], "NotFoundException"),
        ("another spec's algorithm", ["--mac-algorithm", "HMAC_SHA_512"], "InvalidKeyUsageException"),
        ("a grant token", ["--grant-tokens", "token"], "InvalidGrantTokenException"),
        ("an unknown algorithm", ["--mac-algorithm", "HMAC_MD5"], "ValidationException"),
        ("4,097 bytes", ["--message", long], "ValidationException"),
        ("another region", ["--region", "eu-west-1"], "InvalidSignatureException"),
    ]:
        cases.append((what, ["generate-mac", *OF, *arguments], fault(name, "GenerateMac")))
    cli.all(cases)


def life(cli):
    given = ["--key-spec", "HMAC_256", "--key-usage", "GENERATE_VERIFY_MAC", "--description", "from aws 2"]
    new = json.loads(cli.kms("create-key", *given, "--tags", "TagKey=team,TagValue=billing").out)["KeyMetadata"]
    key_id, arn = new["KeyId"], new["Arn"]
    told = (new["KeySpec"], new["KeyState"], new["MacAlgorithms"], new["Description"])
    cli.checks.equal("create-key", told, ("HMAC_256", "Enabled", ["HMAC_SHA_256"], "from aws 2"))
    generate = ["generate-mac", *OF, "--key-id", "alias/cli2"]
    deletion = ["schedule-key-deletion", "--key-id", key_id, "--pending-window-in-days", "7"]
    of = ["--key-id", key_id]
    for what, arguments, expected in [
        ("create-alias", ["create-alias", "--alias-name", "alias/cli2", "--target-key-id", key_id], ""),
        ("a MAC with the new key", [*generate, "--query", "KeyId"], arn),
        ("its tags", ["list-resource-tags", *of, "--query", "Tags"], [{"TagKey": "team", "TagValue": "billing"}]),
        ("disable-key", ["disable-key", *of], ""),
        (
            "a MAC with the disabled key",
            generate,
            fault("DisabledException", "GenerateMac", re.escape(f"{arn} is disabled.")),
        ),
        ("enable-key", ["enable-key", *of], ""),
        ("enable-key by alias", ["enable-key", "--key-id", "alias/cli2"], fault("InvalidArnException", "EnableKey")),
        ("schedule-key-deletion", [*deletion, "--query", "[KeyId,KeyState]"], [arn, "PendingDeletion"]),
        ("a MAC with it", generate, fault("KMSInvalidStateException", "GenerateMac")),
        ("cancel-key-deletion", ["cancel-key-deletion", *of], {"KeyId": arn}),
        ("its state", ["describe-key", *of, "--query", "KeyMetadata.KeyState"], "Disabled"),
        ("delete-alias", ["delete-alias", "--alias-name", "alias/cli2"], ""),
    ]:
        cli.tell(what, cli.kms(*arguments), expected)


def pages(cli):
    listed = json.loads(cli.kms("list-keys").out)["Keys"]
    cli.checks.equal("list-keys --page-size", json.loads(cli.kms("list-keys", "--page-size", "2").out)["Keys"], listed)
    first = json.loads(cli.kms("list-aliases", "--max-items", "2").out)
    rest = json.loads(cli.kms("list-aliases", "--starting-token", first["NextToken"]).out)
    names = {alias["AliasName"] for alias in first["Aliases"] + rest["Aliases"]}
    cli.checks.holds("list-aliases --max-items, --starting-token", {key.alias for key in KEYS.values()} <= names, names)


def exit_codes(cli):
    for what, arguments, code in [
        ("no algorithm", ["generate-mac", *OF[:4]], 252),
        ("an operation that there is not", ["make-mac"], 252),
        (
            "text where base64 is wanted",
            ["generate-mac", *OF, "--cli-binary-format", "base64", "--message", "no!"],
            255,
        ),
        ("a profile that there is not", ["generate-mac", *OF, "--profile", "nobody"], 255),
    ]:
        done = cli.kms(*arguments)
        cli.checks.equal(f"{what}: the exit code", (done.code, done.out), (code, ""))


if __name__ == "__main__":
    run("AWS CLI, version 2", suite, sys.argv[1])
