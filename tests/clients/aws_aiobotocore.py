"""aiobotocore against a real hsmac: botocore over aiohttp, with many calls at a time.

python aws_aiobotocore.py PATH-OF-HSMAC      (aiobotocore.txt beside this file, in a folder of its own)
"""

import asyncio
import contextlib
import os
import sys

import aiobotocore
import botocore
import botocore.exceptions
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from service import ACCESS_KEY, DECLARED, KEYS, LIMIT, NOBODY, REGION, SECRET, run

MAC = {"KeyUsage": "GENERATE_VERIFY_MAC"}
CALLS = 200
CONNECTIONS = 20


def suite(checks, service):
    print(f"aiobotocore {aiobotocore.__version__}, botocore {botocore.__version__}")
    for part in (macs, refusals, life, pages, many_at_a_time, given_up, a_wrong_secret):
        checks.part(told(part), checks, service)


def told(part):
    """The part as a function, with a client of its own."""

    def function(checks, service):
        async def within_the_limit():
            async with asyncio.timeout(LIMIT), client(service) as kms:
                await part(checks, kms, service)

        asyncio.run(within_the_limit())

    function.__name__ = part.__name__
    return function


def client(service, secret=SECRET):
    # Without retries every answer is seen.
    config = AioConfig(retries={"total_max_attempts": 1}, max_pool_connections=CONNECTIONS, read_timeout=LIMIT)
    return get_session().create_client(
        "kms",
        region_name=REGION,
        endpoint_url=service.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=secret,
        config=config,
    )


def of(key, message):
    return {"KeyId": key.alias, "Message": message, "MacAlgorithm": key.algorithm}


async def refused(checks, what, call, name):
    """Checks an error's name, and its class if KMS's model has it."""
    try:
        checks.holds(f"{what}: {name}", False, await call)
    except botocore.exceptions.ClientError as fault:
        checks.equal(f"{what}: {name}", fault.response["Error"]["Code"], name)
        kind = "ClientError" if name in ("ValidationException", "InvalidSignatureException") else name
        checks.equal(f"{what}: its class", type(fault).__name__, kind)


async def macs(checks, kms, _):
    for key in KEYS.values():
        for name in key.names:
            made = await kms.generate_mac(**of(key, b"m") | {"KeyId": name})
            checks.equal(f"GenerateMac by {name}", (made["Mac"], made["KeyId"]), (key.mac(b"m"), key.arn))
        good = await kms.verify_mac(**of(key, b"m"), Mac=key.mac(b"m"))
        checks.equal(f"VerifyMac {key.algorithm}", good["MacValid"], True)
        wrong = kms.verify_mac(**of(key, b"m"), Mac=key.mac(b"n"))
        await refused(checks, f"VerifyMac {key.algorithm} of another message", wrong, "KMSInvalidMacException")


async def refusals(checks, kms, _):
    key = KEYS[256]
    for what, change, name in [
        ("an unknown key", {"KeyId": NOBODY}, "NotFoundException"),
        ("another spec's algorithm", {"MacAlgorithm": "HMAC_SHA_512"}, "InvalidKeyUsageException"),
        ("a grant token", {"GrantTokens": ["token"]}, "InvalidGrantTokenException"),
        ("a dry run", {"DryRun": True}, "DryRunOperationException"),
        ("an unknown algorithm", {"MacAlgorithm": "HMAC_MD5"}, "ValidationException"),
        ("4,097 bytes", {"Message": bytes(4097)}, "ValidationException"),
    ]:
        await refused(checks, what, kms.generate_mac(**of(key, b"m") | change), name)
    await refused(checks, "a key by its alias", kms.disable_key(KeyId=key.alias), "InvalidArnException")
    await refused(checks, "a declared key", kms.disable_key(KeyId=DECLARED), "UnsupportedOperationException")
    await refused(checks, "a made-up marker", kms.list_keys(Marker="nonsense"), "InvalidMarkerException")


async def life(checks, kms, _):
    made = (await kms.create_key(KeySpec="HMAC_256", Description="from aiobotocore", **MAC))["KeyMetadata"]
    key_id, arn = made["KeyId"], made["Arn"]
    checks.equal(
        "CreateKey",
        (made["KeySpec"], made["KeyState"], made["Description"]),
        ("HMAC_256", "Enabled", "from aiobotocore"),
    )
    generate = lambda: kms.generate_mac(KeyId=arn, Message=b"m", MacAlgorithm="HMAC_SHA_256")
    before = (await generate())["Mac"]
    await kms.disable_key(KeyId=key_id)
    await refused(checks, "GenerateMac with a disabled key", generate(), "DisabledException")
    await kms.enable_key(KeyId=key_id)
    checks.equal("the same MAC once it is enabled", (await generate())["Mac"], before)
    scheduled = await kms.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
    told = [scheduled[name] for name in ("KeyId", "KeyState", "PendingWindowInDays")]
    checks.equal("ScheduleKeyDeletion", told, [arn, "PendingDeletion", 7])
    await refused(checks, "GenerateMac with it", generate(), "KMSInvalidStateException")
    await kms.cancel_key_deletion(KeyId=key_id)
    state = (await kms.describe_key(KeyId=key_id))["KeyMetadata"]["KeyState"]
    checks.equal("its state once that is cancelled", state, "Disabled")


async def pages(checks, kms, _):
    whole = (await kms.list_keys())["Keys"]
    paged = []
    async for page in kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2}):
        checks.holds("list_keys: at most 2 on a page", len(page["Keys"]) <= 2, page)
        paged += page["Keys"]
    checks.equal("list_keys: its pages joined", paged, whole)
    aliases = kms.get_paginator("list_aliases").paginate(PaginationConfig={"PageSize": 2})
    joined = (await aliases.build_full_result())["Aliases"]
    checks.holds(
        "list_aliases: its pages joined", {key.alias for key in KEYS.values()} <= {one["AliasName"] for one in joined}
    )


async def many_at_a_time(checks, kms, _):
    keys = list(KEYS.values())
    asked = [(keys[number % len(keys)], b"message %d" % number) for number in range(CALLS)]
    made = await asyncio.gather(*(kms.generate_mac(**of(key, message)) for key, message in asked))
    right = [key.mac(message) for key, message in asked]
    checks.equal(f"{CALLS} calls on {CONNECTIONS} connections", [one["Mac"] for one in made], right)


async def given_up(checks, kms, _):
    """Calls that are cancelled in the middle leave nothing behind for those that come after."""
    key = KEYS[256]
    for _ in range(CONNECTIONS):
        call = asyncio.create_task(kms.generate_mac(**of(key, b"given up")))
        await asyncio.sleep(0)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
    made = await asyncio.gather(*(kms.generate_mac(**of(key, b"%d" % number)) for number in range(CONNECTIONS)))
    right = [key.mac(b"%d" % number) for number in range(CONNECTIONS)]
    checks.equal("each answer is its call's after others were cancelled", [one["Mac"] for one in made], right)


async def a_wrong_secret(checks, _, service):
    async with client(service, "x" * 40) as kms:
        await refused(checks, "a wrong secret", kms.list_keys(), "InvalidSignatureException")


if __name__ == "__main__":
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    run("aiobotocore", suite, sys.argv[1])
