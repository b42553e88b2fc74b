import { hash, randomInt } from "node:crypto";

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const idLength = 8;
/** 43 characters of 62 are 256 bits. */
const secretLength = 43;
const form = new RegExp(`^pk-([0-9A-Za-z]{${idLength}})-[0-9A-Za-z]{${secretLength}}$`);

/** A key that was just made. `key` is shown once and kept nowhere. */
export interface NewApiKey {
  readonly id: string;
  /** `pk-<id>`: what lists show. */
  readonly prefix: string;
  /** `pk-<id>-<secret>`. */
  readonly key: string;
  readonly hash: string;
}

export function newApiKey(): NewApiKey {
  const id = randomText(idLength);
  const prefix = keyPrefix(id);
  const key = `${prefix}-${randomText(secretLength)}`;
  return { id, prefix, key, hash: hashOf(key).toString("hex") };
}

/** What lists show of the key with this id. */
export function keyPrefix(id: string): string {
  return `pk-${id}`;
}

/** The id in a key; undefined when `credential` does not have the form of a key. */
export function keyId(credential: string): string | undefined {
  return form.exec(credential)?.[1];
}

/**
 * SHA-256 of a credential. A slow hash protects secrets that can be guessed; one of 256 random bits cannot, and a slow
 * hash for each request would let anyone keep our processors busy.
 */
export function hashOf(credential: string): Buffer {
  // Half of the time that Node takes to answer with a buffer itself.
  return Buffer.from(hash("sha256", credential, "binary"), "latin1");
}

function randomText(length: number): string {
  return Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join("");
}
