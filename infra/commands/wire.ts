/** Pulumi's marks of a secret on the wire. */
const signatureKey = "4dabf18193072939515e22adb298388d";
const secretSignature = "1b47061264138c4ac30d75fd1eb44270";

/** A resource's inputs as Pulumi's mocks hand them over, with secrets as their plain values. */
export function plainInputs(inputs: unknown): Record<string, unknown> {
  return recordOf(unwrapped(inputs));
}

/** An object's own entries; none for anything else. */
export function recordOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

/** Whether an object on the wire is a secret around a value. */
export function isSecret(value: unknown): boolean {
  return recordOf(value)[signatureKey] === secretSignature;
}

function unwrapped(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(unwrapped);
  if (typeof value !== "object" || value === null) return value;
  if (isSecret(value)) return unwrapped(recordOf(value)["value"]);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unwrapped(inner)]));
}
