import { pino, type Logger } from "pino";

export type { Logger };

/** Levels of `--log-level`, from the quietest to the loudest. */
export const logLevels = ["silent", "error", "warn", "info", "debug", "trace"] as const;
export type LogLevel = (typeof logLevels)[number];

/** A structured log (a JSON object a line) on stderr. Credentials are removed wherever they stand. */
export function createLog(name: string, level: LogLevel): Logger {
  return pino(
    {
      name,
      level,
      redact: ["authorization", "*.authorization", "apiKey", "*.apiKey", "token", "*.token", "headers.cookie"],
    },
    // Synchronous, so that the last lines before an exit are not lost.
    pino.destination({ dest: 2, sync: true }),
  );
}
