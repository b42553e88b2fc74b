import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { hookOptions, type HookOptions } from "../../runtime/contracts/hooks.ts";
import { locateHooks } from "../../runtime/gateway/hooks/options.ts";
import type { GatewayOptions } from "../../runtime/gateway/options.ts";
import type { FakeAgentBehaviour } from "../fakes/agent.ts";
import { temporaryFolder } from "../support/folders.ts";
import { startProgram } from "../support/program.ts";
import { apiKey, answers, chat, gatewayUnderTest, servedModel } from "./support.ts";

const path = "/v1/chat/completions";
const errorBody = z.object({ error: z.looseObject({ message: z.string() }) });
const answered = answers({ id: "a", choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } });

/** A module that exports a hook: what `create` returns stands in `stages`. */
function module(stages: string, { name = "h", options = "z.object({}).loose()" } = {}): string {
  return `import { defineHook, z } from "penstock/hooks";
export const hook = defineHook({ name: "${name}", options: ${options}, create: (options) => (${stages}) });`;
}

interface HookFile {
  readonly source: string;
  /** Of the config, beside the module. */
  readonly entry?: Partial<HookOptions>;
}

/** Hook files in a folder of their own. A generous deadline, for a machine that is busy. */
async function hookFiles(...files: HookFile[]) {
  const folder = await temporaryFolder();
  const write = async (all: readonly HookFile[]) => {
    for (const [at, { source }] of all.entries()) await writeFile(join(folder.path, `hook${at}.ts`), source);
    return all.map(({ entry }, at) =>
      hookOptions.parse({ deadlineMs: 20_000, ...entry, module: join(folder.path, `hook${at}.ts`) }),
    );
  };
  return { folder: folder.path, hooks: await write(files), write, [Symbol.asyncDispose]: folder[Symbol.asyncDispose] };
}

/** A gateway with hooks, and the bodies that its engine got. */
async function hooked(files: readonly HookFile[], options: Partial<GatewayOptions> & FakeAgentBehaviour = {}) {
  const made = await hookFiles(...files);
  const bodies: Record<string, unknown>[] = [];
  const under = await gatewayUnderTest(
    {
      ...options,
      onInfer(incoming, outgoing, body) {
        bodies.push(JSON.parse(body));
        return options.onInfer === undefined
          ? answered(incoming, outgoing, body)
          : options.onInfer(incoming, outgoing, body);
      },
    },
    { ...options, hooks: made.hooks },
  );
  return {
    ...under,
    bodies,
    files: made,
    async metric(outcome: string, hook = "h"): Promise<number> {
      const text = await (await under.get("/metrics")).text();
      const labels = `{hook="${hook}",outcome="${outcome}"}`;
      return Number(new RegExp(`^penstock_gateway_hook_seconds_count${labels} (\\d+)`, "m").exec(text)?.[1] ?? 0);
    },
    async [Symbol.asyncDispose]() {
      await under[Symbol.asyncDispose]();
      await made[Symbol.asyncDispose]();
    },
  };
}

function streams(...events: string[]): NonNullable<FakeAgentBehaviour["onInfer"]> {
  return (_, outgoing) => {
    outgoing.writeHead(200, { "content-type": "text/event-stream" });
    for (const event of events) outgoing.write(event);
    outgoing.end();
  };
}

describe("a hook before", () => {
  test("sees who asks for what, and none of the credentials", async () => {
    await using gateway = await hooked([{ source: module(`{ before: (r) => ({ refuse: JSON.stringify(r) }) }`) }]);
    const response = await gateway.post(path, chat, {
      headers: { authorization: `Bearer ${apiKey}`, cookie: "c=1", "x-team": "blue" },
    });
    const { error } = errorBody.parse(await response.json());
    const { headers, ...seen } = JSON.parse(error.message);
    expect([response.status, error.code, error.type]).toEqual([400, "refused_by_hook", "invalid_request_error"]);
    expect(seen).toEqual({
      requestId: response.headers.get("x-request-id"),
      traceId: null,
      model: "m",
      endpoint: path,
      tenant: "default",
      credentialId: expect.any(String),
      body: chat,
    });
    expect(headers).toMatchObject({ "x-team": "blue" });
    expect(JSON.stringify(seen) + JSON.stringify(headers)).not.toMatch(new RegExp(`${apiKey}|authorization|cookie`));
    expect(gateway.bodies).toEqual([]);
    expect(await gateway.metric("refused")).toBe(1);
  });

  test("changes the body that the next one and the engine get", async () => {
    const double = module(`{ before: ({ body }) => ({ body: { ...body, max_tokens: (body.max_tokens ?? 1) * 2 } }) }`);
    await using gateway = await hooked([{ source: double }, { source: double }]);
    expect((await gateway.post(path, { ...chat, max_tokens: 3, extra: { is: "kept" } })).status).toBe(200);
    expect(gateway.bodies).toEqual([{ ...chat, max_tokens: 12, extra: { is: "kept" } }]);
    expect(await gateway.metric("changed")).toBe(2);
  });

  test("sees no body of an upload, which streams past it", async () => {
    const source = module(`{ before: ({ body, endpoint }) => ({ refuse: endpoint + " " + body }) }`);
    await using gateway = await hooked([{ source }]);
    const form = new FormData();
    form.set("model", "m");
    form.set("file", new Blob(["sound"]), "a.wav");
    const url = "/v1/audio/transcriptions";
    const response = await gateway.post(url, "", { headers: { authorization: `Bearer ${apiKey}` }, body: form });
    expect(await response.json()).toMatchObject({ error: { message: `${url} null` } });
  });

  test("may name another model, if the tenant may use it", async () => {
    const source = module(`{ before: ({ body }) => ({ body: { ...body, model: "m:pirate" } }) }`);
    await using gateway = await hooked([{ source }]);
    expect((await gateway.post(path, chat)).status).toBe(200);
    expect(gateway.bodies[0]).toMatchObject({ model: "m:pirate" });
  });

  test("comes before the response cache makes its key", async () => {
    const source = module(
      `{ before: ({ body }) => ({ body: { ...body, messages: [{ role: "user", content: "x" }] } }) }`,
    );
    await using gateway = await hooked([{ source }], { responseCache: { models: ["m"], seconds: 60 } });
    const ask = (content: string) =>
      gateway.post(path, { ...chat, temperature: 0, messages: [{ role: "user", content }] }).then((r) => r.text());
    expect(await ask("one")).toBe(await ask("two"));
    expect(gateway.bodies).toHaveLength(1);
  });

  test("refuses with a code of the table, in the shape that the endpoint's clients know", async () => {
    await using gateway = await hooked([
      { source: module(`{ before: () => ({ refuse: "Not on Sundays.", code: "forbidden" }) }`) },
    ]);
    const response = await gateway.post("/v1/messages", { ...chat, max_tokens: 1 });
    expect(response.status).toBe(403);
    expect(await response.json()).toEqual({
      type: "error",
      error: { type: "permission_error", message: "Not on Sundays." },
    });
  });

  test("sees only the models that it is for", async () => {
    const source = module(`{ before: () => ({ refuse: "no" }) }`);
    const other = { ...servedModel, spec: { ...servedModel.spec, id: "other" } };
    await using gateway = await hooked([{ source, entry: { models: ["other"] } }], { models: [servedModel, other] });
    expect((await gateway.post(path, chat)).status).toBe(200);
    expect((await gateway.post(path, { ...chat, model: "other" })).status).toBe(400);
  });
});

describe("a hook that fails", () => {
  test.each([
    ["throws", `{ before() { throw new Error("secret prompt") } }`],
    ["rejects", `{ before: async () => { throw "nothing" } }`],
    ["returns what is neither a change nor a refusal", `{ before: () => 7 }`],
    ["refuses with a code that it may not use", `{ before: () => ({ refuse: "x", code: "internal_error" }) }`],
    ["returns what cannot leave its thread", `{ before: () => ({ body: { f() {} } }) }`],
    [
      "makes a body that the endpoint does not take",
      `{ before: ({ body }) => ({ body: { ...body, messages: "x" } }) }`,
    ],
    ["names a model that there is not", `{ before: ({ body }) => ({ body: { ...body, model: "x" } }) }`],
  ])("because it %s is skipped or refuses the request, as the config says", async (_, stages) => {
    const source = module(stages);
    await using skipping = await hooked([{ source, entry: { onError: "skip" } }]);
    expect((await skipping.post(path, chat)).status).toBe(200);
    expect(skipping.bodies).toEqual([chat]);
    await using refusing = await hooked([{ source }]);
    const response = await refusing.post(path, chat);
    expect(response.status).toBe(503);
    const { error } = errorBody.parse(await response.json());
    expect(error).toMatchObject({ code: "hook_failed", message: expect.stringContaining("`h`") });
    expect(JSON.stringify(error)).not.toContain("secret");
    expect(await refusing.metric("failed")).toBe(1);
  });

  test("by being late is left behind at its deadline", async () => {
    const source = module(`{ before: () => new Promise(() => setTimeout(() => {}, 100_000)) }`);
    await using gateway = await hooked([{ source, entry: { deadlineMs: 50, onError: "skip" } }]);
    expect((await gateway.post(path, chat)).status).toBe(200);
    expect(await gateway.metric("late")).toBe(1);
  });

  test.each([
    ["never ends", `if (content === "bad") for (;;);`],
    ["ends its process", `if (content === "bad") process.exit(1);`],
    ["throws out of nowhere", `if (content === "bad") setTimeout(() => { throw new Error("x") });`],
    [
      "fills its memory",
      `if (content === "bad") for (const all = [];;) all.push(new Array(1e6).fill(content + all.length));`,
    ],
  ])("because it %s harms no other request, and works again in a new thread", async (_, code) => {
    const source = module(`{ before({ body }) {
      const { content } = body.messages[0];
      ${code}
      return content === "bad" ? new Promise(() => {}) : { body: { ...body, seen: true } };
    } }`);
    await using gateway = await hooked([{ source, entry: { deadlineMs: 3_000, onError: "skip" } }]);
    const bad = { ...chat, messages: [{ role: "user", content: "bad" }] };
    expect((await gateway.post(path, bad)).status).toBe(200);
    expect(gateway.bodies[0]).toEqual(bad);
    await expect
      .poll(async () => {
        expect((await gateway.post(path, chat)).status).toBe(200);
        return gateway.bodies.at(-1);
      })
      .toEqual({ ...chat, seen: true });
  });

  test("sees no variable of the gateway's environment", async () => {
    await using gateway = await hooked([
      { source: module(`{ before: () => ({ refuse: JSON.stringify(process.env) }) }`) },
    ]);
    expect(await (await gateway.post(path, chat)).json()).toMatchObject({ error: { message: "{}" } });
  });
});

describe("a hook after", () => {
  const sign = module(`{ after: ({ status, headers, body }, request) => ({
    body: { ...body, status, type: headers["content-type"], asked: request.body.messages.length } }) }`);

  test("replaces an answer, while the engine's count is charged", async () => {
    await using gateway = await hooked([{ source: sign }]);
    const response = await gateway.post(path, chat);
    const text = await response.text();
    expect(JSON.parse(text)).toMatchObject({ id: "a", status: 200, type: "application/json", asked: 1 });
    expect(response.headers.get("content-length")).toBe(String(text.length));
    const metrics = await (await gateway.get("/metrics")).text();
    expect(metrics).toContain('penstock_gateway_tokens_total{model="m",tenant="default",kind="completion"} 4');
  });

  test("sees an answer of the response cache as it came from the engine", async () => {
    await using gateway = await hooked([{ source: sign }], { responseCache: { models: ["m"], seconds: 60 } });
    const ask = () => gateway.post(path, { ...chat, temperature: 0 });
    const first = await (await ask()).json();
    const second = await ask();
    expect(second.headers.get("x-penstock-cache")).toBe("hit");
    expect(await second.json()).toEqual(first);
    expect(gateway.bodies).toHaveLength(1);
    expect(await gateway.metric("changed")).toBe(2);
  });

  test("refuses an answer, and nothing of it has left", async () => {
    const source = module(`{ after: () => ({ refuse: "The answer cannot be shown." }) }`);
    await using gateway = await hooked([{ source }]);
    const response = await gateway.post(path, chat);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { code: "refused_by_hook" } });
    const metrics = await (await gateway.get("/metrics")).text();
    expect(metrics).toContain(`penstock_gateway_requests_total{endpoint="${path}",model="m",status="400"} 1`);
  });

  test("passes on what is too long for it, or is refused, as the config says", async () => {
    const onInfer = answers({ text: "x".repeat(17 * 2 ** 20) });
    await using skipping = await hooked([{ source: sign, entry: { onError: "skip" } }], { onInfer });
    const text = await (await skipping.post(path, chat)).text();
    expect(JSON.parse(text)).toEqual({ text: "x".repeat(17 * 2 ** 20) });
    await using refusing = await hooked([{ source: sign }], { onInfer });
    expect((await refusing.post(path, chat)).status).toBe(503);
  });

  test("leaves streams alone", async () => {
    const events = ['data: {"a":1}\n\n', "data: [DONE]\n\n"];
    await using gateway = await hooked([{ source: sign }], { onInfer: streams(...events) });
    expect(await (await gateway.post(path, { ...chat, stream: true })).text()).toBe(events.join(""));
  });
});

describe("a hook for events", () => {
  const shout = module(`{ events(request) {
    let count = 0;
    return (event) => {
      count += 1;
      if (event.text === "drop") return [];
      if (event.text === "twice") return [event, event];
      if (event.text === "refuse") return { refuse: "No more." };
      return event.text === undefined ? undefined : [{ text: event.text.toUpperCase(), count }];
    };
  } }`);
  const event = (text: string) => `event: delta\ndata: ${JSON.stringify({ text })}\n\n`;

  test("sees each in its order and answers what comes in its place", async () => {
    const sent = [": comment\n\n", event("ä"), event("drop"), 'data: {"x":1}\n\n', event("twice"), "data: [DONE]\n\n"];
    const bytes = Buffer.from(sent.join(""));
    await using gateway = await hooked([{ source: shout }], {
      async onInfer(_, outgoing) {
        outgoing.writeHead(200, { "content-type": "text/event-stream" });
        // Cut anywhere, within a character too.
        for (let at = 0; at < bytes.length; at += 7) {
          outgoing.write(bytes.subarray(at, at + 7));
          await new Promise((resolve) => setImmediate(resolve));
        }
        outgoing.end();
      },
    });
    const text = await (await gateway.post(path, { ...chat, stream: true })).text();
    const upper = 'event: delta\ndata: {"text":"Ä","count":1}\n\n';
    expect(text).toBe(`: comment\n\n${upper}data: {"x":1}\n\n${event("twice")}${event("twice")}data: [DONE]\n\n`);
  });

  test("ends a stream with an error, and its engine's work", async () => {
    const closed = Promise.withResolvers<void>();
    await using gateway = await hooked([{ source: shout }], {
      onInfer(_, outgoing) {
        outgoing.writeHead(200, { "content-type": "text/event-stream" });
        outgoing.write(event("a") + event("refuse"));
        outgoing.on("close", () => closed.resolve());
      },
    });
    const text = await (await gateway.post(path, { ...chat, stream: true })).text();
    expect(text).toContain("event: error\n");
    expect(text).toContain("refused_by_hook");
    expect(text).not.toContain("[DONE]");
    await closed.promise;
  });

  test("makes an engine wait whose client does not read", async () => {
    const big = event("x".repeat(64 * 1024));
    const total = 1_000;
    let sent = 0;
    await using gateway = await hooked([{ source: shout }], {
      async onInfer(_, outgoing) {
        outgoing.writeHead(200, { "content-type": "text/event-stream" });
        for (; sent < total; sent += 1) if (!outgoing.write(big)) await once(outgoing, "drain");
        outgoing.end();
      },
    });
    const response = await gateway.post(path, { ...chat, stream: true });
    let before = -1;
    await expect
      .poll(() => [before, (before = sent)], { interval: 500 })
      .toSatisfy(([earlier, now]: number[]) => earlier === now);
    expect(sent).toBeLessThan(total / 2);
    const text = await response.text();
    expect(text.match(/"count":/g)).toHaveLength(total);
  });

  test("leaves the progress of a held stream and the error of a broken one as they are", async () => {
    await using gateway = await hooked([{ source: shout }], {
      onLoad: () => delay(1_500),
      onInfer(_, outgoing) {
        outgoing.writeHead(200, { "content-type": "text/event-stream" });
        outgoing.write(event("a"), () => outgoing.destroy());
      },
    });
    const text = await (await gateway.post(path, { ...chat, stream: true })).text();
    expect(text).toMatch(
      /^: m: .*\n\nevent: delta\ndata: \{"text":"A","count":1\}\n\nevent: error\ndata: .*engine_died/s,
    );
  });

  test("keeps streams apart", async () => {
    const many = Array.from({ length: 2_000 }, (_, at) => event(`word ${at}`));
    await using gateway = await hooked([{ source: shout }], { onInfer: streams(...many, "data: [DONE]\n\n") });
    const texts = await Promise.all(
      [0, 1].map(async () => (await gateway.post(path, { ...chat, stream: true })).text()),
    );
    for (const text of texts) {
      const counts = [...text.matchAll(/"count":(\d+)/g)].map(([, count]) => Number(count));
      expect(counts).toEqual(many.map((_, at) => at + 1));
      expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
    }
  });

  test("leaves other answers alone", async () => {
    await using gateway = await hooked([{ source: shout }]);
    expect(await (await gateway.post(path, chat)).json()).toMatchObject({ id: "a" });
  });
});

describe("loading hooks", () => {
  test("names every problem of every module at once, and what to do", async () => {
    const files = [
      { source: "this is no module" },
      { source: "export const other = 1;" },
      { source: module("{}", { name: "Not A Name" }) },
      {
        source: module("{}", { options: "z.strictObject({ level: z.number() })" }),
        entry: { options: { level: "high", x: 1 } },
      },
      { source: `throw new Error("broken at start");` },
      { source: `process.exit(0);` },
      { source: module(`(() => { throw new Error("no such file") })()`) },
    ];
    await using made = await hookFiles(...files);
    const missing = { ...hookOptions.parse({ module: join(made.folder, "missing.ts") }) };
    const started = gatewayUnderTest({}, { hooks: [...made.hooks, missing] });
    const message = await started.then(
      () => "started",
      (error: Error) => error.message,
    );
    expect(message.split("\n")).toEqual([
      expect.stringMatching(/^hooks\[0\]\.module: cannot be loaded: /),
      expect.stringMatching(/^hooks\[1\]\.module: exports no `hook`; write: /),
      expect.stringMatching(/^hooks\[2\]\.module: hook\.name: must be 1 to 63/),
      expect.stringMatching(/^hooks\[3\]\.options\.level: /),
      expect.stringMatching(/^hooks\[3\]\.options: .*x/),
      expect.stringMatching(/^hooks\[4\]\.module: cannot be loaded: broken at start/),
      expect.stringMatching(/^hooks\[5\]\.module: ended its thread/),
      expect.stringMatching(/^hooks\[6\]\.options: `create` failed: no such file/),
      expect.stringMatching(/^hooks\[7\]\.module: cannot be loaded: .*missing\.ts/),
    ]);
  });

  test("again takes a changed module, while requests that have begun keep the old one", async () => {
    const tag = (version: number) => ({
      source: module(`{ before({ body }) { return { body: { ...body, version: ${version} } } },
        after: ({ body }) => ({ body: { ...body, version: ${version} } }) }`),
    });
    const release = Promise.withResolvers<void>();
    await using gateway = await hooked([tag(1)], {
      async onInfer(_, outgoing, body) {
        if (body.includes("wait")) await release.promise;
        await answered(_, outgoing, body);
      },
    });
    const early = gateway.post(path, { ...chat, user: "wait" }).then((response) => response.json());
    await expect.poll(() => gateway.bodies.length).toBe(1);
    await gateway.gateway.reload({ models: [servedModel], hooks: await gateway.files.write([tag(2)]) });
    expect(await (await gateway.post(path, chat)).json()).toMatchObject({ version: 2 });
    release.resolve();
    expect(await early).toMatchObject({ version: 1 });
    expect(gateway.bodies.map(({ version }) => version)).toEqual([1, 2]);

    const bad = await gateway.files.write([tag(3), { source: "export {}" }]);
    await expect(gateway.gateway.reload({ models: [servedModel], hooks: bad })).rejects.toThrow(/hooks\[1\]\.module/);
    expect(await (await gateway.post(path, chat)).json()).toMatchObject({ version: 2 });

    await gateway.gateway.reload({ models: [servedModel] });
    expect(await (await gateway.post(path, chat)).json()).not.toHaveProperty("version");
  });

  test("is done by the program: from paths relative to its config, and again at SIGHUP", async () => {
    await using folder = await temporaryFolder();
    const config = join(folder.path, "gateway.yaml");
    const refuse = (text: string) =>
      writeFile(join(folder.path, "own.ts"), module(`{ before: () => ({ refuse: "${text}" }) }`));
    await refuse("first");
    await writeFile(
      config,
      JSON.stringify({
        port: 0,
        fleets: [{ name: "f", agents: { kind: "static", urls: ["http://127.0.0.1:1"] } }],
        models: [{ id: "m", source: "file:///m.gguf", fleet: "f", engine: { kind: "embedded" } }],
        stores: { directory: join(folder.path, "state") },
        hooks: [{ module: "penstock:redact-secrets" }, { module: "./own.ts", deadlineMs: 20_000 }],
      }),
    );
    await using program = await startProgram("gateway", {
      args: ["--config", config],
      env: { PENSTOCK_AGENT_TOKEN: "agent-token-of-a-test", PENSTOCK_API_KEY: apiKey },
    });
    const ask = async () => {
      const headers = { authorization: `Bearer ${apiKey}`, "content-type": "application/json" };
      const response = await fetch(program.url + path, { method: "POST", headers, body: JSON.stringify(chat) });
      const { error } = errorBody.parse(await response.json());
      return error.message;
    };
    expect(await ask()).toBe("first");
    await refuse("second");
    program.kill("SIGHUP");
    await expect.poll(ask).toBe("second");
    await writeFile(join(folder.path, "own.ts"), "export {}");
    program.kill("SIGHUP");
    await expect.poll(() => program.output()).toContain("hooks[1].module: exports no `hook`");
    expect(await ask()).toBe("second");
  });
});

describe("the library", () => {
  const library = (name: string, options: unknown) =>
    locateHooks([hookOptions.parse({ module: `penstock:${name}`, options, deadlineMs: 20_000 })], "/");

  test.each([
    ["an e-mail address", "write to jane.doe+x@mail.example.co.uk now", "write to [redacted] now"],
    ["a key", "use sk-proj-abcdefghijklmnopqrstuv and AKIAIOSFODNN7EXAMPLE.", "use [redacted] and [redacted]."],
    ["a private key", "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "[redacted]"],
    ["what the config names", "see ticket-4711", "see [redacted]"],
    ["nothing else", "an ask-me-anything @ noon, v1.2.3", "an ask-me-anything @ noon, v1.2.3"],
  ])("redact-secrets masks %s", async (_, said, seen) => {
    const bodies: unknown[] = [];
    await using gateway = await gatewayUnderTest(
      { onInfer: (i, o, body) => (bodies.push(JSON.parse(body)), answered(i, o, body)) },
      { hooks: library("redact-secrets", { patterns: ["ticket-\\d+"] }) },
    );
    const parts = [
      { type: "text", text: said },
      { type: "image_url", image_url: { url: "data:image/png;base64,QUtJQUlPU0ZPRE5ON0VYQU1QTEU=" } },
    ];
    await gateway.post(path, { ...chat, messages: [{ role: "user", content: parts }] });
    expect(bodies).toEqual([
      { ...chat, messages: [{ role: "user", content: [{ type: "text", text: seen }, parts[1]] }] },
    ]);
  });

  test("set-defaults fills in, bounds, and puts the operator's prompt first", async () => {
    const bodies: unknown[] = [];
    await using gateway = await gatewayUnderTest(
      { onInfer: (i, o, body) => (bodies.push(JSON.parse(body)), answered(i, o, body)) },
      {
        hooks: library("set-defaults", {
          defaults: { temperature: 0.2, max_tokens: 100 },
          bounds: { max_tokens: { max: 50 }, top_p: { min: 0.5 } },
          systemPrompt: "Be brief.",
        }),
      },
    );
    const [user] = chat.messages;
    await gateway.post(path, { ...chat, top_p: 0.1 });
    await gateway.post(path, { ...chat, temperature: 1, messages: [{ role: "system", content: "Rhyme." }, user] });
    await gateway.post("/v1/messages", { ...chat, max_tokens: 7 });
    await gateway.post("/v1/embeddings", { model: "m", input: "x" });
    expect(bodies).toEqual([
      {
        ...chat,
        temperature: 0.2,
        max_tokens: 50,
        top_p: 0.5,
        messages: [{ role: "system", content: "Be brief." }, user],
      },
      { ...chat, temperature: 1, max_tokens: 50, messages: [{ role: "system", content: "Be brief.\n\nRhyme." }, user] },
      { ...chat, temperature: 0.2, max_tokens: 7, system: "Be brief." },
      { model: "m", input: "x" },
    ]);
  });

  test("refuses options that it does not know", async () => {
    const hooks = library("redact-secrets", { patterns: ["("], email: true });
    const started = gatewayUnderTest({}, { hooks });
    await expect(started).rejects.toThrow(/hooks\[0\]\.options\.patterns\[0\]: is no regular expression/);
    await expect(gatewayUnderTest({}, { hooks })).rejects.toThrow(/email/);
  });
});
