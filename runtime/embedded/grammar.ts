import {
  LlamaGrammarEvaluationState,
  type GbnfJsonSchema,
  type Llama,
  type LlamaGrammar,
  type LlamaModel,
} from "node-llama-cpp";
import { PenstockError } from "../contracts/errors.ts";

/** The end that node-llama-cpp puts behind its JSON: four line breaks, as a sign to stop. Ours ends with the value. */
const stopSign = String.raw` "\n\n\n\n" [\n]*`;
/** An integer with an exponent (1e-3) need not be one. */
const integerExponent = /^(integer-number-rule ::= .*?) \(\[eE\].*$/m;

/** A grammar text (GBNF) that forces a JSON value of `schema`, then `close`. */
export async function jsonGrammar(llama: Llama, schema: GbnfJsonSchema, close = ""): Promise<LlamaGrammar> {
  try {
    // The parameter's type wants a literal schema to derive a type from; ours comes from a request.
    const { grammar } = await llama.createGrammarForJsonSchema(schema as { readonly type: "null" });
    const [first = "", ...rules] = grammar.split("\n");
    const value = first.replace(/^root/, "json-value").replace(stopSign, "");
    const root = close === "" ? "root ::= json-value" : `root ::= [ \\n]? json-value [ \\n]? ${JSON.stringify(close)}`;
    const text = [root, value, ...rules].join("\n").replace(integerExponent, "$1");
    return await llama.createGrammar({ grammar: text });
  } catch (cause) {
    throw new PenstockError("unsupported", "This JSON schema is too deep or too large to be forced by a grammar.", {
      cause,
    });
  }
}

/** A fresh state of `grammar` for one text. */
export function grammarState(model: LlamaModel, grammar: LlamaGrammar): LlamaGrammarEvaluationState {
  return new LlamaGrammarEvaluationState({ model, grammar });
}
