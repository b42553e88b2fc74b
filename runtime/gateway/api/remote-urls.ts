import { PenstockError } from "../../contracts/errors.ts";
import { fieldPath } from "../../contracts/validate.ts";
import { isCut } from "./skim-json.ts";

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

/**
 * Refuses a body that would make an engine fetch something: an image, a sound, a file, a tool server. `data:` addresses
 * hold the content themselves and pass; `https:` and `http:` pass for the hosts of `allowedHosts`, where `.example.org`
 * stands for every host below it. Throws `invalid_value` with `param`.
 */
export function refuseRemoteUrls(body: Readonly<Record<string, unknown>>, allowedHosts: readonly string[]): void {
  for (const holder of holders) {
    const value = body[holder];
    if (typeof value !== "object" || value === null) continue;
    refuseIn(value, [holder], allowedHosts);
  }
}

/**
 * Addresses in a message or a part: values of fields that end in `url`, those of `source`, and whatever stands in
 * `content` and `output`. What a tool is called with is data, never fetched, so its arguments are not looked at.
 * `path` is where `value` stands. It is written on while the walk goes down: nearly no body has anything to refuse.
 */
function refuseIn(value: object, path: PropertyKey[], allowedHosts: readonly string[]): void {
  if (path.length > maxDepth + 1) {
    throw new PenstockError("invalid_value", `\`${fieldPath(path)}\` is nested too deeply.`, {
      param: fieldPath(path),
    });
  }
  // By index and by name: a list of all entries is made for each part of each message otherwise.
  if (Array.isArray(value)) {
    const list: readonly unknown[] = value;
    for (let index = 0; index < list.length; index += 1) {
      const inner = list[index];
      path.push(index);
      if (isObject(inner)) refuseIn(inner, path, allowedHosts);
      path.pop();
    }
    return;
  }
  const fields = value as Readonly<Record<string, unknown>>; // it is parsed JSON
  for (const key in fields) {
    const inner = fields[key];
    const isUrl = /url$/i.test(key);
    path.push(key);
    if (isUrl && typeof inner === "string") refuseUrl(inner, path, allowedHosts);
    else if (isObject(inner) && (isUrl || nested.has(key))) refuseIn(inner, path, allowedHosts);
    path.pop();
  }
}

/** Fields of a message or part that hold further parts. */
const nested: ReadonlySet<string> = new Set(["content", "output", "source", "file", "input_audio"]);

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function refuseUrl(url: string, path: readonly PropertyKey[], allowedHosts: readonly string[]): void {
  if (/^data:/i.test(url)) return;
  const parsed = URL.canParse(url) ? new URL(url) : null;
  const isWeb = parsed?.protocol === "https:" || parsed?.protocol === "http:";
  // What was left out may be the host: what stands before an `@` is a user.
  const isWhole = !isCut(url);
  // A user part is how one host is dressed up as another.
  const plain = parsed !== null && parsed.username === "" && parsed.password === "";
  if (isWeb && isWhole && plain && allowedHosts.some((allowed) => covers(allowed, parsed.hostname))) return;
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
