/** How a tensor type packs its elements. */
export interface TensorType {
  readonly blockElements: number;
  readonly blockBytes: number;
}

const one = (blockBytes: number): TensorType => ({ blockElements: 1, blockBytes });
const of32 = (blockBytes: number): TensorType => ({ blockElements: 32, blockBytes });
const of256 = (blockBytes: number): TensorType => ({ blockElements: 256, blockBytes });

/** `enum ggml_type` -> block sizes, from ggml-common.h and ggml.c. Missing numbers are types that ggml has removed. */
export const tensorTypes: ReadonlyMap<number, TensorType> = new Map([
  [0, one(4)], // F32
  [1, one(2)], // F16
  [2, of32(18)], // Q4_0
  [3, of32(20)], // Q4_1
  [6, of32(22)], // Q5_0
  [7, of32(24)], // Q5_1
  [8, of32(34)], // Q8_0
  [9, of32(36)], // Q8_1
  [10, of256(84)], // Q2_K
  [11, of256(110)], // Q3_K
  [12, of256(144)], // Q4_K
  [13, of256(176)], // Q5_K
  [14, of256(210)], // Q6_K
  [15, of256(292)], // Q8_K
  [16, of256(66)], // IQ2_XXS
  [17, of256(74)], // IQ2_XS
  [18, of256(98)], // IQ3_XXS
  [19, of256(50)], // IQ1_S
  [20, of32(18)], // IQ4_NL
  [21, of256(110)], // IQ3_S
  [22, of256(82)], // IQ2_S
  [23, of256(136)], // IQ4_XS
  [24, one(1)], // I8
  [25, one(2)], // I16
  [26, one(4)], // I32
  [27, one(8)], // I64
  [28, one(8)], // F64
  [29, of256(56)], // IQ1_M
  [30, one(2)], // BF16
  [34, of256(54)], // TQ1_0
  [35, of256(66)], // TQ2_0
  [39, of32(17)], // MXFP4
]);
