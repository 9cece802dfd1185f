"""Pose networks of any origin, taught to see people from afar: cross-resolution distillation into the same file.

Needs the extra `adapt`; names are imported when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdkd_ext.late import late_names

if TYPE_CHECKING:
    from cdkd_ext.adaptation.config import AdaptationConfig
    from cdkd_ext.adaptation.losses import KeypointLoss
    from cdkd_ext.adaptation.measuring import Measured
    from cdkd_ext.adaptation.networks import AdaptableModule, AdaptableNetwork, load_adaptable
    from cdkd_ext.adaptation.onnx_graph import TrainableGraph
    from cdkd_ext.adaptation.report import AdaptationReport
    from cdkd_ext.adaptation.resolutions import Resolutions
    from cdkd_ext.adaptation.run import adapt
    from cdkd_ext.adaptation.trainer import AdaptationTask

# name: the module it is in
_LATE = {
    "AdaptableModule": "networks",
    "AdaptableNetwork": "networks",
    "AdaptationConfig": "config",
    "AdaptationReport": "report",
    "AdaptationTask": "trainer",
    "KeypointLoss": "losses",
    "Measured": "measuring",
    "Resolutions": "resolutions",
    "TrainableGraph": "onnx_graph",
    "adapt": "run",
    "load_adaptable": "networks",
}

__all__ = [
    "AdaptableModule",
    "AdaptableNetwork",
    "AdaptationConfig",
    "AdaptationReport",
    "AdaptationTask",
    "KeypointLoss",
    "Measured",
    "Resolutions",
    "TrainableGraph",
    "adapt",
    "load_adaptable",
]

__getattr__, __dir__ = late_names(globals(), {name: f"adaptation.{module}" for name, module in _LATE.items()})
