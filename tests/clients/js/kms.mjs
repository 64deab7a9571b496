// The AWS SDK for JavaScript v3 against a hsmac that aws_javascript.py has started.

import * as aws from "@aws-sdk/client-kms";
import { hex, holds, known, mac, run, same, told, version } from "./checks.mjs";

const { keys, declared, nobody, region, account } = known;
const key = keys.find((one) => one.spec === "HMAC_256");
const arnOf = (id) => `arn:aws:kms:${region}:${account}:key/${id}`;
const message = Buffer.from("Hello World");
const MAC = { KeyUsage: "GENERATE_VERIFY_MAC" };

// This is all that moving from AWS takes: the endpoint.
const client = (other = {}) =>
  new aws.KMSClient({
    endpoint: known.endpoint,
    region,
    credentials: { accessKeyId: known.accessKeyId, secretAccessKey: known.secretAccessKey },
    // Without retries every answer is seen.
    maxAttempts: 1,
    ...other,
  });
const kms = client();

const parts = {
  walk: () => run([example, macs, refusedMacs, random, life, aliases, tags, grants, pages, rotation, others, callers]),
  "token-away": tokenAway,
};

async function example() {
  const given = { KeyId: keys[2].id, MacAlgorithm: "HMAC_SHA_384", Message: message };
  const answer = await kms.send(new aws.GenerateMacCommand(given));
  same("GenerateMacCommand: KeyId is an ARN", answer.KeyId, keys[2].arn);
  holds("Mac is a Uint8Array", answer.Mac instanceof Uint8Array, answer.Mac);
  same("and Node's own HMAC", hex(answer.Mac), hex(mac(keys[2], message)));
  same("MacAlgorithm", answer.MacAlgorithm, "HMAC_SHA_384");
  const { httpStatusCode, requestId, attempts } = answer.$metadata;
  same("status and attempts", [httpStatusCode, attempts], [200, 1]);
  holds("a request ID", /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(requestId), requestId);
}

async function macs() {
  for (const one of keys) {
    const of = { Message: message, MacAlgorithm: one.algorithm };
    for (const KeyId of [one.id, one.arn, one.alias, one.aliasArn]) {
      const made = await kms.send(new aws.GenerateMacCommand({ KeyId, ...of }));
      same(`GenerateMac by ${KeyId}`, [made.KeyId, hex(made.Mac)], [one.arn, hex(mac(one, message))]);
      const { MacValid, KeyId: by } = await kms.send(new aws.VerifyMacCommand({ KeyId, ...of, Mac: made.Mac }));
      same(`VerifyMac by ${KeyId}`, [by, MacValid], [one.arn, true]);
    }
    const long = Buffer.alloc(4096, 7);
    const made = await kms.send(new aws.GenerateMacCommand({ ...of, KeyId: one.id, Message: long }));
    same(`${one.algorithm} of 4,096 bytes`, hex(made.Mac), hex(mac(one, long)));
  }
  // As the SDK is out of the box, many at a time on its pool of connections.
  const many = client({ maxAttempts: undefined });
  const of = { KeyId: key.alias, MacAlgorithm: key.algorithm };
  const wanted = Array.from({ length: 200 }, (_, number) => Buffer.from(`message ${number}`));
  const made = await Promise.all(wanted.map((Message) => many.send(new aws.GenerateMacCommand({ ...of, Message }))));
  const right = made.every((answer, number) => hex(answer.Mac) === hex(mac(key, wanted[number])));
  holds("200 calls at once, each with its message's MAC", right);
  same("none was tried again", Math.max(...made.map((answer) => answer.$metadata.attempts)), 1);
}

async function refusedMacs() {
  const of = { KeyId: key.id, Message: message, MacAlgorithm: key.algorithm };
  const right = mac(key, message);
  const wrong = Buffer.from(right);
  wrong[0] ^= 1;
  const denied = `User: ${known.caller} is not authorized to perform: kms:`;
  for (const [what, change, fault, say] of [
    ["an unknown key", { KeyId: nobody }, "NotFoundException", `Key '${arnOf(nobody)}' does not exist`],
    ["an unknown alias", { KeyId: "alias/nobody" }, "NotFoundException", `Alias arn:aws:kms:${region}:${account}:alias/nobody is not found.`],
    ["what is no key ID", { KeyId: "key_id" }, "NotFoundException", "Invalid keyId 'key_id'"],
    ["another region's key", { KeyId: key.arn.replace(region, "us-west-2") }, "NotFoundException", "Invalid arn us-west-2"],
    ["another account's key", { KeyId: key.arn.replace(account, "123456789012") }, "AccessDeniedException", denied],
    ["another spec's algorithm", { MacAlgorithm: "HMAC_SHA_512" }, "InvalidKeyUsageException", "Algorithm HMAC_SHA_512 is incompatible with key spec HMAC_256."],
    ["a grant token", { GrantTokens: ["token"] }, "InvalidGrantTokenException"],
    ["a dry run", { DryRun: true }, "DryRunOperationException", "The request would have succeeded, but the DryRun option is set."],
    ["an unknown algorithm", { MacAlgorithm: "INVALID" }, "ValidationException", "1 validation error detected: Value 'INVALID' at 'macAlgorithm' failed to satisfy constraint: Member must satisfy enum value set: ["],
    ["an empty message", { Message: new Uint8Array() }, "ValidationException", "1 validation error detected: Value at 'message' failed to satisfy constraint: Member must have length greater than or equal to 1"],
    ["4,097 bytes", { Message: new Uint8Array(4097) }, "ValidationException", "1 validation error detected: Value at 'message' failed to satisfy constraint: Member must have length less than or equal to 4096"],
    ["no key", { KeyId: undefined }, "ValidationException", "1 validation error detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null"],
  ]) {
    await refused(`GenerateMac with ${what}`, new aws.GenerateMacCommand({ ...of, ...change }), fault, say);
    await refused(`VerifyMac with ${what}`, new aws.VerifyMacCommand({ ...of, Mac: right, ...change }), fault, say);
  }
  for (const [what, Mac] of [["a wrong MAC", wrong], ["half a MAC", right.subarray(0, 16)], ["another key's", mac(keys[3], message)]]) {
    await refused(`VerifyMac with ${what}`, new aws.VerifyMacCommand({ ...of, Mac }), "KMSInvalidMacException");
  }
  await refused("a dry run tells a wrong MAC", new aws.VerifyMacCommand({ ...of, Mac: wrong, DryRun: true }), "KMSInvalidMacException");
}

async function random() {
  const { Plaintext } = await kms.send(new aws.GenerateRandomCommand({ NumberOfBytes: 32 }));
  same("GenerateRandom", Plaintext.length, 32);
  await refused("no number", new aws.GenerateRandomCommand({}), "ValidationException", "NumberOfBytes is required.");
  await refused("1,025 bytes", new aws.GenerateRandomCommand({ NumberOfBytes: 1025 }), "ValidationException", "1 validation error detected: Value '1025' at 'numberOfBytes' ");
}

async function life() {
  for (const { spec, algorithm } of keys) {
    const began = Date.now();
    const given = { ...MAC, KeySpec: spec, Description: "from JavaScript", Tags: [{ TagKey: "team", TagValue: "billing" }] };
    const { KeyMetadata: made } = await kms.send(new aws.CreateKeyCommand(given));
    same(`CreateKey ${spec}`, [made.KeySpec, made.KeyState, made.MacAlgorithms, made.Origin], [spec, "Enabled", [algorithm], "AWS_KMS"]);
    holds(`${spec}: CreationDate is a Date`, made.CreationDate instanceof Date && Math.abs(made.CreationDate - began) < 120e3, made.CreationDate);
    const { KeyMetadata: again } = await kms.send(new aws.DescribeKeyCommand({ KeyId: made.Arn }));
    same(`${spec}: DescribeKey tells the same`, again, made);
  }
  const { KeyMetadata: made } = await kms.send(new aws.CreateKeyCommand({ ...MAC, KeySpec: "HMAC_256" }));
  const [KeyId, Arn] = [made.KeyId, made.Arn];
  const of = { KeyId, Message: message, MacAlgorithm: "HMAC_SHA_256" };
  const { Mac } = await kms.send(new aws.GenerateMacCommand(of));
  const state = async () => (await kms.send(new aws.DescribeKeyCommand({ KeyId }))).KeyMetadata;

  await nothing("UpdateKeyDescription", new aws.UpdateKeyDescriptionCommand({ KeyId, Description: "né" }));
  same("the new description", (await state()).Description, "né");
  await nothing("DisableKey", new aws.DisableKeyCommand({ KeyId }));
  await refused("GenerateMac with a disabled key", new aws.GenerateMacCommand(of), "DisabledException", `${Arn} is disabled.`);
  await nothing("EnableKey", new aws.EnableKeyCommand({ KeyId }));
  same("the same MAC", hex((await kms.send(new aws.GenerateMacCommand(of))).Mac), hex(Mac));
  const { KeyLastUsage, TrackingStartDate } = await kms.send(new aws.GetKeyLastUsageCommand({ KeyId }));
  same("GetKeyLastUsage", [KeyLastUsage.Operation, KeyLastUsage.Timestamp instanceof Date], ["GenerateMac", true]);
  holds("its TrackingStartDate", TrackingStartDate instanceof Date, TrackingStartDate);
  const scheduled = await kms.send(new aws.ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays: 7 }));
  same("ScheduleKeyDeletion", [scheduled.KeyId, scheduled.KeyState, scheduled.PendingWindowInDays], [Arn, "PendingDeletion", 7]);
  same("DeletionDate in DescribeKey", (await state()).DeletionDate, scheduled.DeletionDate);
  await refused("GenerateMac with it", new aws.GenerateMacCommand(of), "KMSInvalidStateException", `${Arn} is pending deletion.`);
  const cancelled = await kms.send(new aws.CancelKeyDeletionCommand({ KeyId }));
  same("CancelKeyDeletion", [cancelled.KeyId, (await state()).KeyState], [Arn, "Disabled"]);
  await refused("CancelKeyDeletion again", new aws.CancelKeyDeletionCommand({ KeyId }), "KMSInvalidStateException", `${Arn} is not pending deletion.`);
  await refused("DisableKey by alias", new aws.DisableKeyCommand({ KeyId: key.alias }), "InvalidArnException", "Key Aliases are not supported for this operation.");
  await refused("a declared key", new aws.DisableKeyCommand({ KeyId: declared }), "UnsupportedOperationException", `${arnOf(declared)} is declared`);
  await refused("CreateKey without KeyUsage", new aws.CreateKeyCommand({ KeySpec: "HMAC_256" }), "ValidationException", "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.");
  await refused("CreateKey of another kind", new aws.CreateKeyCommand({ KeySpec: "ECC_NIST_P256", KeyUsage: "SIGN_VERIFY" }), "UnsupportedOperationException", "KeySpec ECC_NIST_P256 is not supported");
}

async function aliases() {
  const AliasName = "alias/javascript";
  const arn = `arn:aws:kms:${region}:${account}:${AliasName}`;
  await nothing("CreateAlias", new aws.CreateAliasCommand({ AliasName, TargetKeyId: key.id }));
  await refused("CreateAlias again", new aws.CreateAliasCommand({ AliasName, TargetKeyId: key.id }), "AlreadyExistsException", `An alias with the name ${arn} already exists`);
  await nothing("UpdateAlias", new aws.UpdateAliasCommand({ AliasName, TargetKeyId: keys[3].id }));
  const { Aliases } = await kms.send(new aws.ListAliasesCommand({ KeyId: keys[3].id }));
  const mine = Aliases.find((alias) => alias.AliasName === AliasName);
  same("ListAliases", [mine?.AliasArn, mine?.TargetKeyId, mine?.CreationDate instanceof Date], [arn, keys[3].id, true]);
  await nothing("DeleteAlias", new aws.DeleteAliasCommand({ AliasName }));
  await refused("DeleteAlias again", new aws.DeleteAliasCommand({ AliasName }), "NotFoundException", `Alias ${arn} is not found.`);
  await refused("an alias of AWS's", new aws.CreateAliasCommand({ AliasName: "alias/aws/x", TargetKeyId: key.id }), "NotAuthorizedException");
  await refused("an alias without a name", new aws.CreateAliasCommand({ AliasName: "alias/", TargetKeyId: key.id }), "InvalidAliasNameException", "An alias must have a name");
}

async function tags() {
  const KeyId = key.id;
  await nothing("TagResource", new aws.TagResourceCommand({ KeyId, Tags: [{ TagKey: "a", TagValue: "1" }, { TagKey: "b", TagValue: "" }] }));
  await nothing("UntagResource", new aws.UntagResourceCommand({ KeyId, TagKeys: ["a"] }));
  const { Tags, Truncated } = await kms.send(new aws.ListResourceTagsCommand({ KeyId }));
  same("ListResourceTags", [Tags, Truncated], [[{ TagKey: "b", TagValue: "" }], false]);
  await refused("a tag of AWS's", new aws.TagResourceCommand({ KeyId, Tags: [{ TagKey: "aws:a", TagValue: "" }] }), "TagException", "Tags beginning with aws: are reserved");
}

async function pages() {
  const whole = await kms.send(new aws.ListKeysCommand({}));
  for (const [what, paginate, member, input] of [
    ["paginateListKeys", aws.paginateListKeys, "Keys", {}],
    ["paginateListAliases", aws.paginateListAliases, "Aliases", {}],
    ["paginateListResourceTags", aws.paginateListResourceTags, "Tags", { KeyId: key.id }],
    ["paginateListKeyRotations", aws.paginateListKeyRotations, "Rotations", { KeyId: key.id }],
  ]) {
    const all = [];
    let count = 0;
    for await (const page of paginate({ client: kms, pageSize: 2 }, input)) {
      all.push(...page[member]);
      count += 1;
    }
    same(`${what}: pages of 2`, count, Math.max(1, Math.ceil(all.length / 2)));
    if (member === "Keys") same("ListKeys: pages joined", all, whole.Keys);
  }
  await refused("a made-up marker", new aws.ListKeysCommand({ Marker: "nonsense" }), "InvalidMarkerException");
}

async function rotation() {
  const status = await kms.send(new aws.GetKeyRotationStatusCommand({ KeyId: key.id }));
  same("GetKeyRotationStatus", [status.KeyId, status.KeyRotationEnabled], [key.arn, false]);
  const { KeyMetadata: made } = await kms.send(new aws.CreateKeyCommand({ ...MAC, KeySpec: "HMAC_256" }));
  await nothing("DisableKeyRotation", new aws.DisableKeyRotationCommand({ KeyId: made.KeyId }));
  await refused("EnableKeyRotation", new aws.EnableKeyRotationCommand({ KeyId: made.KeyId }), "UnsupportedOperationException");
  await refused("RotateKeyOnDemand", new aws.RotateKeyOnDemandCommand({ KeyId: made.KeyId }), "UnsupportedOperationException");
}

async function grants() {
  const Statement = { Effect: "Allow", Principal: { AWS: known.caller }, NotAction: "kms:GenerateMac", Resource: "*" };
  const given = { ...MAC, KeySpec: "HMAC_256", Policy: JSON.stringify({ Version: "2012-10-17", Statement }) };
  const { KeyId, Arn } = (await kms.send(new aws.CreateKeyCommand(given))).KeyMetadata;
  const generate = () => new aws.GenerateMacCommand({ KeyId, Message: message, MacAlgorithm: "HMAC_SHA_256" });
  const create = (other = {}) =>
    new aws.CreateGrantCommand({ KeyId, GranteePrincipal: known.caller, RetiringPrincipal: known.caller, Operations: ["GenerateMac"], ...other });
  const denied = `User: ${known.caller} is not authorized to perform: kms:GenerateMac on resource: ${Arn}`;
  await refused("GenerateMac without a grant", generate(), "AccessDeniedException", denied);
  const { GrantId, GrantToken } = await kms.send(create());
  holds("CreateGrant: GrantId and GrantToken", /^[0-9a-f]{64}$/.test(GrantId) && GrantToken.length <= 8192, GrantId);
  const made = await kms.send(generate());
  const again = await kms.send(new aws.GenerateMacCommand({ ...generate().input, GrantTokens: [GrantToken] }));
  same("GenerateMac with its token", hex(again.Mac), hex(made.Mac));
  const { Grants } = await kms.send(new aws.ListGrantsCommand({ KeyId }));
  same("ListGrants", Grants.map((one) => [one.KeyId, one.GrantId, one.IssuingAccount, one.Operations, one.CreationDate instanceof Date]), [[Arn, GrantId, `arn:aws:iam::${account}:root`, ["GenerateMac"], true]]);
  for (let number = 0; number < 4; number++) await kms.send(create());
  const paged = [];
  for await (const page of aws.paginateListGrants({ client: kms, pageSize: 2 }, { KeyId })) paged.push(page.Grants.length);
  same("paginateListGrants by two", paged, [2, 2, 1]);
  const all = [];
  for await (const page of aws.paginateListRetirableGrants({ client: kms, pageSize: 2 }, { RetiringPrincipal: known.caller })) all.push(...page.Grants);
  same("paginateListRetirableGrants", all.filter((one) => one.KeyId === Arn).length, 5);
  await nothing("RetireGrant", new aws.RetireGrantCommand({ GrantToken }));
  for (const one of all.filter((one) => one.KeyId === Arn && one.GrantId !== GrantId)) {
    await nothing("RevokeGrant", new aws.RevokeGrantCommand({ KeyId, GrantId: one.GrantId }));
  }
  await refused("GenerateMac in the end", generate(), "AccessDeniedException", denied);
  await refused("RevokeGrant again", new aws.RevokeGrantCommand({ KeyId, GrantId }), "NotFoundException", `Grant ID ${GrantId} not found`);
  await refused("ListGrants of no grant ID", new aws.ListGrantsCommand({ KeyId, GrantId: "x" }), "InvalidGrantIdException");
  await refused("RetireGrant by a made-up token", new aws.RetireGrantCommand({ GrantToken: "token" }), "InvalidGrantTokenException");
  await refused("CreateGrant of another kind's operation", create({ Operations: ["Sign"] }), "ValidationException", "Operations [Sign] are not supported");
  await refused("CreateGrant, dry", create({ DryRun: true }), "DryRunOperationException");
}

async function others() {
  const usage = (operation) => `${key.arn} key usage is GENERATE_VERIFY_MAC which is not valid for ${operation}.`;
  await refused("Encrypt", new aws.EncryptCommand({ KeyId: key.id, Plaintext: message }), "InvalidKeyUsageException", usage("Encrypt"));
  await refused("Sign", new aws.SignCommand({ KeyId: key.id, Message: message, SigningAlgorithm: "ECDSA_SHA_256" }), "InvalidKeyUsageException", usage("Sign"));
  await refused("Decrypt", new aws.DecryptCommand({ KeyId: key.id, CiphertextBlob: message }), "IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.");
  await refused("Decrypt without a key", new aws.DecryptCommand({ CiphertextBlob: message }), "InvalidCiphertextException");
  await refused("GetPublicKey", new aws.GetPublicKeyCommand({ KeyId: key.id }), "UnsupportedOperationException");
  await refused("CreateCustomKeyStore", new aws.CreateCustomKeyStoreCommand({ CustomKeyStoreName: "x" }), "UnknownOperationException");
}

async function callers() {
  const pair = (other) => ({ credentials: { accessKeyId: known.accessKeyId, secretAccessKey: known.secretAccessKey, ...other } });
  const command = () => new aws.GenerateMacCommand({ KeyId: key.id, Message: message, MacAlgorithm: key.algorithm });
  for (const [what, other, fault, say] of [
    ["a wrong secret", pair({ secretAccessKey: "x".repeat(40) }), "InvalidSignatureException", "The request signature we calculated does not match"],
    ["an unknown access key", pair({ accessKeyId: "AKIDNOBODY" }), "UnrecognizedClientException", "The security token included in the request is invalid."],
    ["a session token", pair({ sessionToken: "token" }), "UnrecognizedClientException", "The security token included in the request is invalid."],
    ["another region", { region: "eu-west-1" }, "InvalidSignatureException", "Credential should be scoped to a valid region, not 'eu-west-1'."],
    ["a clock 10 minutes behind", { systemClockOffset: -600e3 }, "InvalidSignatureException", "Signature expired: "],
  ]) {
    await refused(what, command(), fault, say, 400, client(other));
  }
  // The SDK sees from the Date header that its clock is wrong, and signs with the server's the next time.
  const wrong = client({ systemClockOffset: -600e3, maxAttempts: 3 });
  const made = await wrong.send(command());
  same("a wrong clock is corrected by the Date header", [hex(made.Mac), made.$metadata.attempts], [hex(mac(key, message)), 2]);
}

async function tokenAway() {
  const of = { KeyId: key.alias, Message: message, MacAlgorithm: key.algorithm };
  const say = "The request was rejected because the token was not available. You can retry the request.";
  await refused("GenerateMac while the token is away", new aws.GenerateMacCommand(of), "KeyUnavailableException", say, 500);
  const { KeyMetadata } = await kms.send(new aws.DescribeKeyCommand({ KeyId: key.alias }));
  same("DescribeKey works without it", KeyMetadata.KeyId, key.id);
}

/** An error by its class if KMS's model has it, by its name if not; `say` is how its text begins. */
async function refused(what, command, name, say = "", status = 400, by = kms) {
  let fault;
  try {
    const answer = await by.send(command);
    return told(`${what}: ${name}`, false, answer);
  } catch (thrown) {
    fault = thrown;
  }
  const modelled = aws[name];
  const isOne = fault instanceof (modelled ?? aws.KMSServiceException) && fault.name === name;
  // Where KMS says nothing the SDK invents a text of its own.
  const says = say === "" || fault.message.startsWith(say);
  const { httpStatusCode, requestId } = fault.$metadata ?? {};
  const at = isOne && says && httpStatusCode === status && requestId;
  told(`${what}: ${modelled ? "instanceof " : ""}${name}`, at, fault);
}

async function nothing(what, command) {
  const { $metadata, ...rest } = await kms.send(command);
  same(`${what}: an empty answer`, [$metadata.httpStatusCode, rest], [200, {}]);
}

console.log(`@aws-sdk/client-kms ${version("@aws-sdk/client-kms")}, Node ${process.version}`);
await parts[process.argv[2]]();
