/** One instruction of a Dockerfile, with its lines joined. */
export interface Instruction {
  readonly name: string;
  /** Such as `--from=node`. */
  readonly flags: readonly string[];
  readonly rest: string;
}

export interface Stage {
  readonly name: string;
  /** A stage, or an image, with its ARGs filled in. */
  readonly base: string;
  readonly instructions: readonly Instruction[];
}

/** As far as Docker's syntax is used here: no here-documents, no escape directive. */
export interface Dockerfile {
  /** Defaults of ARGs before the first FROM, filled in. */
  readonly args: ReadonlyMap<string, string>;
  readonly stages: ReadonlyMap<string, Stage>;
}

/** Reads a Dockerfile as it is built with these build args. Throws for a stage without a name and for an unknown ARG. */
export function parseDockerfile(text: string, buildArgs: Readonly<Record<string, string>> = {}): Dockerfile {
  const args = new Map<string, string>();
  const stages = new Map<string, Stage>();
  let current: Instruction[] = [];
  for (const instruction of instructionsOf(text)) {
    if (instruction.name === "FROM") {
      const [base = "", as, name] = instruction.rest.split(/\s+/);
      if (as !== "AS" || name === undefined) throw new Error(`FROM ${instruction.rest}: a stage needs a name`);
      current = [];
      stages.set(name, { name, base: expanded(base, args), instructions: current });
    } else if (stages.size === 0) {
      if (instruction.name !== "ARG") throw new Error(`${instruction.name} before the first FROM`);
      const [name = "", value = ""] = split(instruction.rest);
      args.set(name, buildArgs[name] ?? expanded(value, args));
    } else current.push(instruction);
  }
  return { args, stages };
}

/** The stage and those it stands on, the first of them first. */
export function lineageOf({ stages }: Dockerfile, name: string): Stage[] {
  const stage = stages.get(name);
  return stage === undefined ? [] : [...lineageOf({ stages, args: new Map() }, stage.base), stage];
}

/** Files of the build context that end up in a stage, also by way of other stages: from -> to. */
export function copiedFiles(file: Dockerfile, name: string): (readonly [from: string, to: string])[] {
  return lineageOf(file, name).flatMap(({ instructions }) =>
    instructions
      .filter((each) => each.name === "COPY")
      .flatMap(({ flags, rest }) => {
        const from = flags.find((flag) => flag.startsWith("--from="))?.slice("--from=".length);
        const words = rest.split(/\s+/);
        const to = words.at(-1) ?? "";
        if (from === undefined) return words.slice(0, -1).map((source) => [source, to] as const);
        // Packages and programs come from other stages too; only whole stages hold our own files.
        return words[0] === "/" ? copiedFiles(file, from) : [];
      }),
  );
}

function instructionsOf(text: string): Instruction[] {
  const joined = text
    .split("\n")
    .filter((line) => !/^\s*#/.test(line))
    .join("\n")
    .replaceAll(/\\\n/g, " ");
  return joined
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => {
      const [, name = "", words = ""] = /^(\w+)\s+(.*)$/.exec(line.trim()) ?? [];
      const [flags = ""] = /^(?:--\S+\s+)*/.exec(words) ?? [];
      return { name, flags: flags.trim().split(/\s+/).filter(Boolean), rest: words.slice(flags.length).trim() };
    });
}

function split(assignment: string): string[] {
  const at = assignment.indexOf("=");
  return at === -1 ? [assignment] : [assignment.slice(0, at), assignment.slice(at + 1)];
}

function expanded(value: string, args: ReadonlyMap<string, string>): string {
  return value.replaceAll(/\$\{(\w+)\}/g, (_, name: string) => {
    const known = args.get(name);
    if (known === undefined) throw new Error(`\${${name}} is no ARG`);
    return known;
  });
}
