import type { z } from "zod";
import { PenstockError } from "./errors.ts";

/** A path of zod in the spelling that OpenAI's `param` has: `messages[0].content`. */
export function fieldPath(path: readonly PropertyKey[]): string {
  return path
    .map((part, index) => (typeof part === "number" ? `[${part}]` : `${index === 0 ? "" : "."}${String(part)}`))
    .join("");
}

/** Every problem of `error`, a line each: `fleets[0].pool: reason`. */
export function problemLines(error: z.ZodError): string[] {
  return error.issues.map((issue) => `${fieldPath(issue.path) || "(top level)"}: ${issue.message}`);
}

/**
 * Checks a request body against `schema`.
 * Throws `invalid_value` (or `missing_field`) that names the first wrong field as `param`.
 */
export function parseRequest<Schema extends z.ZodType>(schema: Schema, body: unknown): z.infer<Schema> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const param = issue === undefined ? "" : fieldPath(issue.path);
  const missing = issue?.code === "invalid_type" && issue.message.endsWith("received undefined") && param !== "";
  const message = missing
    ? `\`${param}\` is required.`
    : `\`${param || "body"}\`: ${issue?.message ?? "is not valid"}.`;
  throw new PenstockError(missing ? "missing_field" : "invalid_value", message, param === "" ? {} : { param });
}

/** Made once: a decoder takes longer to make than to use. */
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Parses JSON bytes that came from outside. Throws `invalid_json` that names where it broke, never the content. */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(utf8.decode(bytes));
  } catch (cause) {
    const where = /position \d+/.exec(cause instanceof Error ? cause.message : "")?.[0];
    throw new PenstockError(
      "invalid_json",
      `The body is not JSON${where === undefined ? "" : ` (at ${where})`}; send a JSON object in UTF-8.`,
      { cause },
    );
  }
}
