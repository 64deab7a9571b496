"""Raw bytes against a real hsmac's AWS listener: what no SDK sends, and what none may get through.

    python aws_wire.py PATH-OF-HSMAC      (requirements.txt beside this file)

Requests are signed with botocore's own signer, then spoilt. Each must be refused as AWS does it, tell
nothing, and leave the service as good as before.
"""

import sys

import wire_http
import wire_proofs
from service import run
from wire_request import Wire


def suite(checks, service):
    wire = Wire(checks, service)
    for part in (
        wire_http.good_requests,
        wire_proofs.proofs,
        wire_proofs.spoilt_proofs,
        wire_proofs.scopes_and_dates,
        wire_proofs.payloads,
        wire_proofs.replays,
        wire_http.envelopes,
        wire_http.hosts,
        wire_http.bodies,
        wire_http.members,
        wire_http.long_requests,
        wire_http.connections,
        wire_http.slow_connections,
    ):
        checks.part(part, wire)


if __name__ == "__main__":
    run("AWS's wire", suite, sys.argv[1])
