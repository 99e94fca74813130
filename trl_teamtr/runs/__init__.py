"""The plan of a run, its checkpoints, and how it ends and resumes."""

from .checkpoint import prepare_resume, save_run_state
from .checkpoint_files import put_checkpoint, recover
from .member_state import save_member
from .member_swap import swap_in_checkpoint
from .preemption import PreemptionCallback
from .stage_state import load_stage, save_stage
from .stages import count_stages, order_agents, stage_rows


__all__ = [
    "PreemptionCallback",
    "count_stages",
    "load_stage",
    "order_agents",
    "prepare_resume",
    "put_checkpoint",
    "recover",
    "save_member",
    "save_run_state",
    "save_stage",
    "stage_rows",
    "swap_in_checkpoint",
]
