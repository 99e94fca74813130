"""
Evaluate a saved team, and compare it with other uses of models (docs/evaluation.md). Prints a table, writes one JSON.

On the tasks that a training held out, with the arguments of that training; baselines use its untrained models:
    python scripts/evaluate.py --config examples/smollm2_reasoning_gym.yaml --team runs/smollm2_chain_sum \
        --protocols team single best_of_n majority --num_samples 4 --k 1 4 --output runs/evaluation.json \
        --single_prompt "You are a calculator. Reply with the number only."
On any dataset, with baselines that use the team's own models:
    python scripts/evaluate.py --team runs/team --dataset_name tasks.jsonl --reward_funcs accuracy_reward \
        --protocols team debate debate_judge role_play --output runs/evaluation.json
A model that was never trained, without a team:
    python scripts/evaluate.py --model Qwen/Qwen3-0.6B --num_agents 3 --dataset_name reasoning_gym:chain_sum \
        --protocols single majority debate --budget_samples 3 --output runs/evaluation.json
On several GPUs or processes:
    accelerate launch --config_file accelerate_configs/multi_gpu.yaml scripts/evaluate.py ...
"""

from trl_teamtr.cli.evaluate import main, parse


if __name__ == "__main__":
    main(*parse())
