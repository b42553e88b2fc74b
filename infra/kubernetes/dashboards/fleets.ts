import type { Dashboard } from "./dashboard.ts";

/** Replicas and their engines. */
export const fleetsDashboard: Dashboard = {
  uid: "penstock-fleets",
  title: "Penstock: fleets",
  rows: [
    {
      title: "Replicas",
      panels: [
        {
          title: "Replicas",
          about: "That there are, by fleet; KEDA decides on the gateway's demand.",
          unit: "short",
          queries: [
            {
              expr: 'max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler=~"fleet-.*"})',
              legend: "{{horizontalpodautoscaler}}",
            },
          ],
        },
        {
          title: "Wanted and allowed",
          about: "At the maximum for long: raise replicas.max and the pool's maxNodes.",
          unit: "short",
          queries: [
            {
              expr: 'max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_status_desired_replicas{horizontalpodautoscaler=~"fleet-.*"})',
              legend: "{{horizontalpodautoscaler}} wanted",
            },
            {
              expr: 'max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler=~"fleet-.*"})',
              legend: "{{horizontalpodautoscaler}} at most",
            },
          ],
        },
        {
          title: "Waiting for a node",
          about: "Pods without a GPU to run on.",
          unit: "short",
          queries: [
            {
              expr: 'sum(kube_pod_status_phase{namespace="penstock", phase="Pending", pod=~"fleet-.*"})',
              legend: "pending",
            },
          ],
        },
      ],
    },
    {
      title: "Engines",
      panels: [
        {
          title: "Running",
          about: "Requests in the engines' batches.",
          unit: "short",
          stacked: true,
          queries: [{ expr: "sum by (model) (penstock_agent_engine_running)", legend: "{{model}}" }],
        },
        {
          title: "Waiting",
          about: "Requests in the engines' queues: latency that is still to come.",
          unit: "short",
          stacked: true,
          queries: [{ expr: "sum by (model) (penstock_agent_engine_waiting)", legend: "{{model}}" }],
        },
        {
          title: "KV cache in use",
          about: "Near 1, requests are put back and computed again.",
          unit: "percentunit",
          queries: [{ expr: "avg by (model) (penstock_agent_engine_kv_usage)", legend: "{{model}}" }],
        },
        {
          title: "Relayed",
          about: "Requests that agents relay now.",
          unit: "short",
          stacked: true,
          queries: [{ expr: "sum by (model) (penstock_agent_requests_running)", legend: "{{model}}" }],
        },
        {
          title: "Crashes",
          about: "Engines that ended by themselves, within an hour.",
          unit: "short",
          queries: [{ expr: "sum by (model) (increase(penstock_agent_engine_crashes[1h]))", legend: "{{model}}" }],
        },
        {
          title: "Signals that are missing",
          about: "Metrics that an engine's version does not publish any more.",
          unit: "short",
          queries: [{ expr: "max by (model) (penstock_agent_engine_missing_signals)", legend: "{{model}}" }],
        },
      ],
    },
  ],
};
