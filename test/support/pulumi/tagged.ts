import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Registered } from "./mocks.ts";

const require = createRequire(import.meta.url);
const known = new Map<string, boolean>();

/**
 * Whether a resource type of Azure or AWS has an input called `tags`: read from the SDK's own declaration, so that no list
 * here can be forgotten. Types look like `azure-native:network:VirtualNetwork` and `aws:ec2/vpc:Vpc`.
 */
export function acceptsTags({ type, custom }: Pick<Registered, "type" | "custom">): boolean {
  const [cloud = "", module = "", name = ""] = type.split(":");
  if (!custom || !["azure-native", "aws"].includes(cloud)) return false;
  const before = known.get(type);
  if (before !== undefined) return before;
  const folder = dirname(require.resolve(`@pulumi/${cloud}/package.json`));
  const file = cloud === "aws" ? module : `${module}/${name.charAt(0).toLowerCase()}${name.slice(1)}`;
  const declaration = readFileSync(join(folder, `${file}.d.ts`), "utf8");
  const found = new RegExp(`export interface ${name}Args \\{[^]*?\\n    tags\\?:`).test(declaration);
  known.set(type, found);
  return found;
}
