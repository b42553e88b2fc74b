import { defineHook, z } from "../hook.ts";

/*
 * Masks e-mail addresses and keys in everything that a client sends, before an engine, the response cache or another hook
 * sees it: `penstock:redact-secrets`.
 */

/** Looks back, so that a long word is tried once and not from each of its letters. */
const mailAddress =
  /(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,24}\b/g;

/** Keys that say what they are; https://docs.github.com/en/code-security/secret-scanning lists their prefixes. */
const keys: readonly RegExp[] = [
  /-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]{0,10000}?-----END [A-Z ]{0,30}PRIVATE KEY-----/g,
  /\beyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{10,2000}/g,
  /\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{20,200}/g,
  /\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{36,255})/g,
  /\b(?:AKIA|ASIA)[0-9A-Z]{16}\b/g,
  /\bAIza[0-9A-Za-z_-]{35}/g,
  /\bxox[abeprs]-[A-Za-z0-9-]{10,250}/g,
];

const expression = z
  .string()
  .min(1)
  .max(1_000)
  .refine(isExpression, "is no regular expression; JavaScript's are meant, such as `ticket-\\d+`");

function isExpression(source: string): boolean {
  try {
    return new RegExp(source, "gu") instanceof RegExp;
  } catch {
    return false;
  }
}

/** Fields whose words are no prompt: a changed name would be another request. */
const untouched: ReadonlySet<string> = new Set(["model", "user", "prompt_cache_key"]);

/** Bodies are no deeper than this, but for schemas of tools. */
const maxDepth = 32;

export const hook = defineHook({
  name: "redact-secrets",
  options: z.strictObject({
    emails: z.boolean().default(true),
    keys: z.boolean().default(true),
    /** Further regular expressions. */
    patterns: z.array(expression).max(100).default([]),
    /** What stands in their place. */
    mask: z.string().max(100).default("[redacted]"),
  }),
  create(options) {
    const masked = [
      ...(options.emails ? [mailAddress] : []),
      ...(options.keys ? keys : []),
      ...options.patterns.map((source) => new RegExp(source, "gu")),
    ];
    const redact = (value: unknown, depth: number): unknown => {
      if (typeof value === "string") {
        // Pictures and sounds in base64 hold no words.
        if (value.startsWith("data:")) return value;
        return masked.reduce((text, pattern) => text.replace(pattern, () => options.mask), value);
      }
      if (typeof value !== "object" || value === null || depth > maxDepth) return value;
      if (Array.isArray(value)) return value.map((item) => redact(item, depth + 1));
      return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, redact(inner, depth + 1)]));
    };
    return {
      before({ body }) {
        if (body === null) return undefined;
        const changed = Object.fromEntries(
          Object.entries(body).map(([name, value]) => [name, untouched.has(name) ? value : redact(value, 0)]),
        );
        return JSON.stringify(changed) === JSON.stringify(body) ? undefined : { body: changed };
      },
    };
  },
});
