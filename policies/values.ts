/*
 * Properties of planned resources: JSON in which some values are not known before the update. A rule reads them here, value
 * by value, so that one unknown name does not keep it from judging everything else.
 */

/** Stands for a value that only the update knows. */
export const notKnown = Symbol("not known before the update");

/** How Pulumi marks unknown values on the wire, one mark for each type (@pulumi/policy, proxy.js). */
const marks: ReadonlySet<unknown> = new Set([
  "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
  "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
  "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
  "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
  "030794c1-ac77-496b-92df-f27374a8bd58",
  "e48ece36-62e2-4504-bad9-02848725956a",
  "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
]);

/** A deep copy in which what is unknown is `notKnown`: the policy SDK throws where one reads it, mocks mark it. */
export function plainValue(value: unknown): unknown {
  if (marks.has(value)) return notKnown;
  if (typeof value !== "object" || value === null) return value;
  const read = (key: string | number): unknown => {
    try {
      return plainValue(Reflect.get(value, key));
    } catch {
      return notKnown;
    }
  };
  if (Array.isArray(value)) return Array.from({ length: value.length }, (_, index) => read(index));
  if ("__pulumiUnknown" in value) return notKnown;
  return Object.fromEntries(Object.keys(value).map((key) => [key, read(key)]));
}

/** Properties of one resource. */
export function plainProperties(value: unknown): Readonly<Record<string, unknown>> {
  return recordOf(plainValue(value));
}

/** What is at a path such as `spec.template.spec`; undefined where a step is missing, `notKnown` below what is unknown. */
export function at(value: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((inner, key) => {
    if (inner === notKnown) return notKnown;
    return typeof inner === "object" && inner !== null ? Reflect.get(inner, key) : undefined;
  }, value);
}

/** A list at a path; empty where there is none. */
export function list(value: unknown, path: string): readonly unknown[] {
  const found = at(value, path);
  return Array.isArray(found) ? found : [];
}

/** An object's own entries; none for anything else. */
export function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

/** A value as a sentence names it. */
export function said(value: unknown): string {
  if (value === notKnown) return "not known before the update";
  return value === undefined ? "not set" : JSON.stringify(value);
}

/** The problem with a value that is none of those it may be, the first of which is the one to write; else none. */
export function mustBe(value: unknown, path: string, ...right: readonly [unknown, ...unknown[]]): string[] {
  const found = at(value, path);
  return right.includes(found) ? [] : [`${path} is ${said(found)}; it must be ${said(right[0])}`];
}
