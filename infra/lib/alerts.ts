/** An alert rule of Prometheus: data, so that each cloud renders it in its own form. */
export interface AlertRule {
  readonly name: string;
  readonly expr: string;
  /** It must hold this long. */
  readonly minutes: number;
  /** `page`: somebody is waiting now. `ticket`: look at it today. */
  readonly severity: "page" | "ticket";
  /** What is wrong. */
  readonly summary: string;
  /** What to look at first. */
  readonly remedy: string;
}

/** Rules that are evaluated together. */
export interface AlertGroup {
  readonly name: string;
  readonly rules: readonly AlertRule[];
}

const gateway: AlertGroup = {
  name: "penstock-gateway",
  rules: [
    {
      name: "PenstockGatewayAway",
      expr: "absent(penstock_gateway_process_start_time_seconds)",
      minutes: 5,
      severity: "page",
      summary: "No gateway is measured.",
      remedy: "Look at the pods of the Deployment penstock-gateway, then at Prometheus' targets.",
    },
    {
      name: "PenstockErrors",
      expr: 'sum(rate(penstock_gateway_requests_total{status=~"5..|cut"}[5m])) / sum(rate(penstock_gateway_requests_total[5m])) > 0.05 and sum(rate(penstock_gateway_requests_total[5m])) > 0.1',
      minutes: 5,
      severity: "page",
      summary: "More than 5 % of the requests fail.",
      remedy: "The dashboard Gateway shows the status by model; x-request-id leads to the logs.",
    },
    {
      name: "PenstockSlowFirstByte",
      expr: "histogram_quantile(0.95, sum by (le, model) (rate(penstock_gateway_time_to_first_byte_seconds_bucket[10m]))) > 30",
      minutes: 15,
      severity: "ticket",
      summary: "One request in twenty of {{ $labels.model }} waits longer than 30 s for its first byte.",
      remedy: "Cold starts, or too few replicas: compare held requests and the fleet's queue.",
    },
    {
      name: "PenstockHeldRequests",
      expr: "sum(penstock_gateway_held_requests) > 0",
      minutes: 20,
      severity: "page",
      summary: "Requests have waited for a model for 20 minutes.",
      remedy: "Look at pending pods of the fleets, then at models in the state FAILED.",
    },
    {
      name: "PenstockStoreLost",
      expr: 'max(penstock_gateway_store{what="lost"}) == 1',
      minutes: 2,
      severity: "page",
      summary: "A gateway cannot reach Redis and keeps limits alone.",
      remedy: "Look at Redis; limits may be exceeded until it is back, and are settled afterwards.",
    },
    {
      name: "PenstockSettlementsDropped",
      expr: 'max(delta(penstock_gateway_store{what="dropped"}[1h])) > 0',
      minutes: 1,
      severity: "ticket",
      summary: "Usage never reached Redis: budgets of this period are too generous.",
      remedy: "The ledger in PostgreSQL has all of it; Redis was away for too long.",
    },
    {
      name: "PenstockEventLoopSlow",
      expr: "max by (pod) (penstock_gateway_nodejs_eventloop_lag_p99_seconds) > 0.25",
      minutes: 10,
      severity: "ticket",
      summary: "The gateway {{ $labels.pod }} is late by a quarter of a second.",
      remedy: "More gateways (gateway.replicas), or a hook that computes too long.",
    },
  ],
};

const fleets: AlertGroup = {
  name: "penstock-fleets",
  rules: [
    {
      name: "PenstockModelFailed",
      expr: 'max by (model) (penstock_gateway_model_state{state="FAILED"}) == 1',
      minutes: 5,
      severity: "page",
      summary: "The model {{ $labels.model }} cannot be served.",
      remedy: "The agents' /stats and logs name the reason and the engine's last lines.",
    },
    {
      name: "PenstockEngineCrashes",
      expr: "sum by (model) (increase(penstock_agent_engine_crashes[1h])) >= 3",
      minutes: 1,
      severity: "page",
      summary: "Engines of {{ $labels.model }} ended by themselves three times within an hour.",
      remedy: "The agent's log has the engine's last lines; out of memory is the usual one.",
    },
    {
      name: "PenstockReplicaPending",
      expr: 'max by (pod) (kube_pod_status_phase{namespace="penstock", phase="Pending", pod=~"fleet-.*"}) == 1',
      minutes: 20,
      severity: "page",
      summary: "The replica {{ $labels.pod }} has not started for 20 minutes.",
      remedy: "No GPU to be had, or an image that cannot be pulled: the pod's events say which.",
    },
    {
      name: "PenstockFleetAtMaximum",
      expr: 'kube_horizontalpodautoscaler_status_desired_replicas{horizontalpodautoscaler=~"fleet-.*"} >= kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler=~"fleet-.*"}',
      minutes: 30,
      severity: "ticket",
      summary: "{{ $labels.horizontalpodautoscaler }} has had all its replicas for half an hour.",
      remedy: "Raise replicas.max of the fleet and maxNodes of its pool, or accept longer queues.",
    },
    {
      name: "PenstockQueueGrows",
      expr: "sum by (model) (penstock_agent_engine_waiting) > sum by (model) (penstock_agent_engine_running)",
      minutes: 15,
      severity: "ticket",
      summary: "More requests of {{ $labels.model }} wait in engines than run.",
      remedy: "More replicas, or a lower scaling.targetRequests so that they come sooner.",
    },
    {
      name: "PenstockKvCacheFull",
      expr: "avg by (model) (penstock_agent_engine_kv_usage) > 0.95",
      minutes: 15,
      severity: "ticket",
      summary: "The KV cache of {{ $labels.model }} is full.",
      remedy: "More replicas, a shorter contextTokens, or an 8-bit KV cache (kvCacheDtype).",
    },
    {
      name: "PenstockSignalMissing",
      expr: "max by (model) (penstock_agent_engine_missing_signals) > 0",
      minutes: 30,
      severity: "ticket",
      summary: "The engine of {{ $labels.model }} does not publish a metric that routing uses.",
      remedy: "The engine's version renamed it: see runtime/engines.",
    },
    {
      name: "PenstockSlowLoad",
      expr: 'max by (model) (penstock_agent_transition_seconds{transition="load"}) > 900',
      minutes: 1,
      severity: "ticket",
      summary: "{{ $labels.model }} took more than 15 minutes to load from disk.",
      remedy: "The node's disks, or compiled kernels that are not kept.",
    },
  ],
};

const gpus: AlertGroup = {
  name: "penstock-gpus",
  rules: [
    {
      name: "PenstockGpuError",
      expr: "max by (Hostname, gpu) (DCGM_FI_DEV_XID_ERRORS) > 0",
      minutes: 1,
      severity: "page",
      summary: "GPU {{ $labels.gpu }} of {{ $labels.Hostname }} reported an XID error.",
      remedy: "Cordon and drain the node; NVIDIA's list of XIDs says whether the GPU is broken.",
    },
    {
      name: "PenstockGpuMemoryBroken",
      expr: "max by (Hostname, gpu) (DCGM_FI_DEV_ROW_REMAP_FAILURE) > 0",
      minutes: 1,
      severity: "page",
      summary: "Memory of GPU {{ $labels.gpu }} of {{ $labels.Hostname }} cannot be repaired.",
      remedy: "Replace the node.",
    },
    {
      name: "PenstockGpuHot",
      expr: "max by (Hostname, gpu) (DCGM_FI_DEV_GPU_TEMP) > 88",
      minutes: 10,
      severity: "ticket",
      summary: "GPU {{ $labels.gpu }} of {{ $labels.Hostname }} is hotter than 88 °C and will slow down.",
      remedy: "Drain the node and let the cloud replace it.",
    },
    {
      name: "PenstockGpuIdle",
      expr: "max by (Hostname) (max_over_time(DCGM_FI_DEV_GPU_UTIL[2h])) == 0",
      minutes: 30,
      severity: "ticket",
      summary: "No GPU of {{ $labels.Hostname }} has computed anything for two hours.",
      remedy: "Lower replicas.min or warmSpares, or let the fleet go to zero.",
    },
  ],
};

/** All alert rules of a stack in a cluster. The cloud itself watches its budget and its managed stores. */
export const alertGroups: readonly AlertGroup[] = [gateway, fleets, gpus];
