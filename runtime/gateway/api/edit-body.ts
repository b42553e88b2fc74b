import { parseJson } from "../../contracts/validate.ts";

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

const modelName = Buffer.from('"model"');
/** How any letter of that name would begin if a client wrote it as an escape, which no encoder does. */
const escapedLetter = Buffer.from("\\u006");

/**
 * The same JSON object, whose field `model` says `from`, with `to` in its place. Where the name `model` stands in it once,
 * as in nearly all, nothing else is read or written: a long conversation would take as long as all else that is done to it.
 */
export function renameModel(body: Buffer, from: string, to: string): Buffer {
  const at = body.indexOf(modelName);
  if (at !== -1 && at === body.lastIndexOf(modelName) && !body.includes(escapedLetter)) {
    const start = skip(body, at + modelName.length);
    const said = Buffer.from(JSON.stringify(from));
    const isThere = start !== -1 && body.compare(said, 0, said.length, start, start + said.length) === 0;
    if (isThere) {
      return Buffer.concat([
        body.subarray(0, start),
        Buffer.from(JSON.stringify(to)),
        body.subarray(start + said.length),
      ]);
    }
  }
  return editBody(body, parseJson(body) as Readonly<Record<string, unknown>>, { model: to }); // it was an object before
}

/** Where the value begins whose name ends at `at`; -1 when that is no name. */
function skip(body: Buffer, at: number): number {
  const colon = afterSpace(body, at);
  return body[colon] === 0x3a ? afterSpace(body, colon + 1) : -1;
}

function afterSpace(body: Buffer, at: number): number {
  let after = at;
  for (let byte = body[after]; byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d; byte = body[after]) {
    after += 1;
  }
  return after;
}
