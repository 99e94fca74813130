"""How options are checked, and which of TRL's a team does not support."""

from .checking import check
from .masking import mask_secrets
from .team_options import check_team_options
from .unsupported import refuse_unsupported


__all__ = [
    "check",
    "check_team_options",
    "mask_secrets",
    "refuse_unsupported",
]
