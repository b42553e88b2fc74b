import type { Dashboard } from "./dashboard.ts";
import { rate } from "./queries.ts";

const took = (transition: string) => ({
  expr: `max by (model) (penstock_agent_transition_seconds{transition="${transition}"})`,
  legend: "{{model}}",
});

/** Where models are, and what it costs to have them elsewhere. */
export const cacheDashboard: Dashboard = {
  uid: "penstock-cache",
  title: "Penstock: cache and cold starts",
  rows: [
    {
      title: "Cold starts",
      panels: [
        {
          title: "Requests that wait for a model",
          about: "Held by gateways now.",
          unit: "short",
          queries: [{ expr: "sum(penstock_gateway_held_requests)", legend: "held" }],
        },
        {
          title: "Time spent on cold starts",
          about: "Seconds of replicas per second, because a request came for a model that was not there.",
          unit: "short",
          stacked: true,
          queries: [
            {
              expr: `sum by (model) (${rate("penstock_gateway_cold_start_seconds_total", "1h")})`,
              legend: "{{model}}",
            },
          ],
        },
        {
          title: "States of models",
          about: "As gateways see them: how many models are in each state.",
          unit: "short",
          stacked: true,
          queries: [
            {
              expr: "sum by (state) (max by (model, state) (penstock_gateway_model_state))",
              legend: "{{state}}",
            },
          ],
        },
      ],
    },
    {
      title: "Measured by agents",
      panels: [
        { title: "Download", about: "From the blob store to disk, last time.", unit: "s", queries: [took("download")] },
        { title: "Load", about: "From disk to an answer, last time.", unit: "s", queries: [took("load")] },
        { title: "Wake", about: "From RAM to an answer, last time.", unit: "s", queries: [took("wake")] },
        { title: "Sleep", about: "From the GPU to RAM, last time.", unit: "s", queries: [took("sleep")] },
        {
          title: "Models on disk",
          about: "Bytes in each agent's folder; agents of one node share it.",
          unit: "bytes",
          queries: [{ expr: "max by (pod) (penstock_agent_cache_bytes)", legend: "{{pod}}" }],
        },
        {
          title: "Models on GPUs",
          about: "Replicas with the model ready or asleep.",
          unit: "short",
          queries: [
            {
              expr: 'sum by (model, state) (penstock_agent_model_state{state=~"READY|SLEEPING"})',
              legend: "{{model}} {{state}}",
            },
          ],
        },
      ],
    },
    {
      title: "Prefix cache",
      panels: [
        {
          title: "Prompt tokens found in a KV cache",
          about: "Share of prompt tokens that did not have to be computed: what routing by prefix is for.",
          unit: "percentunit",
          queries: [
            {
              expr: `sum by (model) (${rate('penstock_gateway_tokens_total{kind="cached"}')}) / (sum by (model) (${rate('penstock_gateway_tokens_total{kind="prompt"}')}) > 0)`,
              legend: "{{model}}",
            },
          ],
        },
      ],
    },
  ],
};
