import type { Context } from "hono";
import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import type { NodeEnv } from "../../lib/serve.ts";
import type { Engine } from "../engine.ts";
import { adapterName } from "../options.ts";
import { readRequest } from "./request.ts";

/** When this process began to offer its model, in seconds of Unix time. */
const created = Math.floor(Date.now() / 1000);

/** `GET /v1/models`: the model, and each adapter as `model:adapter`. */
export function listModels(c: Context<NodeEnv>, engine: Engine): Response {
  return c.json({ object: "list", data: modelCards(engine) });
}

/** `GET /v1/models/{id}`. The id may contain slashes. */
export function showModel(c: Context<NodeEnv>, engine: Engine): Response {
  const id = decoded(c.req.path.slice("/v1/models/".length));
  const card = modelCards(engine).find((model) => model.id === id);
  if (card === undefined) {
    throw new PenstockError("model_not_found", `The model \`${id}\` is not served here.`, { param: "model" });
  }
  return c.json(card);
}

/** A path's text; as it stands when its escapes are broken, since no model has such a name. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function modelCards(engine: Engine) {
  const base = engine.options.servedModelName;
  const { contextTokens, contexts } = engine.serving();
  const card = (id: string, parent: string | null) => ({
    id,
    object: "model",
    created,
    owned_by: "penstock",
    max_model_len: contextTokens,
    parent,
  });
  return [card(base, null), ...contexts.adapterNames.map((name) => card(`${base}:${name}`, base))];
}

const loadRequest = z.looseObject({ lora_name: adapterName, lora_path: z.string().min(1) });
const unloadRequest = z.looseObject({ lora_name: adapterName });

/** `POST /v1/load_lora_adapter`, in vLLM's shape. */
export async function loadAdapter(c: Context<NodeEnv>, engine: Engine): Promise<Response> {
  const { contexts } = engine.serving();
  const { lora_name: name, lora_path: path } = await readRequest(c, loadRequest);
  await contexts.load({ name, path });
  return c.text(`Success: LoRA adapter '${name}' added successfully.`);
}

/** `POST /v1/unload_lora_adapter`, in vLLM's shape. */
export async function unloadAdapter(c: Context<NodeEnv>, engine: Engine): Promise<Response> {
  const { contexts } = engine.serving();
  const { lora_name: name } = await readRequest(c, unloadRequest);
  await contexts.unload(name);
  return c.text(`Success: LoRA adapter '${name}' removed successfully.`);
}
