"""The sections of a run's config: what is learned from which noise, by which loss, with which optimiser, on what data.

Every section is plain frozen data that checks itself: a wrong value is a ConfigError when the config is made, not
an hour later.  `drape.config.RunConfig` composes them.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

from drape.diffusion.prediction import Target
from drape.diffusion.schedule import CosineSchedule, FlowSchedule, LinearSchedule, Schedule, resolution_shift
from drape.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """What the net predicts, and how noise levels are spread over t in [0, 1].

    shift        add 2 log(64 / sqrt(height * width)) to the log-SNR  [Hoogeboom et al. 2023, eq. 7]
    weighting    of the squared error over noise levels, see drape.diffusion.weighting
    gamma        largest SNR of clipped-snr and min-snr  [Hang et al. 2023]
    bias         of sigmoid: the log-SNR above which errors of the noise count less and less  [Kingma & Gao 2023]
    mask_weight  how many times a pixel inside the agnostic mask counts; 1 is the paper's plain average
    """

    target: Target = "v"
    schedule: Literal["cosine", "linear", "flow"] = "cosine"
    shift: bool = True
    weighting: Literal["clipped-snr", "min-snr", "sigmoid", "uniform"] = "clipped-snr"
    gamma: float = 5.0
    bias: float = -1.0
    mask_weight: float = 1.0

    def build_schedule(self, resolution: tuple[int, int]) -> Schedule:
        """The noise schedule for images of this (height, width)."""
        shift = resolution_shift(*resolution) if self.shift else 0.0
        match self.schedule:
            case "cosine":
                return CosineSchedule(shift=shift)
            case "linear":
                return LinearSchedule(shift=shift)
            case "flow":
                return FlowSchedule(shift=shift)
        assert_never(self.schedule)

    def __post_init__(self) -> None:
        if self.gamma <= 0 or self.mask_weight <= 0:
            raise ConfigError(f"diffusion: gamma {self.gamma} and mask_weight {self.mask_weight} must be above 0.")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """How the distance between the net's output and its target is measured.

    kind                       l2 is the paper's; l1; huber is quadratic below `huber_delta` and linear above
    perceptual                 a second term on the predicted clean image, inside the agnostic mask: `lpips` needs the
                               package of that name and its weights, `nlpd` nothing  [drape.training.perceptual]
    perceptual_weight          its factor
    perceptual_max_t           only for images drawn with t below this: with more noise the clean image is a guess
    perceptual_start_images    it begins after so many images, when the guess is worth looking at
    """

    kind: Literal["l2", "l1", "huber"] = "l2"
    huber_delta: float = 0.1
    perceptual: Literal["none", "lpips", "nlpd"] = "none"
    perceptual_weight: float = 0.1
    perceptual_max_t: float = 0.3
    perceptual_start_images: int = 0

    def __post_init__(self) -> None:
        if self.huber_delta <= 0:
            raise ConfigError(f"loss.huber_delta is {self.huber_delta}, expected a number above 0 such as 0.1.")
        if not 0 < self.perceptual_max_t <= 1:
            raise ConfigError(f"loss.perceptual_max_t is {self.perceptual_max_t}, expected a time in (0, 1].")
        if self.perceptual_weight < 0 or self.perceptual_start_images < 0:
            raise ConfigError("loss: perceptual_weight and perceptual_start_images must not be negative.")


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

    fit         "whole" keeps the pictures as they are, and their aspect ratio must be the net's; "square" cuts people
                to squares around the upper body and pads flat clothes, for square nets  [drape.data.crop]
    pose        "read" needs joints for every person; "null" asks for the null pose explicitly
    mask        "computed" makes the agnostic mask from parse and joints; "shipped" reads the data set's own
    settings    which targets to train on: "paired", people in their own cloth; with "counterfactual", also in
                another (mannequin sets only, where that truth is known)
    flip        probability of mirroring person, cloth, masks and joints together
    """

    layout: Literal["viton-hd", "dresscode"] = "viton-hd"
    cloth_kind: Literal["flat", "worn"] = "flat"
    fit: Literal["whole", "square"] = "whole"
    agnostic: Literal["v3.2", "paper"] = "v3.2"
    mask: Literal["computed", "shipped"] = "computed"
    pose: Literal["read", "null"] = "read"
    settings: tuple[Literal["paired", "counterfactual"], ...] = ("paired",)
    flip: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"data.flip is {self.flip}, a probability must lie in [0, 1].")
        if self.layout == "dresscode":
            for name, value, only in (("cloth_kind", self.cloth_kind, "flat"), ("mask", self.mask, "computed")):
                if value != only:
                    raise ConfigError(
                        f"data.{name} is {value} but the dresscode layout ships none. Set data.{name}={only}."
                    )
            if "counterfactual" in self.settings:
                raise ConfigError('data.settings names "counterfactual", a truth that only mannequin sets have.')
        if self.settings not in (("paired",), ("paired", "counterfactual")):
            raise ConfigError(
                f'data.settings is {list(self.settings)}. Use ["paired"] or ["paired", "counterfactual"].'
            )


MOST_BETA1_BF16 = 0.95
"""Steps of less than half of what bfloat16 resolves are lost, so the mean of a constant gradient stops short of it: by
1.6 % with a beta of 0.9, 4 % with 0.95, 20 % with 0.99."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser, and its learning rate over the run: warm-up counted in images, the rest in shares of the run.

    kind           adam has no weight decay, as torch's own would be an L2 penalty that Adam distorts;
                   adamw8bit keeps its moments in 8 bits: less memory, and known to harm diffusion training
    momentum       of sgd
    first_moment   how adam and adamw keep the mean of gradients: bf16 is half the memory, and did not affect training
                   where it was tried  [Zhai et al. 2022, sec. 3.4]
    schedule       wsd: constant, then linear to 0 over the last `decay` of the run; cosine: to 0 over the whole run
    decay          share of the run; the paper uses 0
    grad_clip      the largest global gradient norm; 0 turns clipping off
    fused          one kernel for all tensors
    spike_factor   a gradient norm of more than so many times the median of the last steps is recorded; 0 looks for none
    in_backward    update each weight as soon as its gradient is there and free it: gradients never exist together,
                   so nothing can be clipped or accumulated  [Lv et al. 2023, LOMO]
    """

    kind: Literal["adamw", "adam", "sgd", "adamw8bit"] = "adamw"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    momentum: float = 0.9
    first_moment: Literal["fp32", "bf16"] = "fp32"
    weight_decay: float = 0.0
    warmup_images: int = 10_000
    schedule: Literal["wsd", "cosine", "constant"] = "wsd"
    decay: float = 0.2
    grad_clip: float = 1.0
    spike_factor: float = 10.0
    fused: bool = True
    in_backward: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.lr < 1e3:
            raise ConfigError(f"optim.lr is {self.lr}, expected a number above 0 such as 1e-4.")
        if not all(0 <= beta < 1 for beta in (*self.betas, self.momentum)):
            raise ConfigError(
                f"optim: betas {list(self.betas)} and momentum {self.momentum} must lie in [0, 1), such as 0.9."
            )
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"optim.decay is {self.decay}, expected a share of the run in [0, 1].")
        if self.warmup_images < 0 or self.grad_clip < 0 or self.weight_decay < 0:
            raise ConfigError("optim: warmup_images, grad_clip and weight_decay must not be negative.")
        if self.kind == "adam" and self.weight_decay > 0:
            raise ConfigError(
                f"optim.weight_decay is {self.weight_decay:g}, but adam has none. "
                "Set optim.kind=adamw, or optim.weight_decay=0."
            )
        if self.first_moment == "bf16" and (self.kind not in ("adam", "adamw") or self.betas[0] > MOST_BETA1_BF16):
            raise ConfigError(
                f"optim.first_moment=bf16 is for adam and adamw with a first beta of at most {MOST_BETA1_BF16:g}, but "
                f"optim.kind is {self.kind} and optim.betas {list(self.betas)}. Set optim.first_moment=fp32."
            )
        if self.in_backward and self.grad_clip > 0:
            raise ConfigError(
                f"optim.in_backward frees each gradient before the norm of all is known, but optim.grad_clip is "
                f"{self.grad_clip:g}. Set optim.grad_clip=0."
            )


LONGEST_EMA = 0.28
"""Largest relative length of an average; the plain mean over the whole run, the end of the family, has 12^-0.5."""


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Averages of the weights with power-function profiles.  [Karras et al. 2024, sec. 3]

    lengths          relative lengths sigma_rel: the standard deviation of the average's memory as a share of the run
                     so far.  The first is what previews, validation and the final weights show
    snapshot_every   images between two stored averages, from which any other length can be made; 0 stores none
    device           "cpu" keeps the averages out of a GPU's memory
    """

    lengths: tuple[float, ...] = (0.05, 0.1)
    snapshot_every: int = 50_000
    device: Literal["same", "cpu"] = "same"

    def __post_init__(self) -> None:
        if not self.lengths or not all(0 < length <= LONGEST_EMA for length in self.lengths):
            raise ConfigError(
                f"ema.lengths is {list(self.lengths)}, expected one or more in (0, {LONGEST_EMA:g}] such as 0.05."
            )
        if len(set(self.lengths)) < len(self.lengths):
            raise ConfigError(f"ema.lengths is {list(self.lengths)}: each length once.")
        if self.snapshot_every < 0:
            raise ConfigError(f"ema.snapshot_every is {self.snapshot_every}, expected images, or 0 for none.")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """What of the net is trained.  [drape.training.finetune]

    train   everything; the attention layers alone; or low-rank additions to frozen weights  [Hu et al. 2022]
    rank    of those additions
    alpha   they are scaled by alpha / rank
    """

    train: Literal["all", "attention", "lora"] = "all"
    rank: int = 8
    alpha: float = 8.0

    @property
    def scale(self) -> float:
        """What a low-rank addition is multiplied by."""
        return self.alpha / self.rank

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ConfigError(f"finetune: rank {self.rank} must be at least 1 and alpha {self.alpha} above 0.")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """The stable validation: people never trained on, fixed noise.  [drape.training.validation]

    every      images between two validations; 0 for none
    pairs      how many pairs at most
    levels     noise levels, stratified, that the pairs are spread over
    held_out   the largest share of the training split's people that is held out for it
    """

    every: int = 20_000
    pairs: int = 64
    levels: int = 16
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if self.every < 0 or self.pairs < 1 or self.levels < 4:
            raise ConfigError(
                f"validation: every {self.every} must be 0 or more, pairs {self.pairs} at least 1, "
                f"levels {self.levels} at least 4."
            )
        if not 0 <= self.held_out <= 0.5:
            raise ConfigError(f"validation.held_out is {self.held_out}, expected a share in [0, 0.5].")
