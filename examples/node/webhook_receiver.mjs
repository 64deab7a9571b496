// Receives webhooks and believes those that a key in an HSM has signed: AWS's SDK against hsmac.
//
//   node webhook_receiver.mjs [PORT]
//
// Prints where it listens, and a line for each webhook. ../rust signs what it takes: a header
// `Webhook-Signature: t=SECONDS,mac=HEX`, the MAC being of "webhook v1", the time and the body's SHA-256.
//
// AWS_ENDPOINT_URL_KMS says where hsmac is and the usual variables who is asking; without them this is
// what `hsmac dev` admits. KEY_ID says which key (default alias/demo).

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { KMSClient, KMSInvalidMacException, VerifyMacCommand } from "@aws-sdk/client-kms";

const KEY_ID = process.env.KEY_ID ?? "alias/demo";
// A webhook that is older may be somebody's recording.
const TOLERANCE = 300;
const LONGEST_BODY = 1024 * 1024;

process.env.AWS_ENDPOINT_URL_KMS ??= "http://127.0.0.1:8460";
process.env.AWS_REGION ??= "us-east-1";
if (!process.env.AWS_PROFILE) {
  process.env.AWS_ACCESS_KEY_ID ??= "AKIAIOSFODNN7EXAMPLE";
  process.env.AWS_SECRET_ACCESS_KEY ??= "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
}
const kms = new KMSClient();

/** undefined if the header is the body's, else why it is not. */
async function refusal(header, body) {
  const [, time, mac] = /^t=(\d{1,12}),mac=([0-9a-f]{64})$/.exec(header ?? "") ?? [];
  if (!mac) return "no signature";
  if (Math.abs(Date.now() / 1000 - Number(time)) > TOLERANCE) return "too old";
  const digest = createHash("sha256").update(body).digest("hex");
  try {
    await kms.send(
      new VerifyMacCommand({
        KeyId: KEY_ID,
        MacAlgorithm: "HMAC_SHA_256",
        Message: Buffer.from(`webhook v1\n${Number(time)}\n${digest}`),
        Mac: Buffer.from(mac, "hex"),
      }),
    );
    return undefined;
  } catch (fault) {
    if (fault instanceof KMSInvalidMacException) return "wrong signature";
    throw fault;
  }
}

async function read(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > LONGEST_BODY) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const server = createServer(async (request, response) => {
  const answer = (status, line) => {
    console.log(`${status} ${line}`);
    response.writeHead(status, { "content-type": "text/plain" }).end(`${line}\n`);
  };
  try {
    const body = await read(request);
    if (!body) return answer(413, "too long");
    const why = await refusal(request.headers["webhook-signature"], body);
    if (why) return answer(401, `refused: ${why}`);
    // Only now is it worth looking at the body.
    answer(200, `accepted: ${body.length} bytes`);
  } catch (fault) {
    // hsmac could not be asked. The sender tries again later, as with any 503.
    console.error(`hsmac: ${fault.name}: ${fault.message}`);
    answer(503, "try again");
  }
});
server.listen(Number(process.argv[2] ?? 8080), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
