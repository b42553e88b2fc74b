import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AddressList, plainAddress } from "../../runtime/gateway/identity/addresses.ts";
import { clientAddress, type ProxyTrust } from "../../runtime/gateway/identity/client-address.ts";

const trustedProxies = new AddressList(["10.0.0.0/8", "fd00::/8", "127.0.0.1"]);
const forwardedFor: ProxyTrust = { trustedProxies, header: "x-forwarded-for" };
const forwarded: ProxyTrust = { trustedProxies, header: "forwarded" };

describe("the address of a client", () => {
  it.each([
    { through: "no proxy", socket: "203.0.113.9", header: undefined, expected: "203.0.113.9" },
    {
      through: "a stranger that claims to be a proxy",
      socket: "203.0.113.9",
      header: "192.0.2.1",
      expected: "203.0.113.9",
    },
    { through: "one proxy", socket: "10.0.0.1", header: "192.0.2.1", expected: "192.0.2.1" },
    {
      through: "a proxy on a dual-stack socket",
      socket: "::ffff:10.0.0.1",
      header: "192.0.2.1",
      expected: "192.0.2.1",
    },
    { through: "two proxies", socket: "10.0.0.1", header: "192.0.2.1, 10.0.0.2", expected: "192.0.2.1" },
    {
      through: "a client that made up an entry",
      socket: "10.0.0.1",
      header: "10.9.9.9, 192.0.2.1",
      expected: "192.0.2.1",
    },
    { through: "ports", socket: "10.0.0.1", header: "192.0.2.1:4711, [fd00::2]:80", expected: "192.0.2.1" },
    { through: "IPv6", socket: "fd00::1", header: "2001:db8::7", expected: "2001:db8::7" },
    { through: "only proxies", socket: "10.0.0.1", header: "10.0.0.3, 10.0.0.2", expected: "10.0.0.3" },
    { through: "a proxy that says nothing", socket: "10.0.0.1", header: undefined, expected: "10.0.0.1" },
    {
      through: "a proxy that says nothing useful",
      socket: "10.0.0.1",
      header: "192.0.2.1, unknown",
      expected: undefined,
    },
    { through: "an empty last entry", socket: "10.0.0.1", header: "192.0.2.1,", expected: undefined },
    { through: "a socket that is gone", socket: undefined, header: "192.0.2.1", expected: undefined },
  ])("through $through", ({ socket, header, expected }) => {
    expect(clientAddress(socket, { "x-forwarded-for": header }, forwardedFor)).toBe(expected);
  });

  it.each([
    ["for=192.0.2.1", "192.0.2.1"],
    ['proto=https;FOR="[2001:db8::7]:4711";by=10.0.0.1', "2001:db8::7"],
    ["for=10.9.9.9, for=192.0.2.1;proto=http, for=10.0.0.2", "192.0.2.1"],
    ["for=_hidden", undefined],
    ["proto=https", undefined],
  ])("by Forwarded: %s", (header, expected) => {
    expect(clientAddress("10.0.0.1", { forwarded: header }, forwarded)).toBe(expected);
  });

  it("comes from the one header that the proxies write", () => {
    const headers = { forwarded: "for=192.0.2.66", "x-forwarded-for": "192.0.2.1" };
    expect(clientAddress("10.0.0.1", headers, forwardedFor)).toBe("192.0.2.1");
    expect(clientAddress("10.0.0.1", headers, forwarded)).toBe("192.0.2.66");
  });

  it("is never what stands left of the address that the last proxy saw", () => {
    const untrusted = fc.ipV4().filter((address) => !trustedProxies.has(address));
    fc.assert(
      fc.property(fc.array(fc.string()), untrusted, (madeUp, seen) => {
        const headers = { "x-forwarded-for": [...madeUp, seen, "10.0.0.2"].join(", ") };
        expect(clientAddress("10.0.0.1", headers, forwardedFor)).toBe(seen);
      }),
    );
  });
});

describe("address lists", () => {
  it.each([
    "300.1.1.1",
    "10.0.0.0/33",
    "::/129",
    "10.0.0.0/",
    "10.0.0.0/8/8",
    "1.2.3",
    "::ffff:10.0.0.0/90",
    "fe80::1%eth0",
  ])("refuse %s", (range) => {
    expect(() => new AddressList([range])).toThrow(/no IP address or range/);
    expect(AddressList.lenient([range]).has("10.0.0.1")).toBe(false);
  });

  it.each([
    ["0.0.0.0/0", "8.8.8.8", true],
    ["0.0.0.0/0", "2001:db8::1", false],
    ["::/0", "2001:db8::1", true],
    ["::ffff:10.0.0.0/104", "10.200.0.1", true],
    ["::ffff:10.0.0.0/104", "11.0.0.1", false],
    ["fe80::/10", "fe80::1%eth0", true],
    ["10.0.0.1/32", "10.0.0.1", true],
    ["10.0.0.1/32", "10.0.0.2", false],
  ])("%s has %s: %s", (range, address, expected) => {
    expect(new AddressList([range]).has(address)).toBe(expected);
  });

  it("agree with arithmetic on IPv4", () => {
    const bits = (address: string) => address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
    fc.assert(
      fc.property(fc.ipV4(), fc.ipV4(), fc.integer({ min: 1, max: 32 }), (base, address, prefix) => {
        const size = 2 ** (32 - prefix);
        const expected = Math.floor(bits(base) / size) === Math.floor(bits(address) / size);
        expect(new AddressList([`${base}/${prefix}`]).has(address)).toBe(expected);
        expect(new AddressList([`${base}/${prefix}`]).has(`::ffff:${address}`)).toBe(expected);
      }),
    );
  });

  it("read only addresses", () => {
    fc.assert(
      fc.property(
        fc.string(),
        (text) => plainAddress(text) === undefined || /^[\da-f.:]+$/i.test(text.split("%")[0] ?? ""),
      ),
    );
    expect(plainAddress("::FFFF:1.2.3.4")).toBe("1.2.3.4");
  });
});
