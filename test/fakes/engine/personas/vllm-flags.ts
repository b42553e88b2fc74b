import { flagTable, type FlagTable } from "../argv.ts";

const switches = [
  "--help -h --trust-remote-code --enable-prefix-caching --no-enable-prefix-caching --enable-chunked-prefill",
  "--no-enable-chunked-prefill --enforce-eager --no-enforce-eager --enable-sleep-mode --enable-lora --no-enable-lora",
  "--enable-auto-tool-choice --enable-prompt-tokens-details --enable-force-include-usage --enable-request-id-headers",
  "--enable-expert-parallel --headless --enable-ssl-refresh --disable-log-requests --enable-log-requests",
  "--no-enable-log-requests --disable-log-stats --disable-uvicorn-access-log --disable-fastapi-docs",
  "--disable-custom-all-reduce --enable-log-outputs --enable-server-load-tracking --data-parallel-hybrid-lb",
  "--fully-sharded-loras --async-scheduling --no-async-scheduling --skip-tokenizer-init",
];

const values = [
  "--host --port --uds --api-key --tensor-parallel-size -tp --pipeline-parallel-size -pp --data-parallel-size -dp",
  "--data-parallel-size-local --data-parallel-address --data-parallel-rpc-port --data-parallel-start-rank",
  "--max-model-len --gpu-memory-utilization --max-num-seqs --max-num-batched-tokens --block-size",
  "--num-gpu-blocks-override --kv-cache-dtype --kv-cache-memory-bytes --dtype --quantization -q --load-format",
  "--model-loader-extra-config --revision --tokenizer --tokenizer-mode --seed --swap-space --cpu-offload-gb",
  "--max-loras --max-lora-rank --max-cpu-loras --lora-dtype --kv-transfer-config --kv-events-config",
  "--speculative-config --compilation-config -O --tool-call-parser --reasoning-parser --chat-template --task --runner",
  "--convert --config --download-dir --distributed-executor-backend --nnodes --node-rank --master-addr --master-port",
  "--uvicorn-log-level --otlp-traces-endpoint --ssl-certfile --ssl-keyfile --ssl-ca-certs --root-path --shutdown-timeout",
  "--stream-interval --prefix-caching-hash-algo --scheduling-policy --generation-config --override-generation-config",
  "--hf-overrides --allowed-local-media-path --limit-mm-per-prompt --api-server-count --disable-access-log-for-endpoints",
  "--max-log-len --max-logprobs --model --logprobs-mode --pooler-config --attention-backend",
];

/** Flags of `vllm serve` that matter to the simulator or that Penstock may use, for when no help page is at hand. */
export const vllmFlags: FlagTable = {
  ...flagTable({ switches, values }),
  "--served-model-name": "values",
  "--lora-modules": "values",
  "--allowed-media-domains": "values",
  "--allowed-origins": "value",
  "--middleware": "value",
};
