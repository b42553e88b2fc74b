import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { scoreTable } from "../../runtime/demo/evaluate.ts";
import { evaluateEndpoint, readEvaluation, toolOf, type CaseResult } from "../../runtime/demo/score.ts";

interface Asked {
  readonly path: string;
  readonly key: string | undefined;
  readonly body: { readonly model?: string; readonly temperature?: number; readonly input?: readonly string[] };
}

async function readBody(request: IncomingMessage): Promise<Asked["body"]> {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  return text === "" ? {} : (JSON.parse(text) as Asked["body"]); // what score.ts sends
}

/** An endpoint that answers every chat with `content`, and embeddings by their place. */
async function fakeEndpoint(content: string, vectors: readonly (readonly number[])[]) {
  const asked: Asked[] = [];
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await readBody(request);
    const path = request.url ?? "";
    asked.push({ path, key: request.headers.authorization, body });
    const answers: Record<string, object> = {
      "/v1/models": { data: [{ id: "first" }, { id: "second" }] },
      "/v1/chat/completions": { choices: [{ message: { role: "assistant", content } }] },
      "/v1/embeddings": { data: vectors.map((embedding) => ({ embedding })) },
    };
    response.end(JSON.stringify(answers[path] ?? {}));
  };
  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // a TCP server
  return {
    url: `http://127.0.0.1:${port}/v1`,
    asked,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
  };
}

function passedIn(results: readonly CaseResult[], group: string): number {
  return results.filter((result) => result.group === group && result.passed).length;
}

test("an endpoint that says one thing passes only where that is right", async () => {
  await using endpoint = await fakeEndpoint("The capital of France is Paris.", [
    [1, 0],
    [0.9, 0.1],
    [0, 1],
  ]);
  const card = await evaluateEndpoint({ url: endpoint.url, apiKey: "secret" });
  expect(passedIn(card.results, "facts")).toBe(1);
  expect(passedIn(card.results, "tool-call")).toBe(0);
  expect(passedIn(card.results, "embeddings")).toBe(readEvaluation().embeddings.length);
  expect(card.score).toBeLessThan(0.15);
  expect(endpoint.asked[0]?.path).toBe("/v1/models");
  expect(endpoint.asked[1]).toMatchObject({ key: "Bearer secret", body: { model: "first", temperature: 0 } });
  const table = scoreTable(card);
  expect(table).toContain(
    `all            ${String(card.results.filter(({ passed }) => passed).length).padStart(3)} of`,
  );
  expect(table).toContain('"What is the capital of Japan?" wants "Tokyo", got "The capital of France is Paris."');
});

test("an embedding nearer to the wrong sentence fails", async () => {
  await using endpoint = await fakeEndpoint("", [
    [1, 0],
    [0, 1],
    [0.9, 0.1],
  ]);
  const { results } = await evaluateEndpoint({ url: endpoint.url, model: "named" });
  expect(passedIn(results, "embeddings")).toBe(0);
  expect(endpoint.asked[0]?.body.model).toBe("named");
});

test("nothing at the address is an error, not a score", async () => {
  const { url } = await fakeEndpoint("", []).then(async (endpoint) => {
    await endpoint[Symbol.asyncDispose]();
    return endpoint;
  });
  await expect(evaluateEndpoint({ url })).rejects.toThrow();
});

test("the evaluation has at least 60 cases in many groups, and every pattern is one", () => {
  const { conversations, embeddings, passingScore } = readEvaluation();
  const cases = Object.values(conversations).flat();
  expect(cases.length + embeddings.length).toBeGreaterThanOrEqual(60);
  expect(Object.keys(conversations)).toEqual(
    expect.arrayContaining([
      "smalltalk",
      "several-turns",
      "system-name",
      "recall",
      "tool-call",
      "tool-answer",
      "no-tool",
    ]),
  );
  expect(passingScore).toBeGreaterThan(0.5);
  const patterns = cases.flatMap(({ turns }) => turns.map((turn) => turn.expect ?? ""));
  expect(() => patterns.map((pattern) => new RegExp(pattern))).not.toThrow();
});

test("toolOf reads the short form", () => {
  expect(toolOf("add(a, b)")).toMatchObject({
    function: { name: "add", parameters: { properties: { a: { type: "number" }, b: { type: "number" } } } },
  });
});
