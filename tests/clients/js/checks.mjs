// What the scripts of this folder share: what they know of the service, which comes on stdin, and how
// they tell a check: a line with `ok` or `FAILED`, a tab, what it was.

import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { isDeepStrictEqual, inspect } from "node:util";

export const known = JSON.parse(readFileSync(0, "utf8"));

export function mac({ algorithm, material }, bytes) {
  return createHmac(algorithm.replace("HMAC_SHA_", "sha"), Buffer.from(material, "hex")).update(bytes).digest();
}

export function hex(bytes) {
  return Buffer.from(bytes).toString("hex");
}

export function same(what, got, expected) {
  told(what, isDeepStrictEqual(got, expected), { expected, got });
}

export function holds(what, met, got) {
  told(what, met, got);
}

export function told(what, good, got) {
  if (!good) console.log(inspect(got, { depth: 5 }));
  console.log(`${good ? "ok" : "FAILED"}\t${what}`);
}

/** Runs the functions one after the other; what breaks one off is a failure. */
export async function run(parts) {
  for (const part of parts) {
    try {
      await part();
    } catch (fault) {
      told(`${part.name} comes to its end`, false, fault);
    }
  }
}

/** The version of a package beside this file. */
export function version(name) {
  return JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8")).version;
}
