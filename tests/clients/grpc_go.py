"""Go's gRPC against a real hsmac: runs what was built of go/main.go.

    python grpc_go.py PATH-OF-HSMAC PATH-OF-CLIENT
"""

import pathlib
import sys

from program import program
from service import run


def suite(checks, service):
    client = pathlib.Path(sys.argv[2]).resolve()
    checks.part(program, checks, [client], {"address": service.grpc}, client.parent)


if __name__ == "__main__":
    run("grpc-go", suite, sys.argv[1])
