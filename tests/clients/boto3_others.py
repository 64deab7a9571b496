"""What HMAC keys cannot do, who may not call, and what a token or a disk in trouble brings."""

import contextlib
import datetime
import pathlib
import re
import signal
import subprocess
import tempfile
import time
from unittest import mock

import boto3
import botocore
import botocore.exceptions
from botocore.config import Config

from boto3_kms import MESSAGE, accepted, client, refused, void
from service import CALLER, KEYS, LIMIT, NOBODY, NOBODY_ARN, REGION, SECRET, Service, until

SERVED = set("""CancelKeyDeletion CreateAlias CreateGrant CreateKey DeleteAlias DescribeCustomKeyStores DescribeKey DisableKey
    DisableKeyRotation EnableKey EnableKeyRotation GenerateMac GenerateRandom GetKeyLastUsage GetKeyPolicy
    GetKeyRotationStatus ListAliases ListGrants ListKeyPolicies ListKeyRotations ListKeys ListResourceTags
    ListRetirableGrants PutKeyPolicy RetireGrant RevokeGrant RotateKeyOnDemand ScheduleKeyDeletion TagResource UntagResource UpdateAlias
    UpdateKeyDescription VerifyMac""".split())
# The keys here cannot do these, and KMS says so for each.
OTHER_KEYS = set(
    """Decapsulate Decrypt DeleteImportedKeyMaterial DeriveSharedSecret Encapsulate Encrypt GenerateDataKey
    GenerateDataKeyPair GenerateDataKeyPairWithoutPlaintext GenerateDataKeyWithoutPlaintext GetParametersForImport
    GetPublicKey ImportKeyMaterial ReEncrypt ReplicateKey Sign UpdatePrimaryRegion Verify""".split()
)


def rotation(checks, kms, unchecked):
    key = KEYS[256]
    for name in (key.key_id, key.arn):
        told = kms.get_key_rotation_status(KeyId=name)
        checks.equal("GetKeyRotationStatus", (told["KeyId"], told["KeyRotationEnabled"]), (key.arn, False))
        told = kms.list_key_rotations(KeyId=name, IncludeKeyMaterial="ROTATIONS_ONLY")
        checks.equal("ListKeyRotations", (told["Rotations"], told["Truncated"]), ([], False))
    new = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]
    made, arn = new["KeyId"], new["Arn"]
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
    say = "Value '{}' at 'rotationPeriodInDays' failed to satisfy constraint: Member must have value {} than or equal to {}"
    for days, wrong in [(89, say.format(89, "greater", 90)), (2561, say.format(2561, "less", 2560))]:
        refused(
            checks,
            f"EnableKeyRotation every {days} days",
            lambda: unchecked.enable_key_rotation(KeyId=made, RotationPeriodInDays=days),
            "ValidationException",
            f"1 validation error detected: {wrong}",
        )
    # The state is looked at before what kind of key it is.
    changes = [
        ("EnableKeyRotation", kms.enable_key_rotation),
        ("DisableKeyRotation", kms.disable_key_rotation),
        ("RotateKeyOnDemand", kms.rotate_key_on_demand),
    ]
    kms.disable_key(KeyId=made)
    for operation, call in changes:
        what = f"{operation} of a disabled key"
        refused(checks, what, lambda: call(KeyId=made), "DisabledException", f"{arn} is disabled.")
    rotation_is_told(checks, kms, "disabled", arn)
    kms.schedule_key_deletion(KeyId=made, PendingWindowInDays=7)
    for operation, call in changes:
        what = f"{operation} of a key pending deletion"
        refused(checks, what, lambda: call(KeyId=made), "KMSInvalidStateException", f"{arn} is pending deletion.")
    rotation_is_told(checks, kms, "pending deletion", arn)


def rotation_is_told(checks, kms, state, arn):
    status, listed = kms.get_key_rotation_status(KeyId=arn), kms.list_key_rotations(KeyId=arn)
    told = (status["KeyId"], status["KeyRotationEnabled"], listed["Rotations"], listed["Truncated"])
    checks.equal(f"the rotation of a key that is {state} is told", told, (arn, False, [], False))


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


def keys_of_other_kinds(checks, kms):
    """Imports and replicas: a key says why it has none."""
    key = KEYS[256]
    token = {"ImportToken": b"t", "EncryptedKeyMaterial": b"m"}
    asked = {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_4096"}
    # The given keys are imported ones, by what they say of themselves.
    made = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["Arn"]
    origin = f"{made} origin is AWS_KMS which is not valid for this operation."
    replica = f"{key.arn} is not a multi-region primary key."
    for operation, call, name, say in [
        ("GetParametersForImport", kms.get_parameters_for_import, "UnsupportedOperationException", origin),
        ("ImportKeyMaterial", kms.import_key_material, "UnsupportedOperationException", origin),
        ("DeleteImportedKeyMaterial", kms.delete_imported_key_material, "UnsupportedOperationException", origin),
        ("ReplicateKey", kms.replicate_key, "UnsupportedOperationException", replica),
        ("UpdatePrimaryRegion", kms.update_primary_region, "UnsupportedOperationException", replica),
    ]:
        more = {
            "GetParametersForImport": asked,
            "ImportKeyMaterial": token,
            "ReplicateKey": {"ReplicaRegion": "eu-central-1"},
            "UpdatePrimaryRegion": {"PrimaryRegion": "eu-central-1"},
        }.get(operation, {})
        ask = lambda key_id: call(KeyId=key_id, **more)
        refused(checks, operation, lambda: ask(made if say == origin else key.key_id), name, say)
        refused(checks, f"{operation} of no key", lambda: ask("invalid"), "NotFoundException", "Invalid keyId 'invalid'")
        missing = f"Key '{NOBODY_ARN}' does not exist"
        refused(checks, f"{operation} of nobody's key", lambda: ask(NOBODY), "NotFoundException", missing)
        alias = "Key Aliases are not supported for this operation."
        refused(checks, f"{operation} by an alias", lambda: ask(key.alias), "InvalidArnException", alias)
    for what, call, listed in [
        ("ListGrants", lambda **more: kms.list_grants(KeyId=made, **more), "Grants"),
        ("ListRetirableGrants", lambda **more: kms.list_retirable_grants(RetiringPrincipal=CALLER, **more), "Grants"),
        ("DescribeCustomKeyStores", kms.describe_custom_key_stores, "CustomKeyStores"),
    ]:
        told = call(Limit=5)
        checks.equal(f"{what}: an empty page", (told[listed], told["Truncated"], told.get("NextMarker")), ([], False, None))
        refused(checks, f"{what} with a marker", lambda: call(Marker="m"), "InvalidMarkerException", "")
    refused(checks, "ListGrants of no key", lambda: kms.list_grants(KeyId="x"), "NotFoundException", "Invalid keyId 'x'")
    refused(
        checks,
        "a custom key store",
        lambda: kms.describe_custom_key_stores(CustomKeyStoreId="cks-1"),
        "CustomKeyStoreNotFoundException",
        re.compile("There is no custom key store cks-1"),
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
    service.serve("aws.deadline=3s")
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


def throttled(checks, service):
    """A caller over its rate: what it is told, and that botocore's standard retries wait so long."""
    rate = [f"limits.default.rates.list_aliases.{setting}" for setting in ("rate=1", "per=4s", "burst=1")]
    service.serve(*rate)
    once = client(service)
    once.list_aliases()
    say = "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls."
    refused(checks, "a second call in four seconds", once.list_aliases, "ThrottlingException", say)
    once.list_keys()
    try:
        once.list_aliases()
        checks.holds("a third one is refused", False)
    except botocore.exceptions.ClientError as fault:
        told = int(fault.response["ResponseMetadata"]["HTTPHeaders"]["x-amz-retry-after"])
        checks.holds("the answer says when there is room", 0 < told <= 4000, told)
        time.sleep(told / 1000)
        checks.holds("and there is", accepted(once.list_aliases))
    # The caller without a proof over gRPC is the same principal, and has no other rate.
    ask = [service.hsmac, "kms", "list-aliases"]
    environment = service.environment | {"HSMAC_ENDPOINT": f"http://{service.grpc}"}
    told = subprocess.run(ask, capture_output=True, text=True, env=environment, timeout=LIMIT)
    checks.holds("gRPC shares the rate", told.returncode == 254 and "ThrottlingException" in told.stderr, told)
    # One more attempt: by its own backoff it would come within a second.
    again = client(service, retries={"mode": "standard", "total_max_attempts": 2})
    began = time.monotonic()
    answer = again.list_aliases()
    checks.equal("botocore tries again", answer["ResponseMetadata"]["RetryAttempts"], 1)
    checks.holds("and waits as told", time.monotonic() - began > 2, time.monotonic() - began)


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
