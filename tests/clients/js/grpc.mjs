// grpc-js with @grpc/proto-loader against a hsmac that grpc_javascript.py has started.

import { readdirSync, readFileSync } from "node:fs";
import { inspect } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { hex, holds, known, mac, run, same, version } from "./checks.mjs";

const key = known.keys.find((one) => one.spec === "HMAC_256");
const message = Buffer.from("Hello World");
// Ends a hang; no call takes long.
const LIMIT = 60_000;
// The published proto, and Google's for the details of an error.
const files = ["hsmac/v1/mac.proto", "hsmac/v1/key.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"];
const loaded = loader.loadSync(files, { includeDirs: known.protos, enums: String, defaults: true });
const { hsmac, google } = grpc.loadPackageDefinition(loaded);

const options = {
  "grpc.keepalive_time_ms": 1_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.keepalive_permit_without_calls": 1,
};
const macs = new hsmac.v1.MacService(known.address, grpc.credentials.createInsecure(), options);
// The same channel: what the one service does the other one sees.
const keys = new hsmac.v1.KeyService(known.address, null, { channelOverride: macs.getChannel() });

async function everyKey() {
  for (const one of known.keys) {
    const of = { message, macAlgorithm: one.algorithm };
    for (const keyId of [one.id, one.arn, one.alias, one.aliasArn]) {
      const made = await call(macs, "generateMac", { keyId, ...of });
      same(`GenerateMac by ${keyId}`, [made.keyId, hex(made.mac)], [one.arn, hex(mac(one, message))]);
      same("the algorithm is its name", made.macAlgorithm, one.algorithm);
      const good = await call(macs, "verifyMac", { keyId, ...of, mac: made.mac });
      same(`VerifyMac by ${keyId}`, [good.keyId, good.macValid], [one.arn, true]);
    }
  }
  const { keyMetadata } = await call(keys, "describeKey", { keyId: key.alias });
  same("DescribeKey", [keyMetadata.arn, keyMetadata.keySpec, keyMetadata.keyState], [key.arn, "HMAC_256", "ENABLED"]);
  const listed = (await call(keys, "listKeys", {})).keys.map((one) => one.keyId);
  holds("ListKeys has them all", known.keys.every((one) => listed.includes(one.id)), listed);
  const { plaintext } = await call(macs, "generateRandom", { numberOfBytes: 32 });
  same("GenerateRandom", plaintext.length, 32);
}

async function fiveThousandAtOnce() {
  const messages = Array.from({ length: 5_000 }, (_, number) => Buffer.from(`message ${number}`));
  const of = { keyId: key.id, macAlgorithm: key.algorithm };
  const began = Date.now();
  const made = await Promise.allSettled(messages.map((one) => call(macs, "generateMac", { ...of, message: one })));
  const took = Date.now() - began;
  const faults = new Map();
  for (const { reason } of made.filter((one) => one.reason)) {
    faults.set(reason.message, (faults.get(reason.message) ?? 0) + 1);
  }
  same("5,000 calls at once: none fails", [...faults], []);
  const wrong = made.filter(({ value }, at) => value && hex(value.mac) !== hex(mac(key, messages[at])));
  same("and each answer is its own message's MAC", wrong, []);
  console.log(`5,000 calls at once on one channel: ${took} ms`);
}

async function errorDetails() {
  const of = { keyId: key.id, message, macAlgorithm: key.algorithm };
  const wrong = mac(key, "another message");
  const cases = [
    ["a wrong MAC", "verifyMac", { ...of, mac: wrong }, "INVALID_ARGUMENT", "KMS_INVALID_MAC", "KMSInvalidMacException"],
    ["an unknown key", "generateMac", { ...of, keyId: known.nobody }, "NOT_FOUND", "NOT_FOUND", "NotFoundException"],
    ["no message", "generateMac", { ...of, message: "" }, "INVALID_ARGUMENT", "VALIDATION", "ValidationException"],
  ];
  for (const [what, method, request, code, reason, exception] of cases) {
    const fault = await refusal(macs, method, request);
    same(`${what}: its code`, grpc.status[fault.code], code);
    const { status, details } = decoded(fault);
    same("the status in the trailer is the status", [status.code, status.message], [fault.code, fault.details]);
    const info = details["google.rpc.ErrorInfo"];
    same("ErrorInfo", [info?.reason, info?.domain, info?.metadata?.exception], [reason, "hsmac", exception]);
    holds("a request ID", /^[0-9a-f-]{36}$/.test(fault.metadata.get("x-request-id")[0]), fault.metadata);
    if (reason === "VALIDATION") {
      const fields = details["google.rpc.BadRequest"]?.fieldViolations.map((one) => one.field);
      same("the broken field is named", fields, ["message"]);
    }
  }
}

/** While the token's hosts are stopped nobody can answer: the deadline must. */
async function deadlines() {
  const of = { keyId: key.id, message, macAlgorithm: key.algorithm };
  const signal = (name) => known.hosts.forEach((host) => process.kill(host, name));
  // A signal stops a process when one of its threads comes to take it: on a busy machine the others go on until then.
  const stopped = (host) =>
    readdirSync(`/proc/${host}/task`).every((task) =>
      readFileSync(`/proc/${host}/task/${task}/stat`, "utf8").split(") ").at(-1).startsWith("T"),
    );
  let began, late, left;
  signal("SIGSTOP");
  try {
    for (const end = Date.now() + LIMIT; !known.hosts.every(stopped) && Date.now() < end; ) {
      await new Promise((done) => setTimeout(done, 1));
    }
    holds("the hosts are stopped", known.hosts.every(stopped), known.hosts);
    began = Date.now();
    late = await refusal(macs, "generateMac", of, { deadline: Date.now() + 300 });
    left = await refusal(macs, "generateMac", of, {}, (one) => setImmediate(() => one.cancel()));
  } finally {
    signal("SIGCONT");
  }
  same("a deadline that passes", grpc.status[late.code], "DEADLINE_EXCEEDED");
  holds("it is kept", Date.now() - began < LIMIT / 2, Date.now() - began);
  same("a call that its caller leaves", grpc.status[left.code], "CANCELLED");
  const over = await refusal(macs, "generateMac", of, { deadline: Date.now() - 1 });
  same("a deadline that has passed already", grpc.status[over.code], "DEADLINE_EXCEEDED");
  const made = await call(macs, "generateMac", of);
  same("and the channel serves on", hex(made.mac), hex(mac(key, message)));
}

/** A ping each second, as clients behind a load balancer have it: nobody is let go for that. */
async function keepAlive() {
  const channel = macs.getChannel();
  const socket = (await sockets(channel))[0];
  const before = Number(socket.data.keep_alives_sent);
  let now = before;
  for (const end = Date.now() + LIMIT; now < before + 5 && Date.now() < end; ) {
    await new Promise((done) => setTimeout(done, 50));
    const [same] = (await sockets(channel)).filter((one) => one.ref.socket_id === socket.ref.socket_id);
    if (!same) {
      break;
    }
    now = Number(same.data.keep_alives_sent);
  }
  holds("five pings without a call, on one connection", now >= before + 5, [before, now]);
  same("the channel is ready", channel.getConnectivityState(false), grpc.connectivityState.READY);
  const made = await call(macs, "generateMac", { keyId: key.id, message, macAlgorithm: key.algorithm });
  same("and serves", hex(made.mac), hex(mac(key, message)));
  const after = await sockets(channel);
  same("all calls of this suite went over one connection", after.map((one) => one.ref.socket_id), [socket.ref.socket_id]);
  console.log(`${after[0].data.streams_started} calls, ${after[0].data.keep_alives_sent} pings on one connection`);
}

/** The channel's connections, as grpc-js itself counts them. */
async function sockets(channel) {
  const handlers = grpc.getChannelzHandlers();
  const ask = (method, request) =>
    new Promise((done, failed) =>
      handlers[method]({ request }, (fault, answer) => (fault ? failed(fault) : done(answer))),
    );
  const found = [];
  const { channel: top } = await ask("GetChannel", { channel_id: channel.getChannelzRef().id });
  for (const { subchannel_id } of top.subchannel_ref) {
    const { subchannel } = await ask("GetSubchannel", { subchannel_id });
    for (const { socket_id } of subchannel.socket_ref) {
      found.push((await ask("GetSocket", { socket_id })).socket);
    }
  }
  return found;
}

function call(client, method, request, more = {}, meanwhile = () => {}) {
  return new Promise((done, failed) => {
    const how = { deadline: Date.now() + LIMIT, ...more };
    const started = client[method](request, how, (fault, answer) => (fault ? failed(fault) : done(answer)));
    meanwhile(started);
  });
}

async function refusal(...of) {
  try {
    await call(...of);
  } catch (fault) {
    return fault;
  }
  throw new Error(`it was not refused: ${inspect(of[2])}`);
}

/** The google.rpc.Status of a failed call, and its details by their types. */
function decoded(fault) {
  const [packed] = fault.metadata.get("grpc-status-details-bin");
  const status = google.rpc.Status.deserialize(packed);
  const details = {};
  for (const { type_url, value } of status.details) {
    const name = type_url.split("/").pop();
    details[name] = google.rpc[name.split(".").pop()].deserialize(value);
  }
  return { status, details };
}

console.log(`@grpc/grpc-js ${version("@grpc/grpc-js")}, Node ${process.version}`);
await run([everyKey, fiveThousandAtOnce, errorDetails, deadlines, keepAlive]);
macs.close();
