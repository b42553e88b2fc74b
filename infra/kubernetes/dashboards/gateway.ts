import type { Dashboard } from "./dashboard.ts";
import { rate, share, spread } from "./queries.ts";

const requests = "penstock_gateway_requests_total";

/** What clients see. */
export const gatewayDashboard: Dashboard = {
  uid: "penstock-gateway",
  title: "Penstock: gateway",
  rows: [
    {
      title: "Requests",
      panels: [
        {
          title: "Requests by model",
          about: "Requests that ended.",
          unit: "reqps",
          stacked: true,
          queries: [{ expr: `sum by (model) (${rate(requests)})`, legend: "{{model}}" }],
        },
        {
          title: "Requests by status",
          about: "`client_left`: the client hung up. `cut`: an engine broke in a stream.",
          unit: "reqps",
          stacked: true,
          queries: [{ expr: `sum by (status) (${rate(requests)})`, legend: "{{status}}" }],
        },
        {
          title: "Failures",
          about: "Share of requests that failed through no fault of the client.",
          unit: "percentunit",
          queries: [
            {
              expr: share(
                `sum by (model) (${rate(`${requests}{status=~"5..|cut"}`)})`,
                `sum by (model) (${rate(requests)})`,
              ),
              legend: "{{model}}",
            },
          ],
        },
        {
          title: "Time to first byte",
          about: "From a request's arrival to the first byte of its answer, waiting for a model included.",
          unit: "s",
          queries: spread("penstock_gateway_time_to_first_byte_seconds", "model"),
        },
        {
          title: "Time to last byte",
          about: "Long streams are long; compare with tokens per second.",
          unit: "s",
          queries: spread("penstock_gateway_request_seconds", "model"),
        },
        {
          title: "Refused",
          about: "429: a tenant's limits. 401 and 403: keys and issuers.",
          unit: "reqps",
          stacked: true,
          queries: [{ expr: `sum by (status) (${rate(`${requests}{status=~"4.."}`)})`, legend: "{{status}}" }],
        },
      ],
    },
    {
      title: "Tokens",
      panels: [
        {
          title: "Tokens per second by model",
          about: "Completion tokens, as engines counted them.",
          unit: "short",
          queries: [
            {
              expr: `sum by (model) (${rate('penstock_gateway_tokens_total{kind="completion"}')})`,
              legend: "{{model}}",
            },
          ],
        },
        {
          title: "Tokens per second by tenant",
          about: "Prompt and completion.",
          unit: "short",
          stacked: true,
          queries: [
            {
              expr: `sum by (tenant) (${rate('penstock_gateway_tokens_total{kind=~"prompt|completion"}')})`,
              legend: "{{tenant}}",
            },
          ],
        },
        {
          title: "Usage that was estimated",
          about: "Engines that do not tell what a request cost.",
          unit: "reqps",
          queries: [
            { expr: `sum by (model) (${rate("penstock_gateway_usage_estimated_total")})`, legend: "{{model}}" },
          ],
        },
      ],
    },
    {
      title: "The gateway itself",
      panels: [
        {
          title: "Late by (p99 of the event loop)",
          about: "Above 100 ms streams stutter: more gateways.",
          unit: "s",
          queries: [{ expr: "max by (pod) (penstock_gateway_nodejs_eventloop_lag_p99_seconds)", legend: "{{pod}}" }],
        },
        {
          title: "Memory",
          about: "Resident.",
          unit: "bytes",
          queries: [{ expr: "max by (pod) (penstock_gateway_process_resident_memory_bytes)", legend: "{{pod}}" }],
        },
        {
          title: "Shared store",
          about: "`lost` is 1 while a gateway keeps limits alone; `owed` settlements wait for Redis.",
          unit: "short",
          queries: [{ expr: "max by (what) (penstock_gateway_store)", legend: "{{what}}" }],
        },
        {
          title: "Response cache",
          about: "Answers that were given again.",
          unit: "reqps",
          queries: [
            {
              expr: `sum by (result) (${rate("penstock_gateway_response_cache_total")})`,
              legend: "{{result}}",
            },
          ],
        },
        {
          title: "Hooks",
          about: "Mean time that each hook took of a request.",
          unit: "s",
          queries: [
            {
              expr: share(
                `sum by (hook) (${rate("penstock_gateway_hook_seconds_sum")})`,
                `sum by (hook) (${rate("penstock_gateway_hook_seconds_count")})`,
              ),
              legend: "{{hook}}",
            },
          ],
        },
      ],
    },
  ],
};
