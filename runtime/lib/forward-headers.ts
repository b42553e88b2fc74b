import type { IncomingHttpHeaders } from "node:http";

/** Headers that belong to one connection, and so never travel on (RFC 9110, 7.6.1). */
const hopByHop = new Set([
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
]);

/** Headers of a request that may travel on; `without` names further ones to leave out, in lower case. */
export function forwardHeaders(headers: IncomingHttpHeaders, without: readonly string[] = []): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const name in headers) {
    const value = headers[name];
    if (value === undefined || hopByHop.has(name) || without.includes(name)) continue;
    kept[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  return kept;
}
