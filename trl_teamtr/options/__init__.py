"""How an option is refused, and which of TRL's a team cannot honour."""

from .checking import check
from .masking import mask_secrets
from .unsupported import refuse_unsupported


__all__ = [
    "check",
    "mask_secrets",
    "refuse_unsupported",
]
