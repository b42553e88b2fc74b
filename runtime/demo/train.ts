import { spawn } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { exportModel } from "./export.ts";
import { prepare } from "./prepare.ts";

const help = `Makes the demo model: writes its texts, learns its vocabulary, trains it, writes the GGUF file.

Usage: npm run demo:train -- [options]

  --seed N        seed of the texts and of the training (default 1)
  --steps N       steps of 4,096 tokens (default 1900)
  --processes N   processes that learn together, one core each (default 2)
  --texts N       texts to write (default 80000)
  --start FOLDER  go on from the vocabulary and weights of an earlier run's --work folder
  --rate SHARE    share of the usual learning rate, to go on gently (default 1)
  --out FILE      the GGUF file (default runtime/demo/blobs/penstock-demo.gguf)
  --work FOLDER   where intermediate files go (default runtime/demo/.work)
  --python FILE   a Python with PyTorch and NumPy (default python3)
`;

/** Runs train.py with its output on this terminal. Throws when it cannot start or fails. */
function runPython(python: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(python, [join(import.meta.dirname, "train.py"), ...args], { stdio: "inherit" });
    child.once("error", (cause) => reject(new Error(`${python} did not start; it needs torch and numpy`, { cause })));
    child.once("exit", (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`train.py ended with ${code ?? signal}`));
    });
  });
}

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    steps: { type: "string", default: "1900" },
    processes: { type: "string", default: "2" },
    texts: { type: "string", default: "80000" },
    start: { type: "string" },
    rate: { type: "string", default: "1" },
    out: { type: "string", default: join(import.meta.dirname, "blobs/penstock-demo.gguf") },
    work: { type: "string", default: join(import.meta.dirname, ".work") },
    python: { type: "string", default: "python3" },
    help: { type: "boolean", default: false },
  },
});
if (values.help) process.stdout.write(help);
else {
  prepare({ work: values.work, seed: Number(values.seed), texts: Number(values.texts), start: values.start });
  const start = values.start === undefined ? [] : ["--start", values.start];
  const { work, seed, steps, processes, rate } = values;
  const options = { "--work": work, "--seed": seed, "--steps": steps, "--processes": processes, "--rate": rate };
  await runPython(values.python, [...Object.entries(options).flat(), ...start]);
  process.stdout.write(`${values.out}: ${exportModel(values.work, values.out, "Q8_0")} bytes\n`);
}
