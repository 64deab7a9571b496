"""grpc-js with @grpc/proto-loader against a real hsmac: runs js/grpc.mjs.

    python grpc_javascript.py PATH-OF-HSMAC NODE FOLDER

FOLDER has the scripts of js/ with their packages (`npm ci` beside js/package-lock.json).
"""

import pathlib
import sys

import google.rpc

from program import program
from service import NOBODY, run

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
# googleapis-common-protos has google/rpc/*.proto beside what it is for Python.
GOOGLE = pathlib.Path(google.rpc.__path__[0]).parents[1]


def suite(checks, service):
    known = {
        "address": service.grpc,
        "protos": [str(PROTO), str(GOOGLE)],
        "hosts": service.all_hosts(),
        "nobody": NOBODY,
    }
    _, _, node, folder = sys.argv
    checks.part(program, checks, [node, "grpc.mjs"], known, folder)


if __name__ == "__main__":
    run("grpc-js", suite, sys.argv[1])
