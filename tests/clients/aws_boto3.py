"""boto3 against a real hsmac: every operation that applies to HMAC keys, every exception by class.

    python aws_boto3.py PATH-OF-HSMAC [FAULT-TOKEN]      (requirements.txt beside this file)

With the library of tests/fault-token the errors that only a token brings are reached too.
"""

import contextlib
import datetime
import email.utils
import os
import pathlib
import re
import signal
import sys
import tempfile
from unittest import mock

import boto3
import botocore
import botocore.exceptions
from botocore.config import Config

from service import ACCESS_KEY, ACCOUNT, CALLER, DECLARED, DECLARED_ARN, KEYS, LIMIT, NOBODY
from service import NOBODY_ARN, REGION, SECRET, Service, clean_environment, run, until

MESSAGE = b"Hello World"
OTHER_ACCOUNT = "arn:aws:kms:us-east-1:123456789012:key/" + NOBODY
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SERVED = set("""CancelKeyDeletion CreateAlias CreateKey DeleteAlias DescribeKey DisableKey DisableKeyRotation EnableKey
    EnableKeyRotation GenerateMac GenerateRandom GetKeyLastUsage GetKeyRotationStatus ListAliases ListKeyRotations
    ListKeys ListResourceTags RotateKeyOnDemand ScheduleKeyDeletion TagResource UntagResource UpdateAlias
    UpdateKeyDescription VerifyMac""".split())
# An HMAC key cannot do these, and KMS says so for each.
OTHER_KEYS = set(
    """Decrypt DeriveSharedSecret Encrypt GenerateDataKey GenerateDataKeyPair GenerateDataKeyPairWithoutPlaintext
    GenerateDataKeyWithoutPlaintext GetPublicKey ReEncrypt Sign Verify""".split()
)
# A blob's constraint does not show its value.
SHORT = "Member must have length greater than or equal to 1"


def suite(checks, service):
    print(f"boto3 {boto3.__version__}")
    kms = client(service)
    checks.part(aws_s_own_example, checks, kms)
    checks.part(macs, checks, kms)
    checks.part(refused_macs, checks, kms, client(service, parameter_validation=False))
    checks.part(metadata_of_answers, checks, service)
    checks.part(random_bytes, checks, kms, client(service, parameter_validation=False))
    made = checks.part(new_keys, checks, kms) or {}
    checks.part(refused_keys, checks, kms, client(service, parameter_validation=False))
    for name, part in [("HMAC_256", life), ("HMAC_384", aliases), ("HMAC_512", tags)]:
        if name in made:
            checks.part(part, checks, kms, made[name])
    checks.part(names_of_keys, checks, kms)
    checks.part(declared_key, checks, kms)
    checks.part(pages, checks, kms)
    checks.part(last_usage, checks, kms)
    checks.part(rotation, checks, kms)
    checks.part(operations_of_other_keys, checks, kms)
    checks.part(every_operation_of_the_model, checks, client(service, parameter_validation=False))
    checks.part(callers, checks, service)
    checks.part(full_disk, checks, kms, service)
    checks.part(stuck_token, checks, service)
    checks.part(token_away, checks, service)
    if len(sys.argv) > 2:
        checks.part(faulty_token, checks, service, pathlib.Path(sys.argv[2]).resolve())


def client(service, region=REGION, key=ACCESS_KEY, secret=SECRET, token=None, **config):
    # Without retries every answer is seen; `retries` in `config` brings them back.
    config = {"retries": {"total_max_attempts": 1}, "read_timeout": LIMIT, **config}
    session = boto3.session.Session(key, secret, token, region)
    return session.client("kms", endpoint_url=service.endpoint, config=Config(**config))


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


def new_keys(checks, kms):
    """Makes a key of each spec; gives what CreateKey told of them."""
    made = {}
    for key in KEYS.values():
        began = datetime.datetime.now(datetime.timezone.utc)
        told = kms.create_key(
            KeySpec=key.spec,
            KeyUsage="GENERATE_VERIFY_MAC",
            Description=f"made with {key.spec}",
            Tags=[{"TagKey": "team", "TagValue": "billing"}, {"TagKey": "empty", "TagValue": ""}],
        )["KeyMetadata"]
        made[key.spec] = dict(told)
        created, key_id = told.pop("CreationDate"), told.pop("KeyId")
        checks.holds(f"{key.spec}: the key ID is a UUID", UUID.fullmatch(key_id), key_id)
        checks.holds(
            f"{key.spec}: the creation date is now, a datetime",
            isinstance(created, datetime.datetime) and abs(created - began) < datetime.timedelta(minutes=2),
            created,
        )
        expected = {
            "AWSAccountId": ACCOUNT,
            "Arn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{key_id}",
            "Enabled": True,
            "Description": f"made with {key.spec}",
            "KeyUsage": "GENERATE_VERIFY_MAC",
            "KeyState": "Enabled",
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": key.spec,
            "KeySpec": key.spec,
            "MultiRegion": False,
            "MacAlgorithms": [key.algorithm],
        }
        checks.equal(f"{key.spec}: CreateKey's answer", told, expected)
        told = kms.describe_key(KeyId=key_id)["KeyMetadata"]
        checks.equal(f"{key.spec}: DescribeKey's is the same", told, made[key.spec])
        of = {"KeyId": key_id, "Message": MESSAGE, "MacAlgorithm": key.algorithm}
        mac = kms.generate_mac(**of)["Mac"]
        checks.equal(f"{key.spec}: its MAC is {key.spec[5:]} bits long", len(mac) * 8, int(key.spec[5:]))
        checks.equal(f"{key.spec}: and valid", kms.verify_mac(Mac=mac, **of)["MacValid"], True)
        tags = kms.list_resource_tags(KeyId=key_id)["Tags"]
        checks.equal(f"{key.spec}: its tags", [tag["TagKey"] for tag in tags], ["team", "empty"])
    bare = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC", Origin="AWS_KMS")["KeyMetadata"]
    checks.equal("a key without a description has an empty one", bare["Description"], "")
    # As older SDKs name the spec.
    old = kms.create_key(CustomerMasterKeySpec="HMAC_224", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]
    checks.equal("CustomerMasterKeySpec is KeySpec's old name", old["KeySpec"], "HMAC_224")
    listed = {key["KeyId"]: key["KeyArn"] for key in kms.list_keys()["Keys"]}
    expected = {told["KeyId"]: told["Arn"] for told in (*made.values(), bare, old)}
    expected |= {key.key_id: key.arn for key in KEYS.values()} | {DECLARED: DECLARED_ARN}
    checks.equal("ListKeys has them all", listed, expected)
    return made


def refused_keys(checks, kms, unchecked):
    mac = {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}
    tag = lambda key, value="": {"TagKey": key, "TagValue": value}
    for what, change, name, say in [
        (
            "no KeyUsage",
            {"KeyUsage": None},
            "ValidationException",
            "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
        ),
        (
            "a KeyUsage of other keys",
            {"KeyUsage": "ENCRYPT_DECRYPT"},
            "ValidationException",
            "KeyUsage ENCRYPT_DECRYPT is not compatible with KeySpec HMAC_256",
        ),
        (
            "an unknown KeySpec",
            {"KeySpec": "HMAC_random"},
            "ValidationException",
            re.compile(
                "1 validation error detected: Value 'HMAC_random' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: "
            ),
        ),
        (
            "an unknown KeyUsage",
            {"KeyUsage": "RANDOM"},
            "ValidationException",
            re.compile(
                "1 validation error detected: Value 'RANDOM' at 'keyUsage' failed to satisfy constraint: Member must satisfy enum value set: "
            ),
        ),
        (
            "KeySpec and its old name",
            {"CustomerMasterKeySpec": "HMAC_256"},
            "ValidationException",
            "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.",
        ),
        (
            "a spec of other keys",
            {"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"},
            "UnsupportedOperationException",
            re.compile("KeySpec RSA_2048 is not supported"),
        ),
        (
            "no KeySpec",
            {"KeySpec": None, "KeyUsage": None},
            "UnsupportedOperationException",
            re.compile("KeySpec SYMMETRIC_DEFAULT is not supported"),
        ),
        ("imported material", {"Origin": "EXTERNAL"}, "UnsupportedOperationException", re.compile("")),
        ("a custom key store", {"Origin": "AWS_CLOUDHSM"}, "UnsupportedOperationException", re.compile("")),
        ("several Regions", {"MultiRegion": True}, "UnsupportedOperationException", re.compile("")),
        ("a key policy", {"Policy": "{}"}, "UnsupportedOperationException", re.compile("")),
        ("51 tags", {"Tags": [tag(str(n)) for n in range(51)]}, "TagException", "Too many tags"),
        ("a tag twice", {"Tags": [tag("a"), tag("a", "b")]}, "TagException", "Duplicate tag keys"),
        ("a tag of AWS's", {"Tags": [tag("aws:a")]}, "TagException", "Tags beginning with aws: are reserved"),
        (
            "a tag key of 129 characters",
            {"Tags": [tag("ok"), tag("k" * 129)]},
            "ValidationException",
            constraint(
                "tags.2.member.tagKey", "Member must have length less than or equal to 128", f"Value '{'k' * 129}'"
            ),
        ),
        (
            "a tag value of 257 characters",
            {"Tags": [tag("ok", "v" * 257)]},
            "ValidationException",
            re.compile(
                ".* at 'tags.1.member.tagValue' failed to satisfy constraint: Member must have length less than or equal to 256"
            ),
        ),
        (
            "8,193 characters of description",
            {"Description": "d" * 8193},
            "ValidationException",
            re.compile(
                ".* at 'description' failed to satisfy constraint: Member must have length less than or equal to 8192"
            ),
        ),
    ]:
        asked = {name: value for name, value in (mac | change).items() if value is not None}
        refused(checks, f"CreateKey with {what}", lambda: unchecked.create_key(**asked), name, say)


def life(checks, kms, key):
    key_id, arn = key["KeyId"], key["Arn"]
    of = {"KeyId": key_id, "Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}
    mac = kms.generate_mac(**of)["Mac"]
    state = lambda: kms.describe_key(KeyId=key_id)["KeyMetadata"]

    void(checks, "UpdateKeyDescription", kms.update_key_description(KeyId=key_id, Description="né à Zürich"))
    checks.equal("the new description", state()["Description"], "né à Zürich")
    void(checks, "an empty description", kms.update_key_description(KeyId=arn, Description=""))
    checks.equal("is empty", state()["Description"], "")

    void(checks, "DisableKey", kms.disable_key(KeyId=key_id))
    void(checks, "DisableKey again", kms.disable_key(KeyId=arn))
    checks.equal("its state", (state()["KeyState"], state()["Enabled"]), ("Disabled", False))
    disabled = f"{arn} is disabled."
    refused(checks, "GenerateMac with a disabled key", lambda: kms.generate_mac(**of), "DisabledException", disabled)
    refused(checks, "VerifyMac with one", lambda: kms.verify_mac(Mac=mac, **of), "DisabledException", disabled)
    refused(
        checks,
        "the state goes before the algorithm",
        lambda: kms.generate_mac(**{**of, "MacAlgorithm": "HMAC_SHA_512"}),
        "DisabledException",
        disabled,
    )
    refused(checks, "and before a dry run", lambda: kms.generate_mac(DryRun=True, **of), "DisabledException", disabled)
    void(checks, "EnableKey", kms.enable_key(KeyId=key_id))
    void(checks, "EnableKey again", kms.enable_key(KeyId=key_id))
    checks.equal("the same MAC as before", kms.generate_mac(**of)["Mac"], mac)

    now = datetime.datetime.now(datetime.timezone.utc)
    told = kms.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
    expected = (arn, "PendingDeletion", 7)
    checks.equal(
        "ScheduleKeyDeletion's answer", (told["KeyId"], told["KeyState"], told["PendingWindowInDays"]), expected
    )
    away = told["DeletionDate"] - now - datetime.timedelta(days=7)
    checks.holds("the deletion date is in seven days", abs(away) < datetime.timedelta(minutes=2), told["DeletionDate"])
    metadata = state()
    expected = ("PendingDeletion", False, told["DeletionDate"])
    checks.equal(
        "DescribeKey tells it", (metadata["KeyState"], metadata["Enabled"], metadata.get("DeletionDate")), expected
    )
    for what, call in [
        ("GenerateMac", lambda: kms.generate_mac(**of)),
        ("VerifyMac", lambda: kms.verify_mac(Mac=mac, **of)),
        ("EnableKey", lambda: kms.enable_key(KeyId=key_id)),
        ("DisableKey", lambda: kms.disable_key(KeyId=key_id)),
        ("ScheduleKeyDeletion", lambda: kms.schedule_key_deletion(KeyId=key_id)),
        ("CreateAlias", lambda: kms.create_alias(AliasName="alias/pending", TargetKeyId=key_id)),
        ("TagResource", lambda: kms.tag_resource(KeyId=key_id, Tags=[{"TagKey": "a", "TagValue": "b"}])),
        ("UntagResource", lambda: kms.untag_resource(KeyId=key_id, TagKeys=["a"])),
        ("UpdateKeyDescription", lambda: kms.update_key_description(KeyId=key_id, Description="")),
    ]:
        refused(
            checks,
            f"{what} while it is pending deletion",
            call,
            "KMSInvalidStateException",
            f"{arn} is pending deletion.",
        )

    told = kms.cancel_key_deletion(KeyId=key_id)
    checks.equal("CancelKeyDeletion tells the ARN", told["KeyId"], arn)
    metadata = state()
    checks.equal("the key is disabled then", (metadata["KeyState"], "DeletionDate" in metadata), ("Disabled", False))
    refused(
        checks,
        "CancelKeyDeletion again",
        lambda: kms.cancel_key_deletion(KeyId=key_id),
        "KMSInvalidStateException",
        f"{arn} is not pending deletion.",
    )
    told = kms.schedule_key_deletion(KeyId=key_id)
    checks.equal("30 days if none are said", told["PendingWindowInDays"], 30)
    kms.cancel_key_deletion(KeyId=key_id)
    kms.enable_key(KeyId=key_id)
    checks.equal("the same MAC after all that", kms.generate_mac(**of)["Mac"], mac)
    for days in (6, 31):
        refused(
            checks,
            f"a window of {days} days",
            lambda: kms.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=days),
            "ValidationException",
            re.compile(""),
        )
    say = constraint("pendingWindowInDays", "Member must have value less than or equal to 365", "Value '366'")
    refused(
        checks,
        "a window of 366 days",
        lambda: kms.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=366),
        "ValidationException",
        say,
    )


def aliases(checks, kms, key):
    key_id, name = key["KeyId"], "alias/team/pay_1-x"
    arn = f"arn:aws:kms:{REGION}:{ACCOUNT}:{name}"
    other = KEYS[384].key_id
    of = {"KeyId": name, "Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_384"}
    void(checks, "CreateAlias", kms.create_alias(AliasName=name, TargetKeyId=key_id))
    checks.equal("a MAC by the new alias", kms.generate_mac(**of)["KeyId"], key["Arn"])
    listed = {alias["AliasName"]: alias for alias in kms.list_aliases()["Aliases"]}
    checks.holds(
        "ListAliases has it and the given ones", {name, *(k.alias for k in KEYS.values())} <= set(listed), set(listed)
    )
    mine = kms.list_aliases(KeyId=key_id)["Aliases"]
    checks.equal(
        "ListAliases of the key",
        [(alias["AliasName"], alias["AliasArn"], alias["TargetKeyId"]) for alias in mine],
        [(name, arn, key_id)],
    )
    dates = [mine[0].get("CreationDate"), mine[0].get("LastUpdatedDate")]
    checks.holds("its dates are datetimes", all(isinstance(date, datetime.datetime) for date in dates), dates)
    void(checks, "UpdateAlias", kms.update_alias(AliasName=name, TargetKeyId=other))
    checks.equal("the alias means the other key", kms.generate_mac(**of)["Mac"], KEYS[384].mac(MESSAGE))
    refused(
        checks,
        "CreateAlias again",
        lambda: kms.create_alias(AliasName=name, TargetKeyId=key_id),
        "AlreadyExistsException",
        f"An alias with the name {arn} already exists",
    )
    void(checks, "DeleteAlias", kms.delete_alias(AliasName=name))
    gone = f"Alias {arn} is not found."
    refused(checks, "a MAC by the deleted alias", lambda: kms.generate_mac(**of), "NotFoundException", gone)
    refused(checks, "DeleteAlias again", lambda: kms.delete_alias(AliasName=name), "NotFoundException", gone)
    refused(
        checks,
        "UpdateAlias of a deleted one",
        lambda: kms.update_alias(AliasName=name, TargetKeyId=key_id),
        "NotFoundException",
        gone,
    )
    for what, wrong, kind, say in [
        ("without alias/", "pay", "ValidationException", re.compile('Alias must start with the prefix "alias/".')),
        ("with a colon", "alias/a:b", "ValidationException", "alias/a:b contains invalid characters for an alias"),
        (
            "with a space",
            "alias/a b",
            "ValidationException",
            re.compile(
                ".* at 'aliasName' failed to satisfy constraint: Member must satisfy regular expression pattern: "
            ),
        ),
        ("of nothing but alias/", "alias/", "InvalidAliasNameException", re.compile("")),
        ("of AWS's", "alias/aws/s3", "NotAuthorizedException", ""),
    ]:
        refused(checks, f"an alias {what}", lambda: kms.create_alias(AliasName=wrong, TargetKeyId=key_id), kind, say)
    refused(
        checks,
        "an alias of an alias",
        lambda: kms.create_alias(AliasName="alias/b", TargetKeyId=KEYS[256].alias),
        None,
        re.compile(""),
    )
    refused(
        checks,
        "an alias of nobody",
        lambda: kms.create_alias(AliasName="alias/b", TargetKeyId=NOBODY),
        "NotFoundException",
        f"Key '{NOBODY_ARN}' does not exist",
    )


def tags(checks, kms, key):
    key_id = key["KeyId"]
    listed = lambda: [(tag["TagKey"], tag["TagValue"]) for tag in kms.list_resource_tags(KeyId=key_id)["Tags"]]
    add = [{"TagKey": "owner", "TagValue": "Zoë"}, {"TagKey": "team", "TagValue": "ledger"}]
    void(checks, "TagResource", kms.tag_resource(KeyId=key_id, Tags=add))
    checks.equal(
        "the tags in the order of their first coming", listed(), [("team", "ledger"), ("empty", ""), ("owner", "Zoë")]
    )
    void(checks, "UntagResource", kms.untag_resource(KeyId=key["Arn"], TagKeys=["team", "never there"]))
    checks.equal("the tags that are left", listed(), [("empty", ""), ("owner", "Zoë")])
    refused(
        checks,
        "a tag twice",
        lambda: kms.tag_resource(KeyId=key_id, Tags=[add[0], add[0]]),
        "TagException",
        "Duplicate tag keys",
    )
    refused(
        checks,
        "a tag of AWS's",
        lambda: kms.tag_resource(KeyId=key_id, Tags=[{"TagKey": "aws:x", "TagValue": ""}]),
        "TagException",
        "Tags beginning with aws: are reserved",
    )
    kms.tag_resource(KeyId=key_id, Tags=[{"TagKey": f"k{n}", "TagValue": ""} for n in range(48)])
    refused(
        checks,
        "a 51st tag",
        lambda: kms.tag_resource(KeyId=key_id, Tags=[{"TagKey": "last", "TagValue": ""}]),
        "LimitExceededException",
        re.compile(re.escape(key["Arn"])),
    )


def names_of_keys(checks, kms):
    """Who takes an alias, and who does not."""
    for key in KEYS.values():
        told = {kms.describe_key(KeyId=name)["KeyMetadata"]["Arn"] for name in key.names}
        checks.equal(f"DescribeKey by all names of {key.alias}", told, {key.arn})
    say = "Key Aliases are not supported for this operation."
    for alias in (KEYS[256].alias, KEYS[256].alias_arn):
        for what, call in [
            ("EnableKey", lambda: kms.enable_key(KeyId=alias)),
            ("DisableKey", lambda: kms.disable_key(KeyId=alias)),
            ("ScheduleKeyDeletion", lambda: kms.schedule_key_deletion(KeyId=alias)),
            ("CancelKeyDeletion", lambda: kms.cancel_key_deletion(KeyId=alias)),
            ("UpdateKeyDescription", lambda: kms.update_key_description(KeyId=alias, Description="")),
            ("TagResource", lambda: kms.tag_resource(KeyId=alias, Tags=[])),
            ("UntagResource", lambda: kms.untag_resource(KeyId=alias, TagKeys=[])),
            ("ListResourceTags", lambda: kms.list_resource_tags(KeyId=alias)),
            ("GetKeyLastUsage", lambda: kms.get_key_last_usage(KeyId=alias)),
            ("GetKeyRotationStatus", lambda: kms.get_key_rotation_status(KeyId=alias)),
            ("ListKeyRotations", lambda: kms.list_key_rotations(KeyId=alias)),
            ("EnableKeyRotation", lambda: kms.enable_key_rotation(KeyId=alias)),
            ("DisableKeyRotation", lambda: kms.disable_key_rotation(KeyId=alias)),
            ("RotateKeyOnDemand", lambda: kms.rotate_key_on_demand(KeyId=alias)),
            ("ListAliases", lambda: kms.list_aliases(KeyId=alias)),
        ]:
            refused(checks, f"{what} by {alias}", call, "InvalidArnException", say)
    for what, call in [
        ("DescribeKey", lambda: kms.describe_key(KeyId=NOBODY)),
        ("DisableKey", lambda: kms.disable_key(KeyId=NOBODY)),
        ("ListResourceTags", lambda: kms.list_resource_tags(KeyId=NOBODY_ARN)),
        ("GetKeyRotationStatus", lambda: kms.get_key_rotation_status(KeyId=NOBODY)),
    ]:
        refused(checks, f"{what} of nobody", call, "NotFoundException", f"Key '{NOBODY_ARN}' does not exist")
    refused(
        checks,
        "DescribeKey with a grant token",
        lambda: kms.describe_key(KeyId=KEYS[256].arn, GrantTokens=["t"]),
        "InvalidGrantTokenException",
        "",
    )


def declared_key(checks, kms):
    told = kms.describe_key(KeyId="alias/demo")["KeyMetadata"]
    checks.equal(
        "the declared key",
        (told["KeyId"], told["KeySpec"], told["Origin"], told["KeyState"]),
        (DECLARED, "HMAC_256", "AWS_CLOUDHSM", "Enabled"),
    )
    of = {"KeyId": "alias/demo", "Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}
    made = kms.generate_mac(**of)
    checks.equal("makes MACs", (made["KeyId"], len(made["Mac"])), (DECLARED_ARN, 32))
    checks.equal("and checks them", kms.verify_mac(Mac=made["Mac"], **of)["MacValid"], True)
    refused(
        checks,
        "and is not changed",
        lambda: kms.disable_key(KeyId=DECLARED),
        "UnsupportedOperationException",
        re.compile(f"{DECLARED_ARN} is declared"),
    )


def pages(checks, kms):
    for number in range(7):
        kms.create_alias(AliasName=f"alias/page-{number}", TargetKeyId=KEYS[256].key_id)
    for what, name, member, arguments in [
        ("list_keys", "list_keys", "Keys", {}),
        ("list_aliases", "list_aliases", "Aliases", {}),
        ("list_aliases of a key", "list_aliases", "Aliases", {"KeyId": KEYS[256].key_id}),
    ]:
        whole = getattr(kms, name)(**arguments)
        checks.equal(f"{what}: one page is not truncated", (whole["Truncated"], "NextMarker" in whole), (False, False))
        checks.holds(f"{what}: there is something to page", len(whole[member]) > 5, whole[member])
        for size in (1, 2, 1000):
            paged = list(kms.get_paginator(name).paginate(**arguments, PaginationConfig={"PageSize": size}))
            joined = [one for page in paged for one in page[member]]
            checks.equal(f"{what}: pages of {size}, joined", joined, whole[member])
            sizes = [len(page[member]) for page in paged[:-1]]
            checks.equal(f"{what}: all but the last of {size} are full", sizes, [size] * len(sizes))
    key_id = kms.create_key(
        KeySpec="HMAC_256",
        KeyUsage="GENERATE_VERIFY_MAC",
        Tags=[{"TagKey": f"k{n}", "TagValue": str(n)} for n in range(7)],
    )["KeyMetadata"]["KeyId"]
    paged = list(kms.get_paginator("list_resource_tags").paginate(KeyId=key_id, PaginationConfig={"PageSize": 3}))
    checks.equal("list_resource_tags: pages of 3", [len(page["Tags"]) for page in paged], [3, 3, 1])
    checks.equal(
        "list_resource_tags: all in order", [tag["TagValue"] for page in paged for tag in page["Tags"]], list("0123456")
    )
    paged = list(kms.get_paginator("list_key_rotations").paginate(KeyId=key_id))
    checks.equal(
        "list_key_rotations: one empty page", [(page["Rotations"], page["Truncated"]) for page in paged], [([], False)]
    )
    first = kms.list_keys(Limit=1)["NextMarker"]
    for what, call in [
        ("a made-up marker", lambda: kms.list_keys(Marker="nonsense")),
        ("another list's marker", lambda: kms.list_aliases(Marker=first)),
        ("a marker for tags", lambda: kms.list_resource_tags(KeyId=key_id, Marker=first)),
        ("a marker for rotations", lambda: kms.list_key_rotations(KeyId=key_id, Marker="nonsense")),
    ]:
        refused(checks, what, call, "InvalidMarkerException", "")
    say = constraint("limit", "Member must have value less than or equal to 1000", "Value '1001'")
    refused(checks, "a page of 1,001", lambda: kms.list_keys(Limit=1001), "ValidationException", say)


def last_usage(checks, kms):
    key_id = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["KeyId"]
    of = {"KeyId": key_id, "Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}
    never = kms.get_key_last_usage(KeyId=key_id)
    checks.equal(
        "a new key has no last use",
        (never["KeyId"], never.get("KeyLastUsage", {})),
        (f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{key_id}", {}),
    )
    checks.holds(
        "but dates",
        isinstance(never["TrackingStartDate"], datetime.datetime)
        and isinstance(never["KeyCreationDate"], datetime.datetime),
        never,
    )
    mac = kms.generate_mac(**of)["Mac"]
    used = kms.get_key_last_usage(KeyId=key_id)["KeyLastUsage"]
    checks.equal("then it has one", used["Operation"], "GenerateMac")
    kms.verify_mac(Mac=mac, **of)
    used = kms.get_key_last_usage(KeyId=key_id)["KeyLastUsage"]
    checks.equal("and another", used["Operation"], "VerifyMac")
    with contextlib.suppress(kms.exceptions.DryRunOperationException):
        kms.generate_mac(DryRun=True, **of)
    checks.equal("a dry run is none", kms.get_key_last_usage(KeyId=key_id)["KeyLastUsage"], used)


def rotation(checks, kms):
    key = KEYS[256]
    for name in (key.key_id, key.arn):
        told = kms.get_key_rotation_status(KeyId=name)
        checks.equal("GetKeyRotationStatus", (told["KeyId"], told["KeyRotationEnabled"]), (key.arn, False))
        told = kms.list_key_rotations(KeyId=name, IncludeKeyMaterial="ROTATIONS_ONLY")
        checks.equal("ListKeyRotations", (told["Rotations"], told["Truncated"]), ([], False))
    made = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["KeyId"]
    void(checks, "DisableKeyRotation", kms.disable_key_rotation(KeyId=made))
    refused(
        checks, "EnableKeyRotation", lambda: kms.enable_key_rotation(KeyId=made), "UnsupportedOperationException", ""
    )
    refused(
        checks,
        "EnableKeyRotation with a period",
        lambda: kms.enable_key_rotation(KeyId=made, RotationPeriodInDays=180),
        "UnsupportedOperationException",
        "",
    )
    refused(
        checks, "RotateKeyOnDemand", lambda: kms.rotate_key_on_demand(KeyId=made), "UnsupportedOperationException", ""
    )
    refused(
        checks,
        "ListKeyRotations with all material",
        lambda: kms.list_key_rotations(KeyId=made, IncludeKeyMaterial="ALL_KEY_MATERIAL"),
        "ValidationException",
        "Input parameter includeKeyMaterial can only be used with symmetric keys.",
    )


def operations_of_other_keys(checks, kms):
    key = KEYS[256]
    blob = {"KeyId": key.alias, "CiphertextBlob": b"ciphertext"}
    pair = {"KeyId": key.alias, "KeyPairSpec": "RSA_2048"}
    sign = {"KeyId": key.alias, "Message": MESSAGE, "SigningAlgorithm": "ECDSA_SHA_256"}
    usage = lambda operation: f"{key.arn} key usage is GENERATE_VERIFY_MAC which is not valid for {operation}."
    for operation, call in [
        ("Encrypt", lambda: kms.encrypt(KeyId=key.alias, Plaintext=b"x")),
        ("Sign", lambda: kms.sign(**sign)),
        ("Verify", lambda: kms.verify(Signature=b"s", **sign)),
        ("GenerateDataKey", lambda: kms.generate_data_key(KeyId=key.alias, KeySpec="AES_256")),
        (
            "GenerateDataKeyWithoutPlaintext",
            lambda: kms.generate_data_key_without_plaintext(KeyId=key.alias, KeySpec="AES_256"),
        ),
        ("GenerateDataKeyPair", lambda: kms.generate_data_key_pair(**pair)),
        ("GenerateDataKeyPairWithoutPlaintext", lambda: kms.generate_data_key_pair_without_plaintext(**pair)),
        (
            "DeriveSharedSecret",
            lambda: kms.derive_shared_secret(KeyId=key.alias, KeyAgreementAlgorithm="ECDH", PublicKey=b"k"),
        ),
    ]:
        refused(checks, operation, call, "InvalidKeyUsageException", usage(operation))
    say = "The key ID in the request does not identify a CMK that can perform this operation."
    refused(checks, "Decrypt", lambda: kms.decrypt(**blob), "IncorrectKeyException", say)
    refused(
        checks,
        "Decrypt without a key",
        lambda: kms.decrypt(CiphertextBlob=b"ciphertext"),
        "InvalidCiphertextException",
        "",
    )
    refused(
        checks,
        "ReEncrypt without a key",
        lambda: kms.re_encrypt(CiphertextBlob=b"c", DestinationKeyId=key.alias),
        "InvalidCiphertextException",
        "",
    )
    refused(
        checks,
        "ReEncrypt",
        lambda: kms.re_encrypt(CiphertextBlob=b"c", SourceKeyId=key.alias, DestinationKeyId=key.alias),
        "IncorrectKeyException",
        say,
    )
    refused(checks, "GetPublicKey", lambda: kms.get_public_key(KeyId=key.alias), "UnsupportedOperationException", "")
    refused(
        checks,
        "Encrypt with nobody's key",
        lambda: kms.encrypt(KeyId=NOBODY, Plaintext=b"x"),
        "NotFoundException",
        f"Key '{NOBODY_ARN}' does not exist",
    )


def every_operation_of_the_model(checks, unchecked):
    """What KMS has is served, or said not to be there; nothing is forgotten."""
    there = set()
    for operation in unchecked.meta.service_model.operation_names:
        try:
            getattr(unchecked, botocore.xform_name(operation))()
            there.add(operation)
        except botocore.exceptions.ClientError as fault:
            error, metadata = fault.response["Error"], fault.response["ResponseMetadata"]
            if error["Code"] != "UnknownOperationException":
                there.add(operation)
            elif (metadata["HTTPStatusCode"], error.get("Message", "")) != (400, ""):
                checks.equal(operation, fault.response, "400 without a text")
    checks.equal("the operations that are there", there, SERVED | OTHER_KEYS)


def callers(checks, service):
    of = {"KeyId": KEYS[256].alias, "Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}
    good = client(service)
    for what, other, name, say in [
        (
            "a wrong secret",
            {"secret": SECRET[:-1] + "X"},
            "InvalidSignatureException",
            re.compile("The request signature we calculated does not match the signature you provided."),
        ),
        (
            "an unknown access key",
            {"key": "AKIAIOSFODNN7NOBODY0"},
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        (
            "another region",
            {"region": "eu-central-1"},
            "InvalidSignatureException",
            re.compile("Credential should be scoped to a valid region, not 'eu-central-1'."),
        ),
        (
            "a session token",
            {"token": "token"},
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
    ]:
        kms = client(service, **other)
        refused(checks, what, lambda: kms.generate_mac(**of), name, say)
        checks.equal(f"after {what} the right caller is served", good.generate_mac(**of)["Mac"], KEYS[256].mac(MESSAGE))
    for what, minutes, say in [
        (
            "a clock 10 minutes behind",
            -10,
            re.compile(r"Signature expired: \d{8}T\d{6}Z is now earlier than \d{8}T\d{6}Z \(\d{8}T\d{6}Z - 5 min\.\)"),
        ),
        (
            "a clock 10 minutes ahead",
            10,
            re.compile(
                r"Signature not yet current: \d{8}T\d{6}Z is still later than \d{8}T\d{6}Z \(\d{8}T\d{6}Z \+ 5 min\.\)"
            ),
        ),
    ]:
        with clock(minutes):
            refused(checks, what, lambda: good.generate_mac(**of), "InvalidSignatureException", say)
    for minutes in (-4, 4):
        with clock(minutes):
            checks.equal(
                f"a clock {minutes} minutes off is right enough", good.generate_mac(**of)["Mac"], KEYS[256].mac(MESSAGE)
            )
    unsigned = boto3.session.Session(region_name=REGION).client(
        "kms",
        endpoint_url=service.endpoint,
        config=Config(signature_version=botocore.UNSIGNED, retries={"total_max_attempts": 1}),
    )
    refused(
        checks,
        "an unsigned request",
        lambda: unsigned.generate_mac(**of),
        "MissingAuthenticationTokenException",
        re.compile(".*Missing Authentication Token|.*missing Authentication Token", re.I),
    )


@contextlib.contextmanager
def clock(minutes):
    """boto3's clock is wrong."""
    wrong = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) + datetime.timedelta(minutes=minutes)
    with mock.patch("botocore.auth.get_current_datetime", return_value=wrong):
        yield


def full_disk(checks, kms, service):
    key_id = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["KeyId"]
    with service.full_disk():
        refused(
            checks,
            "a change that cannot be written",
            lambda: kms.update_key_description(KeyId=key_id, Description="x" * 8192),
            "KMSInternalException",
            "The request was rejected because an internal exception occurred. The request can be retried.",
            500,
        )
        made = kms.generate_mac(KeyId=KEYS[256].alias, Message=MESSAGE, MacAlgorithm="HMAC_SHA_256")
        checks.equal("MACs are made meanwhile", made["Mac"], KEYS[256].mac(MESSAGE))
    change = lambda: accepted(lambda: kms.update_key_description(KeyId=key_id, Description="room again"))
    checks.holds("changes are made again when there is room", until("a change", change))


def stuck_token(checks, service):
    service.serve("aws.deadline=1s")
    kms = client(service)
    of = {"KeyId": KEYS[256].alias, "Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}
    checks.equal("hsmac serve serves what hsmac dev has made", kms.generate_mac(**of)["Mac"], KEYS[256].mac(MESSAGE))
    service.signal_hosts(signal.SIGSTOP)
    try:
        say = "The system timed out while trying to fulfill the request. You can retry the request."
        refused(
            checks,
            "a token that does not answer",
            lambda: kms.generate_mac(**of),
            "DependencyTimeoutException",
            say,
            500,
        )
    finally:
        service.signal_hosts(signal.SIGCONT)
    again = lambda: accepted(lambda: kms.generate_mac(**of))
    checks.holds("it answers again", until("a MAC", again))


def token_away(checks, service):
    """The token is pulled out, and its hosts die of it."""
    kms = client(service)
    of = {"KeyId": KEYS[256].alias, "Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}
    tokens, pulled = service.folder / "dev" / "tokens", service.folder / "pulled"
    tokens.rename(pulled)
    tokens.mkdir()
    seen = service.lines
    service.signal_hosts(signal.SIGKILL)
    service.until_said("the token is unavailable", seen)
    away = "The request was rejected because the token was not available. You can retry the request."
    refused(
        checks,
        "GenerateMac while the token is away",
        lambda: kms.generate_mac(**of),
        "KeyUnavailableException",
        away,
        500,
    )
    refused(
        checks,
        "GenerateRandom while it is away",
        lambda: kms.generate_random(NumberOfBytes=8),
        "KeyUnavailableException",
        away,
        500,
    )
    checks.equal(
        "DescribeKey works without the token",
        kms.describe_key(KeyId=KEYS[256].alias)["KeyMetadata"]["KeyId"],
        KEYS[256].key_id,
    )
    checks.holds("a key is disabled without it", accepted(lambda: kms.disable_key(KeyId=KEYS[224].key_id)))
    kms.enable_key(KeyId=KEYS[224].key_id)
    tokens.rmdir()
    pulled.rename(tokens)
    again = lambda: accepted(lambda: kms.generate_mac(**of))
    checks.holds("it serves again when the token is back", until("a MAC", again))
    checks.equal("with the right MAC", kms.generate_mac(**of)["Mac"], KEYS[256].mac(MESSAGE))


def faulty_token(checks, service, module):
    """A module that breaks the standard, and one that cannot use a key."""
    with tempfile.TemporaryDirectory(prefix="hsmac-faulty-") as folder:
        folder = pathlib.Path(folder)
        control = folder / "control"
        environment = {"FAULT_TOKEN_CONTROL": str(control)}
        faulty = Service(service.hsmac, folder, module, environment)
        try:
            kms = client(faulty)
            of = {"KeyId": KEYS[256].alias, "Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}

            def rules(text):
                (folder / "new").write_text(text + "\n")
                (folder / "new").rename(control)

            def answered(name):
                try:
                    kms.generate_mac(**of)
                    return name is None
                except botocore.exceptions.ClientError as fault:
                    return fault.response["Error"]["Code"] == name

            make = lambda: kms.generate_mac(**of)
            checks.equal("a token that is well", make()["Mac"], KEYS[256].mac(MESSAGE))
            rules("mac wrong-length")
            until("a refusal", lambda: answered("KeyUnavailableException"))
            away = "The request was rejected because the token was not available. You can retry the request."
            refused(checks, "a module whose MACs are too short", make, "KeyUnavailableException", away, 500)
            rules("")
            checks.holds("it is well again", until("a MAC", lambda: answered(None)))
            rules("return C_Sign CKR_KEY_SIZE_RANGE")
            say = f"{KEYS[256].arn} is unavailable."
            until("a refusal", lambda: answered("KMSInvalidStateException"))
            refused(checks, "a key that its token cannot use", make, "KMSInvalidStateException", say)
            told = kms.describe_key(KeyId=KEYS[256].alias)["KeyMetadata"]
            checks.equal("DescribeKey tells its state", (told["KeyState"], told["Enabled"]), ("Unavailable", False))
        finally:
            checks.equal("the faulty token's server ends with 0", faulty.stop(), 0)
            checks.holds("no panic in its log", "panicked" not in faulty.log(), faulty.log())


def refused(checks, what, call, name, say, status=400):
    """Checks an error's class, text and status; gives its text. Name None: any but a 500."""
    try:
        answer = call()
    except botocore.exceptions.ClientError as fault:
        error, metadata = fault.response["Error"], fault.response["ResponseMetadata"]
        text = error.get("Message", "")
        good = re.match(say, text) if isinstance(say, re.Pattern) else text == say
        told = (error["Code"], metadata["HTTPStatusCode"])
        if not good or told != (name or error["Code"], status):
            checks.equal(what, (*told, text), (name, status, say))
            return text
        modelled = name and getattr(MODEL, name, None)
        kind = type(fault).__name__
        if modelled:
            checks.equal(f"{what}: {name}", kind, name)
        else:
            checks.equal(
                f"{what}: {error['Code']}",
                kind,
                error["Code"] if getattr(MODEL, error["Code"], None) else "ClientError",
            )
        if not UUID.fullmatch(metadata.get("RequestId", "")):
            checks.holds(f"{what}: has a request ID", False, metadata)
        return text
    checks.holds(f"{what}: {name}", False, answer)
    return ""


def accepted(call):
    try:
        call()
        return True
    except botocore.exceptions.ClientError:
        return False


def void(checks, what, answer):
    metadata = answer.pop("ResponseMetadata")
    length = metadata["HTTPHeaders"].get("content-length")
    checks.equal(f"{what}: an empty answer", (metadata["HTTPStatusCode"], answer, length), (200, {}, "0"))


def constraint(member, must, value="Value"):
    return f"1 validation error detected: {value} at '{member}' failed to satisfy constraint: {must}"


class Model:
    """The exceptions that KMS's model knows; all others are a bare ClientError."""

    def __init__(self):
        kms = boto3.session.Session("x", "x", region_name=REGION).client("kms")
        for shape in kms.meta.service_model.error_shapes:
            setattr(self, shape.name, getattr(kms.exceptions, shape.name))


if __name__ == "__main__":
    os.environ |= {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name in (
        set(os.environ)
        - set(clean_environment())
        - {"AWS_EC2_METADATA_DISABLED", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"}
    ):
        del os.environ[name]
    MODEL = Model()
    run("boto3", suite, sys.argv[1])
