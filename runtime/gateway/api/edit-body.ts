import { parseJson } from "../../contracts/validate.ts";
import { edited, type Edit } from "../../lib/long-body.ts";

/** A JSON object, and what is changed in it on its way to the engine. */
export interface EditedBody {
  readonly bytes: Buffer;
  /** In order of their place. Empty: `bytes` as they are. */
  readonly edits: readonly Edit[];
}

/** The body with its edits made. */
export function applied({ bytes, edits }: EditedBody): Buffer {
  return edits.length === 0 ? bytes : Buffer.concat([...edited(bytes, edits)]);
}

/**
 * The same JSON object with other values for some of its fields. `fields` are those that it has; their values are not
 * looked at.
 * New fields are put before the closing brace, so that what the client wrote stays as it was, byte for byte, and is
 * not read again. Only a field that is there already costs writing the whole anew.
 */
export function editBody(
  bytes: Buffer,
  fields: Readonly<Record<string, unknown>>,
  changes: Readonly<Record<string, unknown>>,
): EditedBody {
  if (Object.keys(changes).some((name) => Object.hasOwn(fields, name))) return rewritten({ bytes, edits: [] }, changes);
  const added = JSON.stringify(changes).slice(1, -1);
  if (added === "") return { bytes, edits: [] };
  const comma = Object.keys(fields).length === 0 ? "" : ",";
  // The body is a JSON object, so nothing but white space follows its last brace.
  return { bytes, edits: [{ at: bytes.lastIndexOf("}"), removes: 0, adds: Buffer.from(`${comma}${added}`) }] };
}

function rewritten(body: EditedBody, changes: Readonly<Record<string, unknown>>): EditedBody {
  const all = parseJson(applied(body)) as object; // callers know that it is one
  return { bytes: Buffer.from(JSON.stringify({ ...all, ...changes })), edits: [] };
}

const modelName = Buffer.from('"model"');
/** How any letter of that name would begin if a client wrote it as an escape, which no encoder does. */
const escapedLetter = Buffer.from("\\u006");

/**
 * The same JSON object, whose field `model` says `from`, with `to` in its place. Where the name `model` stands in it once,
 * as in nearly all, nothing else is read or written: a long conversation would take as long as all else that is done to it.
 */
export function renameModel(body: EditedBody, from: string, to: string): EditedBody {
  const said = Buffer.from(JSON.stringify(from));
  const at = placeOfModel(body.bytes, said);
  if (at === -1) return rewritten(body, { model: to });
  const rename: Edit = { at, removes: said.length, adds: Buffer.from(JSON.stringify(to)) };
  return { bytes: body.bytes, edits: [rename, ...body.edits].toSorted((one, other) => one.at - other.at) };
}

/** Where `said` stands as the value of `model`; -1 when that takes reading the whole body. */
function placeOfModel(body: Buffer, said: Buffer): number {
  const at = body.indexOf(modelName);
  if (at === -1 || at !== body.lastIndexOf(modelName) || body.includes(escapedLetter)) return -1;
  const start = skip(body, at + modelName.length);
  return start !== -1 && body.compare(said, 0, said.length, start, start + said.length) === 0 ? start : -1;
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
