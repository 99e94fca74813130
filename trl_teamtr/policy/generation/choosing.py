"""Where a team with `use_vllm=True` has its vLLM."""

from collections.abc import Sequence

from ...teamtr_config import TeamTRConfig
from ..backend import Backend
from ..speaker import Speaker
from .engine_fleet import EngineFleet
from .engine_settings import EngineSettings
from .fleet import Fleet, FleetSettings


def make_fleet(speakers: Sequence[Speaker], args: TeamTRConfig) -> Backend:
    """The backend of `speakers` that `args.vllm_mode` names: servers, or engines in this process."""
    if args.vllm_mode == "server":
        return Fleet(speakers, FleetSettings.of(args))
    return EngineFleet(speakers, EngineSettings.of(args))
