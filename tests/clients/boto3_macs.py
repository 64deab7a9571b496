"""MACs and random bytes, and what goes with every answer."""

import contextlib
import datetime
import email.utils
import re

import botocore.exceptions

from boto3_kms import MESSAGE, UUID, client, constraint, refused
from service import ACCOUNT, CALLER, KEYS, NOBODY, NOBODY_ARN, REGION

OTHER_ACCOUNT = "arn:aws:kms:us-east-1:123456789012:key/" + NOBODY
# A blob's constraint does not show its value.
SHORT = "Member must have length greater than or equal to 1"


def aws_s_own_example(checks, kms):
    key = KEYS[384]
    response = kms.generate_mac(KeyId=key.key_id, MacAlgorithm="HMAC_SHA_384", Message="Hello World")
    response.pop("ResponseMetadata")
    expected = {"KeyId": key.arn, "Mac": key.mac(MESSAGE), "MacAlgorithm": "HMAC_SHA_384"}
    checks.equal("the answer of AWS's example", response, expected)


def macs(checks, kms):
    for key in KEYS.values():
        of = {"Message": MESSAGE, "MacAlgorithm": key.algorithm}
        for name in key.names:
            made = kms.generate_mac(KeyId=name, **of)
            checks.equal(f"GenerateMac by {name}", (made["KeyId"], made["Mac"]), (key.arn, key.mac(MESSAGE)))
            good = kms.verify_mac(KeyId=name, Mac=key.mac(MESSAGE), **of)
            good.pop("ResponseMetadata")
            expected = {"KeyId": key.arn, "MacValid": True, "MacAlgorithm": key.algorithm}
            checks.equal(f"VerifyMac by {name}", good, expected)
        for message in (b"\0", bytes(range(256)), bytes(4096)):
            made = kms.generate_mac(KeyId=key.alias, Message=message, MacAlgorithm=key.algorithm)
            checks.equal(f"{key.algorithm} of {len(message)} bytes", made["Mac"], key.mac(message))

    key = KEYS[256]
    of = {"KeyId": key.alias, "MacAlgorithm": key.algorithm}
    for kind, message, plain in [
        ("str", "Grüße", "Grüße".encode()),
        ("bytearray", bytearray(b"\xff\0"), b"\xff\0"),
    ]:
        checks.equal(f"a message as {kind}", kms.generate_mac(Message=message, **of)["Mac"], key.mac(plain))
    again = kms.generate_mac(Message=MESSAGE, DryRun=False, GrantTokens=[], **of)
    checks.equal("DryRun=False and no grant tokens", again["Mac"], key.mac(MESSAGE))


def refused_macs(checks, kms, unchecked):
    key, other = KEYS[256], KEYS[512]
    of = {"KeyId": key.key_id, "Message": MESSAGE, "MacAlgorithm": key.algorithm}
    mac = key.mac(MESSAGE)
    wrong = bytes([mac[0] ^ 1]) + mac[1:]
    for what, change, name, say in [
        ("an unknown key", {"KeyId": NOBODY}, "NotFoundException", f"Key '{NOBODY_ARN}' does not exist"),
        ("its ARN", {"KeyId": NOBODY_ARN}, "NotFoundException", f"Key '{NOBODY_ARN}' does not exist"),
        (
            "an unknown alias",
            {"KeyId": "alias/nobody"},
            "NotFoundException",
            f"Alias arn:aws:kms:{REGION}:{ACCOUNT}:alias/nobody is not found.",
        ),
        ("what is no key ID", {"KeyId": "key_id"}, "NotFoundException", "Invalid keyId 'key_id'"),
        (
            "another region's key",
            {"KeyId": key.arn.replace(REGION, "us-west-2")},
            "NotFoundException",
            "Invalid arn us-west-2",
        ),
        (
            "another account's key",
            {"KeyId": OTHER_ACCOUNT},
            "AccessDeniedException",
            re.compile(
                f"User: {re.escape(CALLER)} is not authorized to perform: kms:(Generate|Verify)Mac on this resource because"
            ),
        ),
        (
            "another spec's algorithm",
            {"MacAlgorithm": other.algorithm},
            "InvalidKeyUsageException",
            "Algorithm HMAC_SHA_512 is incompatible with key spec HMAC_256.",
        ),
        ("a grant token", {"GrantTokens": ["token"]}, "InvalidGrantTokenException", ""),
        (
            "a dry run",
            {"DryRun": True},
            "DryRunOperationException",
            "The request would have succeeded, but the DryRun option is set.",
        ),
        (
            "an unknown algorithm",
            {"MacAlgorithm": "INVALID"},
            "ValidationException",
            re.compile(
                r"1 validation error detected: Value 'INVALID' at 'macAlgorithm' failed to satisfy "
                r"constraint: Member must satisfy enum value set: \["
            ),
        ),
        (
            "4,097 bytes",
            {"Message": bytes(4097)},
            "ValidationException",
            constraint("message", "Member must have length less than or equal to 4096"),
        ),
        (
            "a key ID of 2,049 characters",
            {"KeyId": "k" * 2049},
            "ValidationException",
            re.compile(
                r".* at 'keyId' failed to satisfy constraint: Member must have length less than or equal to 2048"
            ),
        ),
        (
            "eleven grant tokens",
            {"GrantTokens": ["token"] * 11},
            "ValidationException",
            re.compile(
                r".* at 'grantTokens' failed to satisfy constraint: Member must have length less than or equal to 10"
            ),
        ),
    ]:
        asked = of | change
        refused(checks, f"GenerateMac with {what}", lambda: kms.generate_mac(**asked), name, say)
        refused(checks, f"VerifyMac with {what}", lambda: kms.verify_mac(Mac=mac, **asked), name, say)

    # boto3 sends these only if it is told not to look.
    for what, change, say in [
        ("an empty message", {"Message": b""}, constraint("message", SHORT)),
        ("no message", {"Message": None}, constraint("message", "Member must not be null", "Value null")),
        ("no key", {"KeyId": None}, constraint("keyId", "Member must not be null", "Value null")),
        ("an empty key ID", {"KeyId": ""}, constraint("keyId", SHORT, "Value ''")),
        ("no algorithm", {"MacAlgorithm": None}, constraint("macAlgorithm", "Member must not be null", "Value null")),
    ]:
        asked = {name: value for name, value in (of | change).items() if value is not None}
        refused(checks, f"GenerateMac with {what}", lambda: unchecked.generate_mac(**asked), "ValidationException", say)
    refused(
        checks,
        "VerifyMac with an empty MAC",
        lambda: unchecked.verify_mac(Mac=b"", **of),
        "ValidationException",
        constraint("mac", SHORT),
    )
    everything = refused(
        checks,
        "GenerateMac with nothing",
        unchecked.generate_mac,
        "ValidationException",
        re.compile("3 validation errors detected: Value null at "),
    )
    members = sorted(re.findall(r"at '(\w+)'", everything or ""))
    checks.equal("all three are named", members, ["keyId", "macAlgorithm", "message"])

    for what, given in [
        ("a wrong MAC", wrong),
        ("half a MAC", mac[:16]),
        ("a MAC that goes on", mac + b"\0"),
        ("another key's MAC", other.mac(MESSAGE)),
        ("6,144 bytes", bytes(6144)),
    ]:
        refused(checks, f"VerifyMac with {what}", lambda: kms.verify_mac(Mac=given, **of), "KMSInvalidMacException", "")
    refused(
        checks,
        "VerifyMac with another message",
        lambda: kms.verify_mac(Mac=mac, **{**of, "Message": b"?"}),
        "KMSInvalidMacException",
        "",
    )
    refused(
        checks,
        "VerifyMac with 6,145 bytes",
        lambda: kms.verify_mac(Mac=bytes(6145), **of),
        "ValidationException",
        constraint("mac", "Member must have length less than or equal to 6144"),
    )
    refused(
        checks,
        "a dry run tells a wrong MAC",
        lambda: kms.verify_mac(Mac=wrong, DryRun=True, **of),
        "KMSInvalidMacException",
        "",
    )


def metadata_of_answers(checks, service):
    # As boto3 is out of the box, retries and all.
    kms = client(service, retries=None)
    key = KEYS[256]
    before = datetime.datetime.now(datetime.timezone.utc)
    made = kms.generate_mac(KeyId=key.alias, Message=MESSAGE, MacAlgorithm=key.algorithm)
    with contextlib.suppress(botocore.exceptions.ClientError):
        kms.describe_key(KeyId="alias/nobody")
    try:
        kms.describe_key(KeyId="alias/nobody")
    except kms.exceptions.NotFoundException as fault:
        error = fault.response
    for what, answer, status in [("an answer", made, 200), ("an error", error, 400)]:
        metadata = answer["ResponseMetadata"]
        headers = metadata["HTTPHeaders"]
        checks.equal(f"{what}: status", metadata["HTTPStatusCode"], status)
        checks.holds(f"{what}: its request ID is a UUID", UUID.fullmatch(metadata["RequestId"]), metadata["RequestId"])
        checks.equal(f"{what}: the header has it", headers["x-amzn-requestid"], metadata["RequestId"])
        checks.equal(f"{what}: content type", headers["content-type"], "application/x-amz-json-1.1")
        checks.holds(f"{what}: content length", int(headers["content-length"]) > 0, headers)
        sent = email.utils.parsedate_to_datetime(headers["date"])
        checks.holds(f"{what}: its date is now", abs(sent - before) < datetime.timedelta(minutes=2), headers["date"])
        checks.equal(f"{what}: nothing was tried again", metadata["RetryAttempts"], 0)
    ids = {kms.list_keys()["ResponseMetadata"]["RequestId"] for _ in range(10)}
    checks.equal("ten calls have ten request IDs", len(ids), 10)


def random_bytes(checks, kms, unchecked):
    for number in (1, 32, 1024):
        checks.equal(f"{number} random bytes", len(kms.generate_random(NumberOfBytes=number)["Plaintext"]), number)
    some = {kms.generate_random(NumberOfBytes=32)["Plaintext"] for _ in range(10)}
    checks.equal("they differ", len(some), 10)
    refused(checks, "no number", kms.generate_random, "ValidationException", "NumberOfBytes is required.")
    for number, must in [(0, "greater than or equal to 1"), (1025, "less than or equal to 1024")]:
        say = constraint("numberOfBytes", f"Member must have value {must}", f"Value '{number}'")
        refused(
            checks,
            f"{number} bytes",
            lambda: unchecked.generate_random(NumberOfBytes=number),
            "ValidationException",
            say,
        )
