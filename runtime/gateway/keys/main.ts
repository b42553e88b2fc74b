import { PenstockError, toPenstockError } from "../../contracts/errors.ts";
import { envNames } from "../../contracts/names.ts";
import { openRecordStore, type RecordStoreOptions } from "../stores/index.ts";
import { helpText, parseKeyCommand, type KeyCommand } from "./command.ts";
import { KeyService } from "./key-service.ts";

function storeOf({
  store = process.env[envNames.recordStore],
}: {
  readonly store: string | undefined;
}): RecordStoreOptions {
  if (store === undefined || store === "") {
    throw new PenstockError("invalid_config", `Name the record store with --store or ${envNames.recordStore}.`);
  }
  return /^postgres(ql)?:\/\//.test(store) ? { kind: "postgres", url: store } : { kind: "sqlite", file: store };
}

async function run(command: Extract<KeyCommand, { kind: "act" }>): Promise<void> {
  const options = storeOf(command);
  // A store that cannot be reached fails the command itself.
  await using store = await openRecordStore(options, () => undefined).catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PenstockError("invalid_config", `The record store cannot be opened: ${reason}.`, { cause });
  });
  const { json, text } = await command.act(new KeyService(store));
  process.stdout.write(`${command.json ? JSON.stringify(json, null, 2) : text}\n`);
}

try {
  const command = parseKeyCommand(process.argv.slice(2));
  if (command.kind === "help") process.stdout.write(helpText);
  else await run(command);
} catch (thrown) {
  const error = toPenstockError(thrown);
  const detail = error.code === "internal_error" && error.cause instanceof Error ? `\n${error.cause.stack}` : "";
  process.stderr.write(`keys: ${error.message}${detail}\n`);
  process.exitCode = error.code === "invalid_config" ? 2 : 1;
}
