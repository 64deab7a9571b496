"""Checks that a program in another language makes of a service."""

import json
import subprocess

from service import ACCESS_KEY, ACCOUNT, CALLER, DECLARED, KEYS, LIMIT, NOBODY, REGION, SECRET, clean_environment


def aws(service):
    """What a client of AWS's API must know."""
    return {
        "endpoint": service.endpoint,
        "region": REGION,
        "account": ACCOUNT,
        "caller": CALLER,
        "accessKeyId": ACCESS_KEY,
        "secretAccessKey": SECRET,
        "declared": DECLARED,
        "nobody": NOBODY,
    }


def program(checks, command, known, folder):
    """Runs a program, which is told as JSON on stdin what is `known` and which keys there are. It tells a
    check a line: `ok` or `FAILED`, a tab, what it was."""
    keys = [
        {"id": key.key_id, "arn": key.arn, "alias": key.alias, "aliasArn": key.alias_arn, "spec": key.spec}
        | {"algorithm": key.algorithm, "material": key.material.hex()}
        for key in KEYS.values()
    ]
    done = subprocess.run(
        command,
        input=json.dumps(known | {"keys": keys}),
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT * 2,
        cwd=folder,
        env=clean_environment() | {"AWS_EC2_METADATA_DISABLED": "true"},
    )
    for line in done.stdout.splitlines():
        told, _, what = line.partition("\t")
        if told in ("ok", "FAILED"):
            checks.holds(what, told == "ok", "see above")
        else:
            print(line)
    checks.equal(f"{' '.join(map(str, command))}: its exit code", done.returncode, 0)
