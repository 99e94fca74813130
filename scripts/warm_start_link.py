"""
A team for LINK (docs/tasks.md), warmed up with TRL's `SFTTrainer`.

`train.py` calls this for `agents: link:<n>`. By hand, for models on disk, one folder per agent:
    python scripts/warm_start_link.py 3 runs/link_team --seed 0
"""

import argparse

from trl_teamtr.cli.link_team import make_team, save_team


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num_agents", type=int)
    parser.add_argument("output_dir")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    save_team(make_team(options.num_agents, options.seed), options.output_dir)
    print(f"Wrote {options.num_agents} agents to {options.output_dir}.")
