/** An error that a client sees. Each persona writes it in its own shape. */
export class EngineError extends Error {
  readonly status: number;
  readonly type: string;
  readonly param: string | null;

  constructor(status: number, message: string, details: { type?: string; param?: string } = {}) {
    super(message);
    this.status = status;
    this.type = details.type ?? errorTypes[status] ?? "InternalServerError";
    this.param = details.param ?? null;
  }
}

/** vLLM's names of errors. */
const errorTypes: Readonly<Record<number, string>> = { 400: "BadRequestError", 404: "NotFoundError" };

/** The start failed: what the engine says last. */
export class LoadFailure extends Error {}
