#!/usr/bin/env bash
# The quickstart with three seeds (of the weights, the tasks and the training): docs/results/quickstart.
#     bash scripts/quickstart_seeds.sh .venv/bin/python docs/results/quickstart
set -euo pipefail
python=$1
results=$2
for seed in 42 1 2; do
    "$python" -W ignore scripts/quickstart.py --seed $seed \
        --output_dir "runs/quickstart_seed$seed" --report_dir "$results/seed$seed" | tee "$results/seed$seed.txt"
done
