import { readFileSync } from "node:fs";

const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  readonly version: string; // our own package.json
};

/** Version of the product that this engine is part of. */
export const engineVersion = manifest.version;
