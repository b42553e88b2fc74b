import { defineConfig, type OxlintOverride } from "oxlint";
import { rooms, type Room } from "./rooms.config.ts";

const roomNames = Object.keys(rooms) as Room[]; // the keys of a constant table

/** How a file of `room` may write the way to `other`: neighbours leave out the folder that they share. */
function spellings(room: Room, other: Room): string[] {
  const [house, name] = other.split("/");
  return name !== undefined && room.startsWith(`${house}/`) ? [other, name] : [other];
}

/** Every relative import that climbs out of `room` into a room that the table does not allow. */
function boundary(room: Room): OxlintOverride {
  const allowed: readonly string[] = rooms[room];
  const forbidden = roomNames.filter((other) => other !== room && !allowed.includes(other));
  return {
    files: [`${room}/**/*.ts`],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            ...forbidden.map((other) => ({
              regex: `^(\\.\\./)+(${spellings(room, other).join("|")})/`,
              message: `${room} may not import ${other}: see the import table in rooms.config.ts.`,
            })),
            { regex: "^(\\.\\./)+test/", message: "Product code may not import tests." },
          ],
        },
      ],
    },
  };
}

export default defineConfig({
  plugins: ["typescript", "unicorn", "oxc", "import", "promise", "node", "vitest"],
  options: { typeAware: true, reportUnusedDisableDirectives: "error" },
  categories: { correctness: "error", suspicious: "error", perf: "error" },
  ignorePatterns: ["node_modules", "runtime/demo/.work"],
  rules: {
    "typescript/no-explicit-any": "error",
    "typescript/no-floating-promises": "error",
    "typescript/no-misused-promises": "error",
    "typescript/switch-exhaustiveness-check": "error",
    "typescript/consistent-type-imports": "error",
    "typescript/no-non-null-assertion": "error",
    // A promise that is returned unawaited outlives the `using` and the `try` around it.
    "typescript/return-await": ["error", "error-handling-correctness-only"],
    "typescript/restrict-template-expressions": "error",
    "import/no-cycle": "error",
    "import/no-default-export": "error",
    "max-params": ["error", { max: 3 }],
    "max-lines": ["error", { max: 300 }],
    "max-lines-per-function": ["error", { max: 50, skipComments: true, skipBlankLines: true }],
    eqeqeq: "error",
    "no-var": "error",
    "prefer-const": "error",
    // A narrowing `as` carries a comment instead (CONTRIBUTING.md): it stands only where a guard would repeat a schema.
    "typescript/no-unsafe-type-assertion": "off",
    // `using _place` holds something until the block ends and is never read.
    "no-underscore-dangle": "off",
    // A copy with one field changed is what immutable data looks like.
    "oxc/no-map-spread": "off",
    // Ordered work (one range after another, one test step after another) is what most of these loops mean.
    "no-await-in-loop": "off",
    // Node's streams and processes are event emitters; there is no DOM here.
    "unicorn/prefer-add-event-listener": "off",
  },
  overrides: [
    ...roomNames.map(boundary),
    {
      files: ["test/**/*.ts"],
      rules: {
        "max-lines": ["error", { max: 600 }],
        "max-lines-per-function": "off",
        // What `fetch` says of a lost connection is Node's wording, not ours.
        "vitest/require-to-throw-message": "off",
        "vitest/valid-expect": ["error", { maxArgs: 2 }],
        "vitest/valid-title": "off",
        "unicorn/consistent-function-scoping": "off",
      },
    },
    // Pulumi runs what the program exports by default.
    { files: ["*.config.ts", "infra/index.ts"], rules: { "import/no-default-export": "off" } },
  ],
});
