"""Replaces a column of a CSV file by pseudonyms that only the HSM's key can make: grpcio against hsmac.

    python pseudonyms.py COLUMN < people.csv > safe.csv

The pseudonym of a value is its MAC: one value has one pseudonym, in every file that is treated with
this key and column name, so that tables can still be joined; without the key nobody can try out
which value stands behind one. Who may ask hsmac can, so give few the right to GenerateMac.

HSMAC_ENDPOINT says where hsmac is (default http://127.0.0.1:50051), KEY_ID which key (default
alias/demo). Needs stubs beside it:

    python -m grpc_tools.protoc -I ../../proto --python_out=. --grpc_python_out=. hsmac/v1/mac.proto
"""

import asyncio
import csv
import os
import sys
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hsmac.v1 import mac_pb2, mac_pb2_grpc

ENDPOINT = os.environ.get("HSMAC_ENDPOINT", "http://127.0.0.1:50051").removeprefix("http://")
KEY_ID = os.environ.get("KEY_ID", "alias/demo")
# Calls that are under way at a time: enough to keep the token busy, far from filling its queue.
AT_ONCE = 64
# So many rows are in memory.
CHUNK = 10_000
# Half of a MAC: 128 bits, with which two of 2^40 values have one pseudonym with a chance of 2^-49.
OCTETS = 16


async def main(column):
    rows = csv.DictReader(sys.stdin)
    if column not in (rows.fieldnames or []):
        sys.exit(f"there is no column {column!r}, only {', '.join(rows.fieldnames or [])}")
    out = csv.DictWriter(sys.stdout, rows.fieldnames, lineterminator="\n")
    out.writeheader()
    began, count, asked = time.monotonic(), 0, 0
    async with grpc.aio.insecure_channel(ENDPOINT) as channel:
        macs = mac_pb2_grpc.MacServiceStub(channel)
        room = asyncio.Semaphore(AT_ONCE)
        while chunk := [row for row, _ in zip(rows, range(CHUNK))]:
            # Empty cells stay empty: that nothing is there is no secret.
            values = {row[column] for row in chunk if row[column]}
            made = await asyncio.gather(*(pseudonym(macs, room, column, value) for value in values))
            names = dict(zip(values, made)) | {"": ""}
            out.writerows(row | {column: names[row[column] or ""]} for row in chunk)
            count, asked = count + len(chunk), asked + len(values)
    took = time.monotonic() - began
    print(f"{count} rows, {asked} MACs in {took:.2f} s", file=sys.stderr)


async def pseudonym(macs, room, column, value):
    # The column's name goes in: an e-mail address and a login that are alike get different
    # pseudonyms. Zero bytes keep the parts apart.
    message = f"pseudonym v1\0{column}\0{value}".encode()
    request = mac_pb2.GenerateMacRequest(
        key_id=KEY_ID, message=message, mac_algorithm=mac_pb2.HMAC_SHA_256
    )
    async with room:
        for attempt in range(5):
            try:
                made = await macs.GenerateMac(request, timeout=5)
                return made.mac[:OCTETS].hex()
            except grpc.aio.AioRpcError as fault:
                # Throttled, the token away, a deadline: worth another try, which makes the same MAC.
                if fault.code() not in AGAIN or attempt == 4:
                    raise
                await asyncio.sleep(0.1 * 2**attempt)


AGAIN = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)


def reason(fault):
    """KMS's name of what went wrong, such as NOT_FOUND; "" if hsmac did not say it."""
    status = rpc_status.from_call(fault)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return info.reason
    return ""


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1]))
    except grpc.aio.AioRpcError as fault:
        sys.exit(f"hsmac: {reason(fault) or fault.code().name}: {fault.details()}")
