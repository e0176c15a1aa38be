"""One run, written down: what is trained, on what, how, and for how long.

`RunConfig` only composes; each part lives beside the thing it configures.  It is plain data both ways
(`to_dict`, `from_dict`), it is stored inside the weights, and unknown keys are errors that name the
nearest known one.
"""

import difflib
import json
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError

from drape.diffusion.schedule import CosineSchedule, LinearSchedule, resolution_shift
from drape.errors import ConfigError
from drape.nets.config import ParallelUNetConfig


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """What the net predicts, and how noise levels are spread over t in [0, 1].

    shift        add 2 log(64 / sqrt(height * width)) to the log-SNR  [Hoogeboom et al. 2023, eq. 7]
    weighting    of the squared error over noise levels, see drape.diffusion.weighting
    gamma        its largest SNR  [Hang et al. 2023]
    mask_weight  how many times a pixel inside the agnostic mask counts; 1 is the paper's plain average
    """

    target: Literal["v", "eps", "x0"] = "v"
    schedule: Literal["cosine", "linear"] = "cosine"
    shift: bool = True
    weighting: Literal["clipped-snr", "min-snr", "uniform"] = "clipped-snr"
    gamma: float = 5.0
    mask_weight: float = 1.0

    def build_schedule(self, resolution: tuple[int, int]) -> CosineSchedule | LinearSchedule:
        """The noise schedule for images of this (height, width)."""
        shift = resolution_shift(*resolution) if self.shift else 0.0
        return CosineSchedule(shift=shift) if self.schedule == "cosine" else LinearSchedule()

    def __post_init__(self) -> None:
        if self.schedule == "linear" and self.shift:
            raise ConfigError(
                "diffusion.shift is on but only the cosine schedule can be shifted. Set diffusion.shift=false."
            )
        if self.gamma <= 0 or self.mask_weight <= 0:
            raise ConfigError(f"diffusion: gamma {self.gamma} and mask_weight {self.mask_weight} must be above 0.")


@dataclass(frozen=True, kw_only=True)
class NoiseAugConfig:
    """Noise-conditioning augmentation of the conditioning images.  [Zhu et al. 2023, sec. 3.1]

    A level s in [0, 1] is the forward diffusion at time s of the unshifted cosine schedule.
    train_max   levels are drawn from U(0, train_max) per image and condition; the paper uses 1
    sample      the constant level at sampling
    """

    train_max: float = 0.0
    sample: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sample <= 1 or not 0 <= self.train_max <= 1:
            raise ConfigError(f"noise_aug: train_max {self.train_max} and sample {self.sample} must lie in [0, 1].")
        if self.sample > self.train_max:
            raise ConfigError(
                f"noise_aug.sample {self.sample} is above noise_aug.train_max {self.train_max}: "
                "the net would see noise it never saw in training. Lower sample or raise train_max."
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which record the reader makes, and its augmentation.

    pose        "read" needs joints for every person; "null" asks for the null pose explicitly
    mask        "computed" makes the agnostic mask from parse and joints; "shipped" reads the data set's own
    settings    which targets to train on: "paired", people in their own cloth; with "counterfactual", also in
                another (mannequin sets only, where that truth is known)
    flip        probability of mirroring person, cloth, masks and joints together
    """

    layout: Literal["viton-hd", "dresscode"] = "viton-hd"
    cloth_kind: Literal["flat", "worn"] = "flat"
    agnostic: Literal["v3.2", "paper"] = "v3.2"
    mask: Literal["computed", "shipped"] = "computed"
    pose: Literal["read", "null"] = "read"
    settings: tuple[Literal["paired", "counterfactual"], ...] = ("paired",)
    flip: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"data.flip is {self.flip}, a probability must lie in [0, 1].")
        if self.settings not in (("paired",), ("paired", "counterfactual")):
            raise ConfigError(
                f'data.settings is {list(self.settings)}. Use ["paired"] or ["paired", "counterfactual"].'
            )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up, constant and decay phases, counted in images.

    decay        the last share of the run over which the learning rate falls linearly to 0; the paper uses 0
    grad_clip    the largest global gradient norm; 0 turns clipping off
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_images: int = 10_000
    decay: float = 0.2
    grad_clip: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < 1e3:
            raise ConfigError(f"optim.lr is {self.lr}, expected a number above 0 such as 1e-4.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas is {list(self.betas)}, expected two numbers in [0, 1) such as [0.9, 0.99].")
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"optim.decay is {self.decay}, expected a share of the run in [0, 1].")
        if self.warmup_images < 0 or self.grad_clip < 0 or self.weight_decay < 0:
            raise ConfigError("optim: warmup_images, grad_clip and weight_decay must not be negative.")


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Exponential moving average of the weights.

    half_life_images   images after which a weight's share has halved
    warmup             the half-life is at most this share of the images seen, so short runs do not lag
    """

    half_life_images: int = 500_000
    warmup: float = 0.05

    def __post_init__(self) -> None:
        if self.half_life_images < 0 or self.warmup < 0:
            raise ConfigError("ema: half_life_images and warmup must not be negative.")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole training run.  Sizes are (height, width); time is counted in images.

    condition_drop   share of samples whose conditions are all dropped together, the null state of guidance
    images           length of the run; a --budget of wall-clock time replaces it
    *_every          images between two checkpoints, two previews
    """

    name: str
    net: ParallelUNetConfig
    resolution: tuple[int, int]
    cloth_resolution: tuple[int, int] | None = None
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    noise_aug: NoiseAugConfig = field(default_factory=NoiseAugConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    condition_drop: float = 0.1
    batch_size: int = 32
    images: int = 1_000_000
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    checkpoint_every: int = 20_000
    preview_every: int = 20_000

    @property
    def cloth_size(self) -> tuple[int, int]:
        """(height, width) of the cloth image; the person's unless said otherwise."""
        return self.cloth_resolution or self.resolution

    @property
    def low_res_size(self) -> tuple[int, int]:
        """(height, width) of the stage before, half of this one's."""
        return self.resolution[0] // 2, self.resolution[1] // 2

    def __post_init__(self) -> None:
        for name in ("batch_size", "images", "checkpoint_every", "preview_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1.")
        if not 0 <= self.seed < 2**61:
            raise ConfigError(f"seed is {self.seed}, expected a whole number from 0 to 2^61.")
        if not 0 <= self.condition_drop < 1:
            raise ConfigError(f"condition_drop is {self.condition_drop}, expected a share in [0, 1).")
        for name, size, stride in (
            ("resolution", self.resolution, self.net.stride),
            ("cloth_resolution", self.cloth_size, self.net.cloth_stride),
        ):
            if min(size) < stride or size[0] % stride or size[1] % stride:
                near = tuple(max(stride, round(n / stride) * stride) for n in size)
                raise ConfigError(
                    f"{name} is {size[0]}x{size[1]} (height x width) but this net needs multiples of {stride}. "
                    f"Use {near[0]}x{near[1]}, say."
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain data: dicts, lists, strings, numbers."""
        return json.loads(json.dumps(asdict(self)))


def from_dict(data: dict[str, Any]) -> RunConfig:
    """The inverse of `RunConfig.to_dict`.  Raises ConfigError for unknown keys and wrong types."""
    _reject_unknown_keys(RunConfig, data, prefix="")
    try:
        return TypeAdapter(RunConfig).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{key} is {first['input']!r}: {first['msg'].lower()}.") from error


def override(config: RunConfig, settings: Iterable[str]) -> RunConfig:
    """`config` with settings such as "optim.lr=2e-4" applied; a value is JSON if that fits the setting, else a string.

    Raises ConfigError for a setting without "=", an unknown key or a value of the wrong type.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r} has no '='. Write --set KEY=VALUE, such as --set optim.lr=2e-4.")
        path = key.strip().split(".")
        try:
            config = _replace(config, path, json.loads(text))
        except (json.JSONDecodeError, ConfigError) as error:
            try:
                config = _replace(config, path, text.strip())
            except ConfigError as second:
                raise (error if isinstance(error, ConfigError) else second) from None
    return config


def _replace(config: RunConfig, path: list[str], value: Any) -> RunConfig:
    data = config.to_dict()
    section = data
    for key in path[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(f"unknown setting {'.'.join(path)}: {key} is a single value, not a section.")
    section[path[-1]] = value
    return from_dict(data)


def _reject_unknown_keys(kind: type, data: dict[str, Any], prefix: str) -> None:
    known = {f.name: f for f in fields(kind)}
    hints = get_type_hints(kind)
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            advice = f"Did you mean {prefix}{near[0]}?" if near else f"Known keys: {', '.join(sorted(known))}."
            raise ConfigError(f"unknown setting {prefix}{key}. {advice}")
        if is_dataclass(hints[key]) and isinstance(hints[key], type) and isinstance(value, dict):
            _reject_unknown_keys(hints[key], value, prefix=f"{prefix}{key}.")


def required_keys(kind: type) -> list[str]:
    """The keys of a config that have no default."""
    return [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]


def read_config(path: Path) -> RunConfig:
    """A run written as JSON.  Raises ConfigError if the file is absent, not JSON, or not a run."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"{path} is not a readable JSON config ({error}). Write one with 'drape train PRESET --dry-run'."
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, expected one JSON object of settings.")
    missing = [key for key in required_keys(RunConfig) if key not in data]
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}. Start from 'drape train PRESET --dry-run'.")
    return from_dict(data)
