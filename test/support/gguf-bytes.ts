import { assembleGguf, text, type GgufParts } from "../../runtime/demo/gguf.ts";

/** A GGUF file from its encoded parts; by default one small F32 tensor with `data` as its content. */
export function gguf(parts: Partial<GgufParts> = {}): Buffer {
  const { data = Buffer.alloc(64, 1) } = parts;
  return assembleGguf({
    pairs: [["general.architecture", 8, text("llama")]],
    tensors: [{ name: "t", dimensions: [data.length / 4], type: 0, offset: 0 }],
    data,
    ...parts,
  });
}
