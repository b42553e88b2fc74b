/** A tensor of a test's safetensors file. Its data is zeros, of as many bytes as its type and shape need. */
export interface TestTensor {
  readonly shape: readonly number[];
  readonly dtype?: keyof typeof dtypeBytes;
}

const dtypeBytes = { F32: 4, F16: 2, BF16: 2, I8: 1 } as const;

/** A safetensors file as a writer makes it: tensors one after another, the header padded to 8 bytes with spaces. */
export function safetensors(tensors: Readonly<Record<string, TestTensor>>): Buffer {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const [name, { shape, dtype = "F16" }] of Object.entries(tensors)) {
    const start = end;
    end += shape.reduce((product, length) => product * length, dtypeBytes[dtype]);
    header[name] = { dtype, shape, data_offsets: [start, end] };
  }
  const json = JSON.stringify(header);
  return safetensorsParts(json.padEnd(Math.ceil(json.length / 8) * 8), Buffer.alloc(end));
}

/** A safetensors file from a header's text, which may lie, and its data. */
export function safetensorsParts(header: string | Buffer, data: Buffer = Buffer.alloc(0)): Buffer {
  const json = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, data]);
}
