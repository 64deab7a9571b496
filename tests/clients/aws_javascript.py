"""The AWS SDK for JavaScript, version 3, against a real hsmac: runs js/kms.mjs.

    python aws_javascript.py PATH-OF-HSMAC NODE FOLDER

FOLDER has the scripts of js/ with their packages (`npm ci` beside js/package-lock.json).
"""

import signal
import sys

from program import aws, program
from service import run


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
    _, _, node, folder = sys.argv
    program(checks, [node, "kms.mjs", part], aws(service), folder)


if __name__ == "__main__":
    run("AWS SDK for JavaScript", suite, sys.argv[1])
