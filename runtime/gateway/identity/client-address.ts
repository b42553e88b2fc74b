import type { IncomingHttpHeaders } from "node:http";
import { plainAddress, type AddressList } from "./addresses.ts";

/** Whom to believe about where a request comes from. */
export interface ProxyTrust {
  /** Proxies of ours. Only what they say about others counts. */
  readonly trustedProxies: AddressList;
  /**
   * The one header that those proxies write. The other is ignored: a proxy passes it on as the client sent it.
   */
  readonly header: "x-forwarded-for" | "forwarded";
}

/**
 * The address that a request comes from: the rightmost one that is no proxy of ours, since everything left of it is
 * the client's own word. Undefined when a proxy of ours names none that can be read (`unknown`, a pseudonym).
 */
export function clientAddress(
  socketAddress: string | undefined,
  headers: IncomingHttpHeaders,
  { trustedProxies, header }: ProxyTrust,
): string | undefined {
  let address = plainAddress(socketAddress ?? "");
  if (address === undefined || !trustedProxies.has(address)) return address;
  const hops = hopsOf(headers[header], header);
  for (let hop = hops.pop(); hop !== undefined; hop = hops.pop()) {
    address = plainAddress(withoutPort(hop));
    if (address === undefined || !trustedProxies.has(address)) return address;
  }
  return address;
}

function hopsOf(value: string | string[] | undefined, header: ProxyTrust["header"]): string[] {
  const text = typeof value === "string" ? value : (value ?? []).join(",");
  if (text.trim() === "") return [];
  const elements = text.split(",");
  return header === "x-forwarded-for" ? elements : elements.map(forNode);
}

/** The `for` parameter of an element of `Forwarded` (RFC 7239, section 4): `for="[2001:db8::1]:80";proto=https`. */
function forNode(element: string): string {
  const parameter = element.split(";").find((part) => /^\s*for=/i.test(part)) ?? "";
  return parameter.replace(/^\s*for=/i, "").replaceAll('"', "");
}

/** `1.2.3.4:80`, `[::1]:80` and `[::1]` without port and brackets. */
function withoutPort(hop: string): string {
  const text = hop.trim();
  return /^\[([^\]]+)\](:\d+)?$/.exec(text)?.[1] ?? /^([\d.]+):\d+$/.exec(text)?.[1] ?? text;
}
