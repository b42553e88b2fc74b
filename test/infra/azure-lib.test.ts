import { array, assert, property, string } from "fast-check";
import { describe, expect, test } from "vitest";
import { partOfRange } from "../../infra/lib/cidr.ts";
import { limitedName, shortHash, uuidOf } from "../../infra/lib/names.ts";

describe("names", () => {
  test("a hash is short, and the same for the same text", () => {
    expect(shortHash("h100-on-demand")).toBe(shortHash("h100-on-demand"));
    expect(shortHash("h100-on-demand")).not.toBe(shortHash("h100-spot"));
    assert(property(string(), (text) => /^[0-9a-z]{6}$/.test(shortHash(text))));
  });

  test("a name within the limit stays; a longer one is cut, and still tells itself from others", () => {
    expect(limitedName("penstock-grafana", 23)).toBe("penstock-grafana");
    const long = limitedName("a-very-long-prefix-grafana", 23);
    expect(long).toMatch(/^a-very-long-pref-[0-9a-z]{6}$/);
    expect(limitedName("a-very-long-prefix-grafanb", 23)).not.toBe(long);
    assert(property(string({ minLength: 1 }), (name) => limitedName(name, 12).length <= 12));
  });

  test("a UUID follows from its parts, in their order", () => {
    const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
    assert(property(array(string()), (parts) => uuid.test(uuidOf(...parts))));
    expect(uuidOf("scope", "who")).toBe(uuidOf("scope", "who"));
    expect(uuidOf("scope", "who")).not.toBe(uuidOf("who", "scope"));
    expect(uuidOf("ab", "c")).not.toBe(uuidOf("a", "bc"));
  });
});

describe("ranges", () => {
  test.each([
    ["10.40.0.0/16", { prefixLength: 17, index: 0 }, "10.40.0.0/17"],
    ["10.40.0.0/16", { prefixLength: 24, index: 128 }, "10.40.128.0/24"],
    ["10.40.0.0/16", { prefixLength: 24, index: 255 }, "10.40.255.0/24"],
    ["192.168.16.0/20", { prefixLength: 28, index: 129 }, "192.168.24.16/28"],
    ["10.40.7.9/16", { prefixLength: 24, index: 1 }, "10.40.1.0/24"],
    ["255.255.255.0/24", { prefixLength: 32, index: 255 }, "255.255.255.255/32"],
    ["0.0.0.0/0", { prefixLength: 1, index: 1 }, "128.0.0.0/1"],
  ])("of %s the part %o is %s", (cidr, part, range) => {
    expect(partOfRange(cidr, part)).toBe(range);
  });

  test.each([
    ["10.40.0.0/24", 33, 0],
    ["10.40.0.0/16", 24, 256],
    ["10.40.0.0/16", 8, 1],
    ["10.40.0.300/16", 24, 0],
    ["10.40.0.0", 24, 0],
  ])("%s has no part of size /%i, number %i", (cidr, prefixLength, index) => {
    expect(() => partOfRange(cidr, { prefixLength, index })).toThrow(RangeError);
  });

  test("parts of a range do not overlap", () => {
    const starts = Array.from({ length: 256 }, (_, index) => partOfRange("10.0.0.0/16", { prefixLength: 24, index }));
    expect(new Set(starts).size).toBe(256);
  });
});
