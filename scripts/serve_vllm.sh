#!/usr/bin/env bash
# Starts a vLLM server with what the agents of a YAML file of train.py need (docs/vllm.md):
#     bash scripts/serve_vllm.sh my_team.yaml                                # the server of the config
#     bash scripts/serve_vllm.sh my_team.yaml http://127.0.0.1:8001          # that of the agents which name this URL
#     bash scripts/serve_vllm.sh my_team.yaml http://127.0.0.1:8001 --tensor-parallel-size 2 --gpu-memory-utilization 0.8
# More flags are vLLM's own. PYTHON is one that has trl_teamtr; SERVE, if set, serves the model whose path follows:
#     PYTHON=.venv/bin/python SERVE=".venv-vllm/bin/python -m vllm.entrypoints.openai.api_server --model" bash scripts/...
set -euo pipefail
config=$1
url=${2:-}
shift $(($# < 2 ? $# : 2))
command=$("${PYTHON:-python}" -W ignore -m trl_teamtr.cli.vllm_command --config "$config" ${url:+--url "$url"} \
    --serve "${SERVE:-vllm serve}" | tail -n 1)
echo "$command $*" >&2
eval "exec env $command \"\$@\""
