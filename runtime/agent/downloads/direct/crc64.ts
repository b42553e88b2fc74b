/** CRC-64/NVME as S3 has it (`x-amz-checksum-crc64nvme`): reflected polynomial, all ones before and after. */
const polynomial = 0x9a6c9329ac4bc9b5n;
const ones = 0xffff_ffff_ffff_ffffn;

const slices = 16;
const tableBytes = 256 * 8;

/** Room that the tables of `Crc64` take in its memory. */
export const crc64TableBytes = slices * tableBytes;

type Step = (at: number, end: number, state: bigint) => bigint;

/**
 * Sums bytes where they lie: in a WebAssembly memory, which is also where downloads land. Sixteen bytes a step from tables
 * ("slicing by 16"): 2.2 GB/s on a core over 32 MiB pieces, where the same in JavaScript made 1.0.
 */
export class Crc64 {
  readonly #step: Step;

  /** Writes its tables to `tables`, a multiple of 8; the memory must be a shared one. */
  constructor(memory: WebAssembly.Memory, tables: number) {
    const view = new BigUint64Array(memory.buffer, tables, slices * 256);
    for (let byte = 0; byte < 256; byte += 1) {
      let state = BigInt(byte);
      for (let bit = 0; bit < 8; bit += 1) state = (state & 1n) === 1n ? (state >> 1n) ^ polynomial : state >> 1n;
      view[byte] = state;
    }
    for (let at = 256; at < view.length; at += 1) {
      const before = view[at - 256] ?? 0n;
      view[at] = (before >> 8n) ^ (view[Number(before & 0xffn)] ?? 0n);
    }
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(moduleBytes(tables)), { m: { m: memory } });
    this.#step = exports["f"] as Step; // the one export of the module below
  }

  /** The sum of the bytes `at` up to, not including, `end` after `before`, the sum of what came before them. */
  update(before: bigint, at: number, end: number): bigint {
    return BigInt.asUintN(64, this.#step(at, end, before ^ ones)) ^ ones;
  }
}

/** What the sum of `first` followed by `second` is, when `second` is the sum of `bytes` bytes. */
export function combineCrc64(first: bigint, second: bigint, bytes: number): bigint {
  return multiply(shiftOf(bytes), first) ^ second;
}

/** A sum as S3 writes it: base64 of its bytes, the highest first. */
export function crc64Text(sum: bigint): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(sum);
  return bytes.toString("base64");
}

/** Product of two polynomials modulo ours; the highest bit stands for x^0. */
function multiply(left: bigint, right: bigint): bigint {
  let product = 0n;
  let shifted = right;
  for (let bit = 1n << 63n; bit > 0n; bit >>= 1n) {
    if ((left & bit) !== 0n) product ^= shifted;
    shifted = (shifted & 1n) === 1n ? (shifted >> 1n) ^ polynomial : shifted >> 1n;
  }
  return product;
}

/** Blocks of one length are most of what is combined, and a power costs many products. */
let lastShift = { bytes: 0, power: 1n << 63n };

/** x^(8 * bytes) modulo our polynomial. */
function shiftOf(bytes: number): bigint {
  if (lastShift.bytes === bytes) return lastShift.power;
  let power = 1n << 63n;
  let square = 1n << 55n;
  for (let left = bytes; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) power = multiply(square, power);
    square = multiply(square, square);
  }
  lastShift = { bytes, power };
  return power;
}

/** WebAssembly's opcodes that the module uses. */
const op = {
  block: [0x02, 0x40],
  loop: [0x03, 0x40],
  end: [0x0b],
  branch: (depth: number) => [0x0c, depth],
  branchIf: (depth: number) => [0x0d, depth],
  get: (local: number) => [0x20, local],
  set: (local: number) => [0x21, local],
  load32: (offset: number) => [0x28, 0, ...leb(offset)],
  load64: (offset: number) => [0x29, 0, ...leb(offset)],
  load8: [0x2d, 0, 0],
  const32: (value: number) => [0x41, ...signedLeb(value)],
  const64: (value: number) => [0x42, ...signedLeb(value)],
  greater32: [0x4b],
  equal32: [0x46],
  add32: [0x6a],
  and32: [0x71],
  xor32: [0x73],
  shiftLeft32: [0x74],
  shiftRight32: [0x76],
  xor64: [0x85],
  shiftRight64: [0x88],
  wrap: [0xa7],
} as const;

/** The function's locals: its three parameters, and four bytes under way. */
const at = 0;
const end = 1;
const state = 2;
const word = 3;

const code = (...parts: (readonly number[])[]): number[] => parts.flat();

/** Adds (xors) to the sum on the stack what the table at `table` says of byte `lane` of `word`. */
function lookUp(lane: number, table: number): number[] {
  const shift = lane === 0 ? code(op.const32(3), op.shiftLeft32) : code(op.const32(8 * lane - 3), op.shiftRight32);
  return code(op.get(word), shift, op.const32(0x7f8), op.and32, op.load64(table), op.xor64);
}

/** `f(at, end, state)`: sixteen bytes a turn, then one. Words that need no earlier result come first. */
function functionBody(tables: number): number[] {
  const words = [2, 3, 0, 1].flatMap((index) => {
    const high = code(op.get(state), op.const64(32), op.shiftRight64, op.wrap, op.xor32);
    const mix = index === 0 ? code(op.get(state), op.wrap, op.xor32) : index === 1 ? high : [];
    const slice = slices - 1 - 4 * index;
    const lanes = [0, 1, 2, 3].flatMap((lane) => lookUp(lane, tables + (slice - lane) * tableBytes));
    return code(op.get(at), op.load32(4 * index), mix, op.set(word), lanes);
  });
  const step = (bytes: number): number[] => code(op.get(at), op.const32(bytes), op.add32);
  const many = code(
    code(step(slices), op.get(end), op.greater32, op.branchIf(1)),
    code(op.const64(0), words, op.set(state)),
    code(step(slices), op.set(at), op.branch(0)),
  );
  const one = code(
    code(op.get(at), op.get(end), op.equal32, op.branchIf(1)),
    code(op.get(at), op.load8, op.get(state), op.wrap, op.xor32, op.const32(0xff), op.and32, op.set(word)),
    code(op.get(state), op.const64(8), op.shiftRight64, lookUp(0, tables), op.set(state)),
    code(step(1), op.set(at), op.branch(0)),
  );
  const turn = (body: number[]): number[] => code(op.block, op.loop, body, op.end, op.end);
  const oneLocalOfI32 = [1, 1, 0x7f];
  return code(oneLocalOfI32, turn(many), turn(one), op.get(state), op.end);
}

function moduleBytes(tables: number): Uint8Array<ArrayBuffer> {
  const section = (id: number, body: number[]): number[] => code([id], leb(body.length), body);
  const body = functionBody(tables);
  const header = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
  const types = section(1, [1, 0x60, 3, 0x7f, 0x7f, 0x7e, 1, 0x7e]);
  // A shared memory "m"."m" of any length.
  const imports = section(2, code([1, 1, 0x6d, 1, 0x6d, 2, 3, 0], leb(65_536)));
  const functions = section(3, [1, 0]);
  const exported = section(7, [1, 1, 0x66, 0, 0]);
  return Uint8Array.from(
    code(header, types, imports, functions, exported, section(10, code([1], leb(body.length), body))),
  );
}

function leb(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...leb(value >>> 7)];
}

function signedLeb(value: number): number[] {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signedLeb(value >>> 7)];
}
