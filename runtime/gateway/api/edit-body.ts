/**
 * The same JSON object with other values for some of its fields. `parsed` is what `body` says, and an object.
 * New fields are put before the closing brace, so that what the client wrote stays as it was, byte for byte, and is
 * not read again. Only a field that is there already costs writing the whole anew.
 */
export function editBody(
  body: Buffer,
  parsed: Readonly<Record<string, unknown>>,
  changes: Readonly<Record<string, unknown>>,
): Buffer {
  if (Object.keys(changes).some((name) => Object.hasOwn(parsed, name))) {
    return Buffer.from(JSON.stringify({ ...parsed, ...changes }));
  }
  const added = JSON.stringify(changes).slice(1, -1);
  if (added === "") return body;
  // The body is a JSON object, so nothing but white space follows its last brace.
  const end = body.lastIndexOf("}");
  const comma = Object.keys(parsed).length === 0 ? "" : ",";
  return Buffer.concat([body.subarray(0, end), Buffer.from(`${comma}${added}}`)]);
}
