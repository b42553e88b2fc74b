import { existsSync, statSync } from "node:fs";
import { basename, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { PenstockError } from "../contracts/errors.ts";
import { modelId, sourceUri } from "../contracts/model.ts";
import { logLevels, type LogLevel } from "../lib/log.ts";

/** What `npm start` was asked for. */
export interface LocalOptions {
  readonly stackPath: string;
  /** A model to serve instead of the stack's, as a source URI. */
  readonly modelSource: string | undefined;
  readonly host: string | undefined;
  readonly port: number | undefined;
  readonly logLevel: LogLevel;
}

export const helpText = `Serves a model on this machine behind an OpenAI endpoint.

Usage: npm start -- [options]

  --model <what>       serve this instead of the stack's models: a .gguf file, a folder,
                       hf://org/repo/file.gguf, https://..., az://account/container/path, s3://bucket/path
  --port <port>        port to listen on (stack: gateway.port, 8080); 0 takes a free one
  --host <address>     address to listen on (stack: gateway.host, 127.0.0.1)
  --stack <name|file>  stack file to serve (default: local, which is stacks/Pulumi.local.yaml)
  --log-level <level>  ${logLevels.join(", ")} (default: error)
  --help               this text
  --version            the version

Environment: PENSTOCK_API_KEY replaces the stack's key, PENSTOCK_HOME is the folder for caches (default: .penstock),
HF_TOKEN opens gated models of the Hugging Face hub, HF_ENDPOINT names a mirror of it. az:// takes the usual Azure
identity, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING; s3:// takes the usual AWS credentials.
Ctrl-C drains and stops; twice stops at once.
`;

const repository = fileURLToPath(new URL("../..", import.meta.url));

/** Reads the command line. Throws `invalid_config` that names every wrong option. */
export function parseOptions(argv: readonly string[]): LocalOptions | "help" | "version" {
  const { values, problems } = parseStrictly(argv);
  if (values.help === true) return "help";
  if (values.version === true) return "version";
  const port = values.port === undefined ? undefined : Number(values.port);
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65_535)) {
    problems.push(`--port: ${values.port} is not a port; use a number from 0 to 65535`);
  }
  const logLevel = logLevels.find((level) => level === (values["log-level"] ?? "error"));
  if (logLevel === undefined) problems.push(`--log-level: use one of ${logLevels.join(", ")}`);
  let modelSource: string | undefined;
  try {
    modelSource = values.model === undefined ? undefined : sourceOf(values.model);
  } catch (error) {
    problems.push(error instanceof PenstockError ? error.message : String(error));
  }
  if (problems.length > 0 || logLevel === undefined) {
    throw new PenstockError("invalid_config", `${problems.join("\n")}\nSee npm start -- --help.`);
  }
  return { stackPath: stackPathOf(values.stack ?? "local"), modelSource, host: values.host, port, logLevel };
}

function parseStrictly(argv: readonly string[]) {
  const problems: string[] = [];
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: {
        model: { type: "string" },
        port: { type: "string" },
        host: { type: "string" },
        stack: { type: "string" },
        "log-level": { type: "string" },
        help: { type: "boolean", short: "h" },
        version: { type: "boolean" },
      },
    });
    return { values, problems };
  } catch (error) {
    throw new PenstockError(
      "invalid_config",
      `${error instanceof Error ? error.message : String(error)}\nSee npm start -- --help.`,
      { cause: error },
    );
  }
}

/** A name is stacks/Pulumi.<name>.yaml; anything with a slash or an ending is a path. */
function stackPathOf(nameOrPath: string): string {
  if (/[/\\]|\.ya?ml$/.test(nameOrPath)) return resolve(nameOrPath);
  return resolve(repository, "stacks", `Pulumi.${nameOrPath}.yaml`);
}

/** A path or a URI as a source URI. Throws `source_not_found` when a path leads nowhere. */
export function sourceOf(pathOrUri: string): string {
  if (sourceUri.safeParse(pathOrUri).success) return pathOrUri;
  if (/^[a-z0-9]+:\/\//.test(pathOrUri)) {
    throw new PenstockError(
      "invalid_config",
      `--model: ${pathOrUri} is of an unknown kind; use a path, hf://, https://, az:// or s3://`,
    );
  }
  const path = resolve(pathOrUri);
  if (!existsSync(path)) {
    throw new PenstockError(
      "source_not_found",
      `--model: there is no file or folder ${path}; give the path of a .gguf file, or hf://org/repo/file.gguf`,
    );
  }
  if (statSync(path).isFile() && !path.endsWith(".gguf")) {
    throw new PenstockError("invalid_config", `--model: ${path} is not a .gguf file; convert the model to GGUF first`);
  }
  return pathToFileURL(path).href;
}

/** A model id from the last part of a source: `hf://org/repo/Qwen3-0.6B-Q8_0.gguf` is `Qwen3-0.6B-Q8_0`. */
export function idOf(source: string): string {
  const path = source.replace(/[?#].*$/, "").replace(/\/+$/, "");
  const name = basename(decodeURIComponent(path)).replace(/(-\d{5}-of-\d{5})?\.gguf$/i, "");
  const id = name.replaceAll(/[^A-Za-z0-9._-]+/g, "-").replace(/^\.+/, "");
  return modelId.safeParse(id).success ? id : "model";
}
