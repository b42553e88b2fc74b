import type { IncomingHttpHeaders } from "node:http";

/** Headers that belong to one connection, and so never travel on (RFC 9110, 7.6.1). */
const hopByHop = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  // Not hop-by-hop, but for this server: its name, and whether it wants the body.
  "host",
  "expect",
] as const;

/** Names of headers that stop here: those of the connection, and `more` in lower case. Made once, used for each request. */
export function stopping(more: readonly string[] = []): ReadonlySet<string> {
  return new Set([...hopByHop, ...more]);
}

/**
 * Headers that may travel on, names in lower case each followed by its value: Node's server and undici take such a list
 * as it is, and a table would be made and taken apart again for each request.
 */
export function forwardedList(headers: IncomingHttpHeaders, stops: ReadonlySet<string>): string[] {
  const kept: string[] = [];
  for (const name in headers) {
    const value = headers[name];
    if (value === undefined || stops.has(name)) continue;
    kept.push(name, typeof value === "string" ? value : value.join(", "));
  }
  return kept;
}

/** A list of names and values as a table. */
export function tableOf(list: readonly string[]): Record<string, string> {
  return Object.fromEntries(list.flatMap((name, at) => (at % 2 === 0 ? [[name, list[at + 1] ?? ""]] : [])));
}
