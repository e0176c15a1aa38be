"""One run, written down: what is trained, on what, how, and for how long.

`RunConfig` only composes; each part lives beside the thing it configures.  It is plain data both ways
(`to_dict`, `from_dict`), it is stored inside the weights, and unknown keys are errors that name the
nearest known one.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError

from drape.devices import Precision
from drape.errors import ConfigError, did_you_mean, shortened
from drape.nets.config import ParallelUNetConfig
from drape.settings import (
    DataConfig,
    DiffusionConfig,
    EmaConfig,
    FinetuneConfig,
    LossConfig,
    NoiseAugConfig,
    OptimConfig,
    ValidationConfig,
)


class UnknownSettingError(ConfigError):
    """A setting that there is not, with the nearest one."""

    def __init__(self, key: str, advice: str) -> None:
        super().__init__(f"unknown setting {shortened(key)}. {advice}")
        self.key = shortened(key)


class OtherVersionError(ConfigError):
    """A stored config with a setting that this version does not know."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole training run.  Sizes are (height, width); time is counted in images.

    condition_drop      share of samples whose conditions are all dropped together, the null state of guidance
    batch_size          images between two updates, whatever the number of processes and of micro-batches
    accumulate          micro-batches a process runs one after the other for one update: less memory, the same update
    images              length of the run; a --budget of wall-clock time replaces it
    precision           of the arithmetic (autocast); weights and averages are fp32, moments unless optim says else
    compile             torch.compile; minutes at the start, on a GPU faster afterwards
    channels_last       memory order of the convolutions
    checkpoint_norms    compute norms and activations again in the backward pass: half the memory for little work
    checkpoint_blocks   keep only the input of every block and compute the rest again: less memory, a third more work
    parallel            several processes: whole copies (ddp), or weights, gradients and moments in shards (fsdp)
    *_every             images between two checkpoints, two previews
    """

    name: str
    net: ParallelUNetConfig
    resolution: tuple[int, int]
    cloth_resolution: tuple[int, int] | None = None
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    noise_aug: NoiseAugConfig = field(default_factory=NoiseAugConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    condition_drop: float = 0.1
    batch_size: int = 32
    accumulate: int = 1
    images: int = 1_000_000
    seed: int = 0
    precision: Precision = "fp32"
    compile: bool = False
    channels_last: bool = True
    checkpoint_norms: bool = False
    checkpoint_blocks: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
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
        for name in ("batch_size", "accumulate", "images", "checkpoint_every", "preview_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1.")
        if self.batch_size % self.accumulate:
            raise ConfigError(f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}.")
        if not 0 <= self.seed < 2**61:
            raise ConfigError(f"seed is {self.seed}, expected a whole number from 0 to 2^61.")
        if not 0 <= self.condition_drop < 1:
            raise ConfigError(f"condition_drop is {self.condition_drop}, expected a share in [0, 1).")
        self._check_in_backward()
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
            if self.data.fit == "square" and size[0] != size[1]:
                raise ConfigError(
                    f"{name} is {size[0]}x{size[1]} (height x width) but data.fit is square. "
                    f"Set data.fit=whole, or {name} to [{size[0]}, {size[0]}]."
                )

    def _check_in_backward(self) -> None:
        without = "optim.in_backward updates each weight before the other gradients are known"
        if self.optim.in_backward and self.accumulate > 1:
            raise ConfigError(
                f"{without}, but accumulate is {self.accumulate}. Set accumulate=1 and a batch that fits."
            )
        if self.optim.in_backward and self.precision == "fp16":
            raise ConfigError(f"{without}, but fp16 has to skip steps that overflow. Set precision=bf16.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data: dicts, lists, strings, numbers."""
        return json.loads(json.dumps(asdict(self)))


def from_dict(data: dict[str, Any]) -> RunConfig:
    """The inverse of `RunConfig.to_dict`.  Raises ConfigError for unknown keys and wrong types."""
    _reject_unknown_keys(RunConfig, data, prefix="")
    _reject_infinite(data, prefix="")
    try:
        return TypeAdapter(RunConfig).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{key} is {first['input']!r}: {first['msg'].lower()}.") from error


RETIRED: dict[str, tuple[str, ...]] = {"ema": ("half_life_images", "warmup")}
"""Settings, by section, that former versions wrote into weights and runs; all of them mattered to training alone."""


def from_stored(data: Any) -> RunConfig:
    """The config that a run or its weights hold, which may be older than this version: RETIRED settings are left out.

    Raises ConfigError for what is no config; whatever else is unknown stays an error.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"the stored config is a {type(data).__name__}, expected one JSON object of settings.")
    known = {
        section: {key: value for key, value in values.items() if key not in RETIRED[section]}
        if section in RETIRED and isinstance(values, dict)
        else values
        for section, values in data.items()
    }
    try:
        return from_dict(known)
    except UnknownSettingError as error:
        raise OtherVersionError(f"it has the unknown setting {error.key}") from error


def unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a stored config, of the error that reading it gave."""
    if isinstance(error, OtherVersionError):
        return f"{path} was written by another version of drape: {error}"
    return f"{path} is damaged ({error})"


def override(config: RunConfig, settings: Iterable[str]) -> RunConfig:
    """`config` with settings such as "optim.lr=2e-4" applied together; a value is JSON if that fits, else a string.

    Raises ConfigError for a setting without "=", an unknown key or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r} has no '='. Write --set KEY=VALUE, such as --set optim.lr=2e-4.")
        values[key.strip()] = parse_value(key.strip(), text.strip())
    return replace_values(config, values)


def replace_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """`config` with plain values at dotted keys, all at once: settings that only fit together need no order.

    Raises ConfigError for an unknown key, a value of the wrong type, and a combination that cannot work.
    """
    data = config.to_dict()
    for key, value in values.items():
        kind_of(key)
        *sections, last = key.split(".")
        reduce(dict.__getitem__, sections, data)[last] = value
    return from_dict(data)


def parse_value(key: str, text: str) -> Any:
    """The text as JSON where the setting `key` can be that, else as the string it is.

    Raises ConfigError for an unknown key; a value that does not fit is left for `from_dict` to refuse.
    """
    kind = kind_of(key)
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if _fits(kind, value) or not _fits(kind, text) else text


def kind_of(key: str) -> Any:
    """The annotated type of a setting, such as that of "optim.lr".  Raises ConfigError where there is none."""
    kind: Any = RunConfig
    path = key.split(".")
    for depth, name in enumerate(path):
        if not is_dataclass(kind):
            raise ConfigError(f"unknown setting {key}: {path[depth - 1]} is a single value, not a section.")
        _reject_unknown_keys(kind, {name: None}, prefix="".join(f"{each}." for each in path[:depth]))  # type: ignore[arg-type]
        kind = get_type_hints(kind)[name]
    return kind


def _fits(kind: Any, value: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except (ValidationError, ConfigError):
        return False
    return True


def _reject_unknown_keys(kind: type, data: dict[str, Any], prefix: str) -> None:
    known = {f.name: f for f in fields(kind)}
    hints = get_type_hints(kind)
    for key, value in data.items():
        if key not in known:
            raise UnknownSettingError(f"{prefix}{key}", _nearest(key, list(known), prefix))
        if is_dataclass(hints[key]) and isinstance(hints[key], type) and isinstance(value, dict):
            _reject_unknown_keys(hints[key], value, prefix=f"{prefix}{key}.")


def _nearest(name: str, section: list[str], prefix: str) -> str:
    """The advice for an unknown name in a section: the setting of that very name in another one, else the nearest."""
    places: dict[str, str] = {}
    for key in _dotted(RunConfig):
        last = key.rpartition(".")[2]
        places[last] = f"{places[last]} or {key}" if last in places else key
    if name in places:
        return f"Did you mean {places[name]}?"
    everywhere = did_you_mean(name, places, full=places, otherwise=f"Known keys: {', '.join(sorted(section))}.")
    return did_you_mean(name, section, prefix=prefix, otherwise=everywhere) if prefix else everywhere


def _dotted(kind: type, prefix: str = "") -> Iterator[str]:
    """Every section and setting by its dotted name."""
    for key, hint in get_type_hints(kind).items():
        yield f"{prefix}{key}"
        if is_dataclass(hint) and isinstance(hint, type):
            yield from _dotted(hint, f"{prefix}{key}.")


def _reject_infinite(value: Any, prefix: str) -> None:
    """Raises ConfigError for a number that is none: a comparison with it is false, so no range would refuse it."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{prefix} is {value}, expected a finite number.")
    for key, each in value.items() if isinstance(value, dict) else ():
        _reject_infinite(each, f"{prefix}.{key}".lstrip("."))


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
