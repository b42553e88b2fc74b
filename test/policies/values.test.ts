import { describe, expect, test } from "vitest";
import { at, list, mustBe, notKnown, plainProperties, said } from "../../policies/values.ts";
import { unknownValue } from "../support/pulumi/engine.ts";

/** As the policy SDK hands properties over: reading what is unknown throws. */
const guarded: object = new Proxy(
  { name: unknownValue, rules: ["10.0.0.0/8", unknownValue], open: false },
  {
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      if (value === unknownValue) throw new Error("string value at .name can't be known during preview");
      return value;
    },
  },
);

describe("properties of a planned resource", () => {
  test("what is unknown is marked where it is, and hides nothing beside it", () => {
    const marked = { name: notKnown, rules: ["10.0.0.0/8", notKnown], open: false };
    expect(plainProperties(guarded)).toEqual(marked);
    expect(
      plainProperties({ name: { __pulumiUnknown: true }, rules: ["10.0.0.0/8", unknownValue], open: false }),
    ).toEqual(marked);
    expect(plainProperties("no object")).toEqual({});
  });

  test("is read by paths", () => {
    const properties = plainProperties({ spec: { containers: [{ name: "agent" }], all: unknownValue } });
    expect(at(properties, "spec.containers.0.name")).toBe("agent");
    expect(at(properties, "spec.nothing.here")).toBeUndefined();
    expect(at(properties, "spec.all.below")).toBe(notKnown);
    expect(list(properties, "spec.containers")).toHaveLength(1);
    expect(list(properties, "spec.all")).toEqual([]);
  });

  test("must be one of what is right, and unknown is not", () => {
    const properties = { tls: "1.0", open: notKnown };
    expect(mustBe(properties, "tls", "1.2", "1.3")).toEqual(['tls is "1.0"; it must be "1.2"']);
    expect(mustBe({ tls: "1.3" }, "tls", "1.2", "1.3")).toEqual([]);
    expect(mustBe(properties, "open", false)).toEqual(["open is not known before the update; it must be false"]);
    expect(mustBe(properties, "missing", undefined)).toEqual([]);
    expect(said(undefined)).toBe("not set");
  });
});
