import { BlockList, isIP } from "node:net";
import { PenstockError } from "../../contracts/errors.ts";

/** An IPv4 address in its IPv6 spelling, as a socket that listens on `::` reports it. */
const mappedIpv4 = /^::ffff:(\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})$/i;
const mappedPrefixBits = 96;

/** `address` without zone and with mapped IPv4 as IPv4; undefined when it is no IP address. */
export function plainAddress(address: string): string | undefined {
  const zoneless = address.split("%", 1)[0] ?? "";
  const plain = mappedIpv4.exec(zoneless)?.[1] ?? zoneless;
  return isIP(plain) === 0 ? undefined : plain;
}

/** A set of IP addresses and ranges. */
export class AddressList {
  readonly #list = new BlockList();
  #isEmpty = true;

  /** Throws `invalid_config` that names the first range that is none. */
  constructor(ranges: readonly string[]) {
    for (const range of ranges) {
      if (!this.#add(range)) {
        throw new PenstockError("invalid_config", `\`${range}\` is no IP address or range such as 10.0.0.0/8.`);
      }
    }
  }

  /** A list from a record that cannot be refused any more: what is no range allows nothing. */
  static lenient(ranges: readonly string[]): AddressList {
    const list = new AddressList([]);
    for (const range of ranges) list.#add(range);
    return list;
  }

  /** Whether a list can be made of it. */
  static isRange(this: void, range: string): boolean {
    return new AddressList([]).#add(range);
  }

  has(address: string): boolean {
    // Most gateways have no proxy in front, and asking a list makes an object outside of JavaScript's heap.
    if (this.#isEmpty) return false;
    const plain = plainAddress(address);
    return plain !== undefined && this.#list.check(plain, family(plain));
  }

  #add(range: string): boolean {
    const [base = "", bits, ...rest] = range.split("/");
    const address = plainAddress(base);
    if (address === undefined || base.includes("%") || rest.length > 0) return false;
    if (bits === undefined) {
      this.#list.addAddress(address, family(address));
      this.#isEmpty = false;
      return true;
    }
    const wasMapped = address !== base && isIP(base) === 6;
    const prefix = Number(bits) - (wasMapped ? mappedPrefixBits : 0);
    if (!/^\d{1,3}$/.test(bits) || prefix < 0 || prefix > (isIP(address) === 4 ? 32 : 128)) return false;
    this.#list.addSubnet(address, prefix, family(address));
    this.#isEmpty = false;
    return true;
  }
}

function family(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 4 ? "ipv4" : "ipv6";
}
