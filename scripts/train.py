"""
Train a team with TeamTR.

What is different from TRL's `grpo.py`:
  1. the model is a team, listed under `agents` in the YAML file;
  2. `--dataset_name` may also be a local file, or `reasoning_gym:<task>` or `link:<n>`, which bring their own reward;
  3. `max_steps`, `logging_steps`, `save_steps` and `eval_steps` count updates of single agents.

One process:
    accelerate launch --config_file accelerate_configs/cpu.yaml scripts/train.py --config examples/quickstart.yaml
A model of the hub as a team of three, from the command line alone:
    accelerate launch scripts/train.py --model_name_or_path Qwen/Qwen3-0.6B --num_agents 3 \
        --dataset_name reasoning_gym:chain_sum --output_dir runs/chain_sum --num_stages 40
"""

from trl_teamtr.cli.train import main, make_parser


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
