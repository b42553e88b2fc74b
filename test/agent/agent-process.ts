import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { heartbeat, type Heartbeat } from "../../runtime/contracts/agent.ts";
import { startProgram, type Program } from "../support/program.ts";

/** The agent's program, as an operator runs it. */
export interface AgentProcess extends Program {
  post(path: string, body?: unknown): Promise<Response>;
  beat(known?: string): Promise<Heartbeat>;
}

export const agentToken = "a-token-of-the-tests";

/** Starts the agent with a config and waits until it listens. Throws what it said when it does not. */
export async function startAgentProcess(folder: string, config: object, env: object = {}): Promise<AgentProcess> {
  const path = join(folder, "agent.yaml");
  await writeFile(path, JSON.stringify(config));
  const args = ["--config", path, "--port", "0"];
  const program = await startProgram("agent", { args, env: { PENSTOCK_AGENT_TOKEN: agentToken, ...env } });
  const post = (where: string, body: unknown = {}): Promise<Response> =>
    fetch(program.url + where, {
      method: "POST",
      headers: { authorization: `Bearer ${agentToken}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  return {
    ...program,
    post,
    async beat(known) {
      const answer = await post("/heartbeat", known === undefined ? {} : { known_cache_revision: known });
      return heartbeat.parse(await answer.json());
    },
  };
}
