"""Grants, from CreateGrant to RevokeGrant, with their tokens, pages and refusals."""

import base64
import datetime
import json
import re

from boto3_kms import MESSAGE, refused, void
from service import ACCOUNT, CALLER, DECLARED, KEYS, NOBODY

MAC = {"Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
# The caller has every right but the one to make MACs.
POLICY = {"Effect": "Allow", "Principal": {"AWS": CALLER}, "NotAction": "kms:GenerateMac", "Resource": "*"}
NOT_FOUND = re.compile("Grant ID [0-9a-f]{64} not found")
DENIED = re.compile("User: .* is not authorized to perform: kms:GenerateMac on resource: .* because no resource-based")
DRY_RUN = "The request would have succeeded, but the DryRun option is set."


def by_grants_alone(kms):
    """A key that makes MACs for nobody without a grant."""
    policy = json.dumps({"Version": "2012-10-17", "Statement": POLICY})
    return kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC", Policy=policy)["KeyMetadata"]


def life(checks, kms):
    key = by_grants_alone(kms)
    key_id, arn = key["KeyId"], key["Arn"]
    denied = lambda what: refused(
        checks, what, lambda: kms.generate_mac(KeyId=key_id, **MAC), "AccessDeniedException", DENIED
    )
    create = lambda **more: kms.create_grant(
        **{"KeyId": key_id, "GranteePrincipal": CALLER, "Operations": ["GenerateMac"], **more}
    )
    denied("GenerateMac without a grant")
    refused(checks, "CreateGrant, dry", lambda: create(DryRun=True), "DryRunOperationException", DRY_RUN)
    began = datetime.datetime.now(datetime.timezone.utc)
    made = create(RetiringPrincipal=CALLER, Operations=["VerifyMac", "GenerateMac"])
    grant, token = made["GrantId"], made["GrantToken"]
    checks.holds("GrantId: 64 hex digits", re.fullmatch("[0-9a-f]{64}", grant), grant)
    checks.holds("GrantToken: base64", base64.b64decode(token, validate=True) and len(token) <= 8192)
    first = kms.generate_mac(KeyId=key_id, **MAC)["Mac"]
    checks.equal("GenerateMac by the grant, and with its token", kms.generate_mac(KeyId=key_id, GrantTokens=[token], **MAC)["Mac"], first)
    checks.equal("VerifyMac with ten tokens", kms.verify_mac(KeyId=key_id, Mac=first, GrantTokens=[token] * 10, **MAC)["MacValid"], True)
    for what, tokens in [("a made-up token", ["token"]), ("a damaged one", [token, token[:-4] + "AAA="])]:
        call = lambda: kms.generate_mac(KeyId=key_id, GrantTokens=tokens, **MAC)
        refused(checks, f"GenerateMac with {what}", call, "InvalidGrantTokenException", "")

    [listed] = kms.list_grants(KeyId=key_id)["Grants"]
    created = listed.pop("CreationDate")
    checks.holds("CreationDate: now, in whole seconds", abs(created - began) < datetime.timedelta(minutes=2) and not created.microsecond, created)
    checks.equal("its operations", set(listed.pop("Operations")), {"GenerateMac", "VerifyMac"})
    wanted = {"KeyId": arn, "GrantId": grant, "GranteePrincipal": CALLER, "RetiringPrincipal": CALLER, "IssuingAccount": ROOT}
    checks.equal("ListGrants", listed, wanted)
    for what, filters, count in [
        ("this grant", {"GrantId": grant}, 1),
        ("another one", {"GrantId": "0" * 64}, 0),
        ("the grantee", {"GranteePrincipal": CALLER}, 1),
        ("the root", {"GranteePrincipal": ROOT}, 0),
    ]:
        checks.equal(f"ListGrants of {what}", len(kms.list_grants(KeyId=key_id, **filters)["Grants"]), count)
    retirable = kms.list_retirable_grants(RetiringPrincipal=CALLER)["Grants"]
    checks.equal("ListRetirableGrants", [one["GrantId"] for one in retirable], [grant])

    named = create(Name="once")
    again = create(Name="once")
    checks.equal("the same name, the same grant", again["GrantId"], named["GrantId"])
    checks.holds("and another token", again["GrantToken"] != named["GrantToken"])
    other = create(Name="once", Operations=["DescribeKey"])["GrantId"]
    checks.holds("the same name for something else is another grant", other != named["GrantId"])
    listed = {one["GrantId"]: one.get("Name") for one in kms.list_grants(KeyId=key_id)["Grants"]}
    checks.equal("names of grants", listed, {grant: None, named["GrantId"]: "once", other: "once"})

    void(checks, "RevokeGrant", kms.revoke_grant(KeyId=arn, GrantId=grant))
    checks.equal("another grant still allows it", kms.generate_mac(KeyId=key_id, **MAC)["Mac"], first)
    dry = lambda: kms.retire_grant(GrantToken=named["GrantToken"], DryRun=True)
    refused(checks, "RetireGrant, dry", dry, "DryRunOperationException", DRY_RUN)
    dry = lambda: kms.revoke_grant(KeyId=key_id, GrantId=other, DryRun=True)
    refused(checks, "RevokeGrant, dry", dry, "DryRunOperationException", DRY_RUN)
    void(checks, "RetireGrant by the other token", kms.retire_grant(GrantToken=again["GrantToken"]))
    denied("GenerateMac after the last grant is gone")
    void(checks, "RetireGrant by ID", kms.retire_grant(KeyId=arn, GrantId=other))
    for what, call in [
        ("RevokeGrant again", lambda: kms.revoke_grant(KeyId=key_id, GrantId=grant)),
        ("RetireGrant again", lambda: kms.retire_grant(KeyId=key_id, GrantId=grant)),
        ("RetireGrant by a token that is left", lambda: kms.retire_grant(GrantToken=token)),
    ]:
        refused(checks, what, call, "NotFoundException", NOT_FOUND)
    # A token is not the grant.
    call = lambda: kms.generate_mac(KeyId=key_id, GrantTokens=[token], **MAC)
    refused(checks, "GenerateMac with the token of a grant that is gone", call, "AccessDeniedException", DENIED)


def pages(checks, kms):
    key_id = by_grants_alone(kms)["KeyId"]
    of = {"KeyId": key_id, "GranteePrincipal": CALLER, "RetiringPrincipal": ROOT, "Operations": ["DescribeKey"]}
    made = {kms.create_grant(**of)["GrantId"] for _ in range(7)}
    for name, arguments in [
        ("list_grants", {"KeyId": key_id}),
        ("list_grants", {"KeyId": key_id, "GranteePrincipal": CALLER}),
        ("list_retirable_grants", {"RetiringPrincipal": ROOT}),
    ]:
        for size in (1, 3, 1000):
            paged = list(kms.get_paginator(name).paginate(**arguments, PaginationConfig={"PageSize": size}))
            joined = [one["GrantId"] for page in paged for one in page["Grants"]]
            checks.equal(f"{name} {len(arguments)}: pages of {size}, joined", (set(joined), len(joined)), (made, 7))
            sizes = [len(page["Grants"]) for page in paged[:-1]]
            checks.equal(f"{name}: all but the last of {size} are full", sizes, [size] * len(sizes))
    marker = kms.list_grants(KeyId=key_id, Limit=1)["NextMarker"]
    for what, call in [
        ("another list's marker", lambda: kms.list_retirable_grants(RetiringPrincipal=ROOT, Marker=marker)),
        ("a made-up marker", lambda: kms.list_grants(KeyId=key_id, Marker="nonsense")),
    ]:
        refused(checks, what, call, "InvalidMarkerException", "")


def refusals(checks, kms, unchecked):
    key_id = by_grants_alone(kms)["KeyId"]
    nobody, malformed = f"arn:aws:iam::{ACCOUNT}:user/nobody", "arn:aws:nobody"
    operations = (
        "Operations [Encrypt] are not supported when creating a grant for a symmetric KMS key with key usage GENERATE_VERIFY_MAC."
        " Valid operations are [CreateGrant, RetireGrant, DescribeKey, GenerateMac, VerifyMac]"
    )
    context = "EncryptionContext is supported only when creating a grant for a symmetric encryption KMS key."
    no_principal = "GranteePrincipal does not refer to a valid principal."
    for what, change, name, say in [
        ("another kind's operation", {"Operations": ["Encrypt"]}, "ValidationException", operations),
        ("an encryption context", {"Constraints": {"EncryptionContextEquals": {"a": "b"}}}, "ValidationException", context),
        ("part of one", {"Constraints": {"EncryptionContextSubset": {"a": "b"}}}, "ValidationException", context),
        ("a principal that is not there", {"GranteePrincipal": nobody}, "InvalidArnException", f"ARN does not refer to a valid principal: {nobody}"),
        ("a malformed ARN", {"GranteePrincipal": malformed}, "InvalidArnException", f"ARN is not valid: {malformed}"),
        ("an ID that is not there", {"GranteePrincipal": "AIDANOBODY"}, "InvalidArnException", no_principal),
        ("an alias", {"KeyId": KEYS[256].alias}, "InvalidArnException", "Key Aliases are not supported for this operation."),
        ("what is no key ID", {"KeyId": "fake-key-id"}, "NotFoundException", "Invalid keyId 'fake-key-id'"),
        ("nobody's key", {"KeyId": NOBODY}, "NotFoundException", re.compile(f"Key '.*{NOBODY}' does not exist")),
        ("a declared key", {"KeyId": DECLARED}, "UnsupportedOperationException", re.compile(".* is declared in the configuration")),
        ("a bad token", {"GrantTokens": ["token"]}, "InvalidGrantTokenException", ""),
        ("a bad name", {"Name": "a b"}, "ValidationException", re.compile(".*'a b' at 'name' failed to satisfy constraint")),
    ]:
        call = lambda: kms.create_grant(**{"KeyId": key_id, "GranteePrincipal": CALLER, "Operations": ["GenerateMac"], **change})
        refused(checks, f"CreateGrant with {what}", call, name, say)
    of = {"KeyId": key_id, "GranteePrincipal": CALLER, "Operations": ["GenerateMac"]}
    kms.disable_key(KeyId=key_id)
    say = re.compile(".* is disabled.")
    refused(checks, "CreateGrant on a disabled key", lambda: kms.create_grant(**of), "DisabledException", say)
    kms.enable_key(KeyId=key_id)
    kept = kms.create_grant(**of)["GrantId"]
    kms.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
    say = re.compile(".* is pending deletion.")
    refused(checks, "CreateGrant on one that goes", lambda: kms.create_grant(**of), "KMSInvalidStateException", say)
    checks.equal("its grants are there", [one["GrantId"] for one in kms.list_grants(KeyId=key_id)["Grants"]], [kept])
    void(checks, "and can be revoked", kms.revoke_grant(KeyId=key_id, GrantId=kept))
    neither = "Grant token OR (grant ID, key ID) must be specified"
    for what, call, name, say in [
        ("RetireGrant of nothing", kms.retire_grant, "ValidationException", neither),
        ("RetireGrant without the key", lambda: kms.retire_grant(GrantId="0" * 64), "ValidationException", neither),
        ("RetireGrant by a made-up token", lambda: kms.retire_grant(GrantToken="token"), "InvalidGrantTokenException", ""),
        ("RevokeGrant of an unknown grant", lambda: kms.revoke_grant(KeyId=key_id, GrantId="0" * 64), "NotFoundException", NOT_FOUND),
        ("ListGrants of what is no principal", lambda: kms.list_grants(KeyId=key_id, GranteePrincipal="AIDANOBODY"), "InvalidArnException", "Input does not refer to a valid principal"),
        ("ListGrants of what is no grant ID", lambda: kms.list_grants(KeyId=key_id, GrantId="x"), "InvalidGrantIdException", ""),
        ("ListRetirableGrants of nobody", lambda: kms.list_retirable_grants(RetiringPrincipal="AIDANOBODY"), "NotFoundException", "Retiring principal AIDANOBODY could not be found"),
        ("ListRetirableGrants without one", unchecked.list_retirable_grants, "ValidationException", re.compile(".*null at 'retiringPrincipal'")),
    ]:
        refused(checks, what, call, name, say)
