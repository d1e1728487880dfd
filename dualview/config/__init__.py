"""The configuration of a run: its sections, their loading from YAML, and which keys each data set and network uses."""

from dualview.config.load import load
from dualview.config.sections import (
    AugmentConfig,
    CohortConfig,
    Config,
    DataConfig,
    DistributedConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    PhantomConfig,
    RunConfig,
    SeveralImages,
    SourceConfig,
    SplitConfig,
    TrackingConfig,
    TrainConfig,
    ViewDropoutConfig,
)

__all__ = [
    "AugmentConfig", "CohortConfig", "Config", "DataConfig", "DistributedConfig", "LossConfig", "ModelConfig",
    "OptimConfig", "PhantomConfig", "RunConfig", "SeveralImages", "SourceConfig", "SplitConfig", "TrackingConfig",
    "TrainConfig", "ViewDropoutConfig", "load",
]  # fmt: skip
