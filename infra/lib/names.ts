import { createHash } from "node:crypto";

/** A few lower-case letters and digits that stand for a text: the same for the same text, whatever the machine. */
export function shortHash(text: string, length = 6): string {
  const digits = BigInt(`0x${createHash("sha256").update(text).digest("hex")}`).toString(36);
  return digits.slice(-length);
}

/** The name, or where it is longer than `max` characters its beginning and a hash of all of it. */
export function limitedName(name: string, max: number): string {
  if (name.length <= max) return name;
  const hash = shortHash(name);
  return `${name.slice(0, max - hash.length - 1).replace(/-+$/, "")}-${hash}`;
}

/** A UUID that is the same for the same parts (RFC 9562, version 8: its bits are from SHA-256). */
export function uuidOf(...parts: readonly string[]): string {
  const hex = createHash("sha256").update(parts.join("\n")).digest("hex");
  const variant = ((Number.parseInt(hex.slice(16, 17), 16) & 0x3) | 0x8).toString(16);
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `${variant}${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join("-");
}
