"""Keys, from CreateKey to ScheduleKeyDeletion, with their names and tags."""

import contextlib
import datetime
import json
import re

from boto3_kms import MESSAGE, UUID, constraint, refused, void
from service import ACCOUNT, DECLARED, DECLARED_ARN, KEYS, NOBODY, NOBODY_ARN, REGION


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
            "a spec that is new in KMS",
            {"KeySpec": "ML_DSA_44", "KeyUsage": "SIGN_VERIFY"},
            "UnsupportedOperationException",
            re.compile("KeySpec ML_DSA_44 is not supported"),
        ),
        (
            "a spec that is for something else",
            {"KeySpec": "RSA_2048"},
            "ValidationException",
            "KeyUsage GENERATE_VERIFY_MAC is not compatible with KeySpec RSA_2048",
        ),
        (
            "a usage that is for something else",
            {"KeyUsage": "KEY_AGREEMENT"},
            "ValidationException",
            "KeyUsage KEY_AGREEMENT is not compatible with KeySpec HMAC_256",
        ),
        (
            "a wrong spec and its old name",
            {"KeySpec": "SM3", "CustomerMasterKeySpec": "HMAC_256"},
            "ValidationException",
            re.compile("1 validation error detected: Value 'SM3' at 'keySpec' failed to satisfy constraint: "),
        ),
        (
            "a key store without a name",
            {"CustomKeyStoreId": ""},
            "ValidationException",
            constraint("customKeyStoreId", "Member must have length greater than or equal to 1", "Value ''"),
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
        (
            "a key policy that is none",
            {"Policy": "{}"},
            "MalformedPolicyDocumentException",
            "Policy has no Statement.",
        ),
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
            constraint(
                "tags.1.member.tagValue", "Member must have length less than or equal to 256", f"Value '{'v' * 257}'"
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
    own, others = kms.list_keys(ResourceOwners=["SELF"]), kms.list_keys(ResourceOwners=["OTHER_ACCOUNTS_VIA_RAM"])
    checks.equal("ListKeys of one's own", own["Keys"], kms.list_keys()["Keys"])
    checks.equal("ListKeys of others' that are shared", (others["Keys"], others["Truncated"]), ([], False))
    both = kms.list_keys(ResourceOwners=["OTHER_ACCOUNTS_VIA_RAM", "SELF"], Limit=1)
    checks.equal("ListKeys of both", both["Keys"], own["Keys"][:1])


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


def policies(checks, kms, key):
    default = kms.get_key_policy(KeyId=key)
    checks.equal("the default policy's name", default["PolicyName"], "default")
    statement = json.loads(default["Policy"])["Statement"][0]
    checks.equal("whom it leaves it to", statement["Principal"], {"AWS": "arn:aws:iam::000000000000:root"})
    names = kms.list_key_policies(KeyId=key)
    checks.equal("policy names", (names["PolicyNames"], names["Truncated"]), (["default"], False))

    deny = {"Effect": "Deny", "Principal": "*", "Action": "kms:GenerateMac", "Resource": "*"}
    written = json.dumps({"Version": "2012-10-17", "Statement": [statement, deny]})
    void(checks, "PutKeyPolicy", kms.put_key_policy(KeyId=key, PolicyName="default", Policy=written))
    checks.equal("what was written", json.loads(kms.get_key_policy(KeyId=key)["Policy"]), json.loads(written))
    arn = kms.describe_key(KeyId=key)["KeyMetadata"]["Arn"]
    mac = {"KeyId": key, "Message": MESSAGE, "MacAlgorithm": "HMAC_SHA_256"}
    refused(
        checks,
        "GenerateMac that the key's policy denies",
        lambda: kms.generate_mac(**mac),
        "AccessDeniedException",
        f"User: arn:aws:iam::000000000000:user/dev is not authorized to perform: kms:GenerateMac on resource: {arn} "
        "with an explicit deny in a resource-based policy",
    )
    others = json.dumps({"Statement": {**statement, "Principal": {"AWS": "444455556666"}}})
    refused(
        checks,
        "a policy that locks its writer out",
        lambda: kms.put_key_policy(KeyId=key, Policy=others),
        "MalformedPolicyDocumentException",
        "The new key policy will not allow you to update the key policy in the future.",
    )
    refused(
        checks,
        "a policy of Resource Access Manager's",
        lambda: kms.put_key_policy(KeyId=key, PolicyName="AWS_RAM", Policy=default["Policy"]),
        "ValidationException",
        "The AWS_RAM policy can only be managed by the RAM service.",
    )
    refused(
        checks,
        "a policy with a euro sign",
        lambda: kms.put_key_policy(KeyId=key, Policy='{"Id": "€"}'),
        "ValidationException",
        constraint(
            "policy",
            r"Member must satisfy regular expression pattern: [\u0009\u000A\u000D\u0020-\u00FF]+",
            "Value '{\"Id\": \"€\"}'",
        ),
    )
    kms.put_key_policy(KeyId=key, Policy=default["Policy"])
    checks.equal("a MAC after it is allowed again", len(kms.generate_mac(**mac)["Mac"]), 32)
    kms.put_key_policy(KeyId=key, Policy=others, BypassPolicyLockoutSafetyCheck=True)
    refused(
        checks,
        "DescribeKey once it is somebody else's",
        lambda: kms.describe_key(KeyId=key),
        "AccessDeniedException",
        re.compile("User: .* because no resource-based policy allows the kms:DescribeKey action$"),
    )
