"""drape: train TryOnDiffusion on your own data, see whether it learns, dress people with the result.

The names below are the public ones.  Each is imported when it is first used, so `import drape` itself loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from drape.config import RunConfig
    from drape.data.dresscode import DressCode
    from drape.data.sample import TryOnSample
    from drape.data.viton_hd import VitonHD
    from drape.errors import CheckpointError, ConfigError, DataError, DrapeError, TrainingError
    from drape.nets.conditions import Conditions
    from drape.nets.config import ParallelUNetConfig
    from drape.nets.parallel_unet import ParallelUNet
    from drape.pipeline.inputs import find_cloth, find_person
    from drape.pipeline.tryon import TryOnPipeline
    from drape.presets import preset

_HOME = {
    "CheckpointError": "drape.errors",
    "Conditions": "drape.nets.conditions",
    "ConfigError": "drape.errors",
    "DataError": "drape.errors",
    "DrapeError": "drape.errors",
    "DressCode": "drape.data.dresscode",
    "ParallelUNet": "drape.nets.parallel_unet",
    "ParallelUNetConfig": "drape.nets.config",
    "RunConfig": "drape.config",
    "TrainingError": "drape.errors",
    "TryOnPipeline": "drape.pipeline.tryon",
    "TryOnSample": "drape.data.sample",
    "VitonHD": "drape.data.viton_hd",
    "find_cloth": "drape.pipeline.inputs",
    "find_person": "drape.pipeline.inputs",
    "preset": "drape.presets",
}

__all__ = [
    "CheckpointError",
    "Conditions",
    "ConfigError",
    "DataError",
    "DrapeError",
    "DressCode",
    "ParallelUNet",
    "ParallelUNetConfig",
    "RunConfig",
    "TrainingError",
    "TryOnPipeline",
    "TryOnSample",
    "VitonHD",
    "__version__",
    "find_cloth",
    "find_person",
    "preset",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'drape' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
