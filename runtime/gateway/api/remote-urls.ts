import { PenstockError } from "../../contracts/errors.ts";
import { fieldPath } from "../../contracts/validate.ts";

/** Where content with addresses in it may stand in a body of any endpoint. */
const holders = [
  "messages",
  "input",
  "system",
  "tools",
  "mcp_servers",
  "query",
  "documents",
  "queries",
  "text_1",
  "text_2",
];

/** Content within content deeper than this does not exist in any of the APIs. */
const maxDepth = 8;

interface Found {
  readonly url: string;
  readonly path: readonly PropertyKey[];
}

/**
 * Refuses a body that would make an engine fetch something: an image, a sound, a file, a tool server. `data:` addresses
 * hold the content themselves and pass; `https:` and `http:` pass for the hosts of `allowedHosts`, where `.example.org`
 * stands for every host below it. Throws `invalid_value` with `param`.
 */
export function refuseRemoteUrls(body: Readonly<Record<string, unknown>>, allowedHosts: readonly string[]): void {
  for (const holder of holders) {
    const value = body[holder];
    if (typeof value !== "object" || value === null) continue;
    for (const found of urlsIn(value, [holder], 0)) check(found, allowedHosts);
  }
}

/**
 * Addresses in a message or a part: values of fields that end in `url`, those of `source`, and whatever stands in
 * `content` and `output`. What a tool is called with is data, never fetched, so its arguments are not looked at.
 */
function* urlsIn(value: object, path: readonly PropertyKey[], depth: number): Generator<Found> {
  if (depth > maxDepth) {
    throw new PenstockError("invalid_value", `\`${fieldPath(path)}\` is nested too deeply.`, {
      param: fieldPath(path),
    });
  }
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) if (isObject(item)) yield* urlsIn(item, [...path, index], depth + 1);
    return;
  }
  for (const [key, inner] of Object.entries(value) as [string, unknown][]) {
    const here = [...path, key];
    if (/url$/i.test(key) && typeof inner === "string") yield { url: inner, path: here };
    else if (isObject(inner) && (/url$/i.test(key) || nested.has(key))) yield* urlsIn(inner, here, depth + 1);
  }
}

/** Fields of a message or part that hold further parts. */
const nested: ReadonlySet<string> = new Set(["content", "output", "source", "file", "input_audio"]);

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function check({ url, path }: Found, allowedHosts: readonly string[]): void {
  if (/^data:/i.test(url)) return;
  const parsed = URL.canParse(url) ? new URL(url) : null;
  const isWeb = parsed?.protocol === "https:" || parsed?.protocol === "http:";
  // A user part is how one host is dressed up as another.
  const plain = parsed !== null && parsed.username === "" && parsed.password === "";
  if (isWeb && plain && allowedHosts.some((allowed) => covers(allowed, parsed.hostname))) return;
  const param = fieldPath(path);
  throw new PenstockError(
    "invalid_value",
    `\`${param}\`: nothing is fetched from there; send the content itself as a \`data:\` URL.`,
    { param },
  );
}

function covers(allowed: string, host: string): boolean {
  return allowed.startsWith(".") ? host.endsWith(allowed) : host === allowed;
}
