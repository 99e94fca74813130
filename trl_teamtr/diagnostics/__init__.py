"""Diagnostics: the effect of updates, measured during training without changing it."""

from .callback import DiagnosticsCallback, MeasuredUpdate, Probe
from .certificate_probe import CertificateProbe
from .heldout_kl import HeldOutKLCallback
from .message_values import MessageValueCallback
from .occupancy_probe import OccupancyProbe
from .probes import make_probes


__all__ = [
    "CertificateProbe",
    "DiagnosticsCallback",
    "HeldOutKLCallback",
    "MeasuredUpdate",
    "MessageValueCallback",
    "OccupancyProbe",
    "Probe",
    "make_probes",
]
