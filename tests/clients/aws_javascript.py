"""The AWS SDK for JavaScript, version 3, against a real hsmac: runs js/kms.mjs.

    python aws_javascript.py PATH-OF-HSMAC NODE FOLDER

FOLDER has kms.mjs with its packages (`npm ci` beside js/package-lock.json).
"""

import json
import signal
import subprocess
import sys

from service import ACCESS_KEY, ACCOUNT, CALLER, DECLARED, KEYS, LIMIT, NOBODY, REGION, SECRET, clean_environment, run


def suite(checks, service):
    checks.part(everything, checks, service)
    checks.part(without_the_token, checks, service)


def everything(checks, service):
    script(checks, service, "walk")


def without_the_token(checks, service):
    """Pulls the token out, and has its hosts die of it."""
    tokens = service.folder / "dev" / "tokens"
    tokens.rename(service.folder / "pulled")
    tokens.mkdir()
    seen = service.lines
    service.signal_hosts(signal.SIGKILL)
    service.until_said("the token is unavailable", seen)
    script(checks, service, "token-away")


def script(checks, service, part):
    """Runs a part of kms.mjs, which tells a check a line: `ok` or `FAILED`, a tab, what it was."""
    known = {
        "endpoint": service.endpoint,
        "region": REGION,
        "account": ACCOUNT,
        "caller": CALLER,
        "accessKeyId": ACCESS_KEY,
        "secretAccessKey": SECRET,
        "declared": DECLARED,
        "nobody": NOBODY,
        "keys": [
            {"id": key.key_id, "arn": key.arn, "alias": key.alias, "aliasArn": key.alias_arn, "spec": key.spec}
            | {"algorithm": key.algorithm, "material": key.material.hex()}
            for key in KEYS.values()
        ],
    }
    _, _, node, folder = sys.argv
    done = subprocess.run(
        [node, "kms.mjs", part],
        input=json.dumps(known),
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT,
        cwd=folder,
        env=clean_environment() | {"AWS_EC2_METADATA_DISABLED": "true"},
    )
    for line in done.stdout.splitlines():
        told, _, what = line.partition("\t")
        if told in ("ok", "FAILED"):
            checks.holds(what, told == "ok", "see above")
        else:
            print(line)
    checks.equal(f"{part}: node's exit code", done.returncode, 0)


if __name__ == "__main__":
    run("AWS SDK for JavaScript", suite, sys.argv[1])
