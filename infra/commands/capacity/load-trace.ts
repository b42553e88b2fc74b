import { createReadStream } from "node:fs";
import { basename } from "node:path";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { generated } from "../../capacity/trace/generator.ts";
import { LoadBuilder, type Load } from "../../capacity/trace/load.ts";
import { generatorPrefix, parameters } from "../../capacity/trace/options.ts";
import { TraceParser } from "../../capacity/trace/parse.ts";
import type { TraceRequest } from "../../capacity/trace/requests.ts";
import type { Progress } from "./progress.ts";

/** A line of a trace is never longer: Mooncake's have a few thousand bytes. */
const mostLineBytes = 1 << 20;

interface Options {
  readonly speed: number;
  readonly binsOnly: boolean;
  readonly progress: Progress;
}

/**
 * The load that `--trace` names: a generator, or a file, which is read as a stream. A last line that was torn is left out,
 * and named. Throws `invalid_config`: no such file, a line that cannot be read, times out of order, nothing in it.
 */
export async function loadTrace(trace: string, options: Options): Promise<Load> {
  if (!trace.startsWith(generatorPrefix)) return fromFile(trace, options);
  if (options.speed === 1) return generated(trace, options);
  const { rate } = parameters(trace);
  throw new PenstockError("invalid_config", `--speed is for files; write rate=${rate * options.speed} instead`);
}

async function fromFile(path: string, { speed, progress }: Options): Promise<Load> {
  const parser = new TraceParser(basename(path));
  const builder = new LoadBuilder();
  const gaps: string[] = [];
  for await (const { text, isTorn } of linesOf(path)) {
    const request = isTorn ? lastLine(parser, text, gaps) : parser.read(text);
    if (request === null) continue;
    builder.add({ ...request, atSeconds: request.atSeconds / speed });
    if (builder.requests % 10_000 === 0) progress.note(`${builder.requests} requests read`);
  }
  if (builder.requests === 0) throw new PenstockError("invalid_config", `${basename(path)} has no request in it.`);
  return builder.load(speed === 1 ? path : `${path}, ${speed} times as fast`, { gaps });
}

/** A file that was cut while it was written ends within a line. */
function lastLine(parser: TraceParser, text: string, gaps: string[]): TraceRequest | null {
  try {
    return parser.read(text);
  } catch (error) {
    const isWhole = /(\}|,\d+,\d+)\s*$/.test(text);
    if (isWhole || !(error instanceof PenstockError)) throw error;
    gaps.push(`the last line of the trace is torn and left out (${error.message})`);
    return null;
  }
}

/** Lines of a file; `isTorn`: the last one, without its end. */
async function* linesOf(path: string): AsyncGenerator<{ readonly text: string; readonly isTorn: boolean }> {
  const stream = createReadStream(path, { encoding: "utf8", highWaterMark: 1 << 18 });
  let rest = "";
  try {
    for await (const chunk of stream) {
      const lines = `${rest}${String(chunk)}`.split("\n");
      rest = lines.pop() ?? "";
      for (const text of lines) yield { text, isTorn: false };
      if (rest.length > mostLineBytes) {
        throw new PenstockError("invalid_config", `${basename(path)} has a line of more than 1 MiB: it is no trace.`);
      }
    }
  } catch (error) {
    throw readProblem(path, error);
  }
  if (rest !== "") yield { text: rest, isTorn: true };
}

function readProblem(path: string, error: unknown): unknown {
  if (!(error instanceof Error) || !("code" in error) || error instanceof PenstockError) return error;
  if (error.code === "ENOENT") return new PenstockError("invalid_config", `There is no file ${path}.`);
  if (error.code === "EISDIR") return new PenstockError("invalid_config", `${path} is a folder; name a file.`);
  if (error.code === "EACCES") return new PenstockError("invalid_config", `${path} may not be read.`);
  return error;
}
