import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { envNames } from "../../../runtime/contracts/names.ts";
import { formatBytes } from "../../../runtime/lib/bytes.ts";
import { isProxied } from "../../../runtime/agent/environment.ts";
import { parsed, runCommand } from "../cli.ts";
import { listCache, pushItem, removeItem, verifyItem, type Cache, type Listed, type Outcome } from "./command.ts";
import { chosen, itemsOf, type Item } from "./items.ts";
import { openModelStore } from "./store.ts";

const help = `Fills and looks after the model cache of a stack: Azure Blob Storage or S3.

Usage: npm run model -- COMMAND [MODEL] --stack STACK [options]

  push [MODEL]     copies a model, an adapter (model:adapter) or all of them into the cache: several files and parts at
                   once, with checksums; files that are there already are kept
      --from PLACE   in place of the source in the stack: hf://…, https://…, s3://…, az://…, or a folder
  list             what is in the cache, and what of the stack is not
  verify [MODEL]   reads files again and compares them with their checksums
  rm MODEL         removes a model or adapter from the cache
  shape PLACE      prints a model's shape for the stack file: a folder or hf://… (needs no stack)

  --stack STACK    such as azure-prod for stacks/Pulumi.azure-prod.yaml
  --json           print JSON
  --help

Azure: \`az login\` as somebody with the role Storage Blob Data Contributor, or AZURE_STORAGE_CONNECTION_STRING.
AWS: AWS_PROFILE or another of the SDK's ways. Gated models of the Hugging Face hub: HF_TOKEN.
`;

const { env } = process;
const options = {
  stack: { type: "string" },
  from: { type: "string" },
  json: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
} as const;
