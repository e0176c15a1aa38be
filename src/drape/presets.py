"""Named runs.  A preset is a function that returns a `RunConfig`; what hardware it is for and what it has
reached stands in its docstring, from runs recorded in docs/log.md.
"""

from collections.abc import Callable
from dataclasses import replace

from drape.config import RunConfig
from drape.errors import ConfigError, did_you_mean
from drape.nets import sizes
from drape.settings import (
    DataConfig,
    DiffusionConfig,
    EmaConfig,
    NoiseAugConfig,
    OptimConfig,
    ValidationConfig,
)

PAPER_DIFFUSION = DiffusionConfig(target="eps", shift=False, weighting="uniform")
PAPER_OPTIM = OptimConfig(lr=1e-4, betas=(0.9, 0.999), warmup_images=10_000 * 256, decay=0.0, grad_clip=0.0)
PAPER_IMAGES = 500_000 * 256


def mini_64() -> RunConfig:
    """64x48 on a CPU.  Trained on mannequins and bundled; see docs/log.md."""
    return RunConfig(
        name="mini-64",
        net=sizes.mini_64(),
        resolution=(64, 48),
        diffusion=DiffusionConfig(mask_weight=4.0),
        data=DataConfig(settings=("paired", "counterfactual")),
        optim=OptimConfig(lr=1e-3, warmup_images=5_000, decay=0.3),
        ema=EmaConfig(snapshot_every=10_000),
        batch_size=48,
        images=300_000,
        precision="bf16",
    )


def tiny() -> RunConfig:
    """32x24, a few seconds on any machine: the same code path as every other preset, for tests and first steps."""
    net = replace(
        sizes.mini_64(),
        channels=(32, 64, 64),
        repeats=(1, 1, 1),
        cloth_channels=(32, 32, 32),
        cloth_encoder_repeats=(1, 1, 0),
        embedding_dim=64,
        head_dim=32,
    )
    return replace(
        mini_64(),
        name="tiny",
        net=net,
        resolution=(32, 24),
        optim=OptimConfig(lr=3e-3, warmup_images=100),
        ema=EmaConfig(snapshot_every=100),
        validation=ValidationConfig(every=200, pairs=8, levels=8),
        batch_size=8,
        images=800,
        precision="fp32",
        checkpoint_every=200,
        preview_every=400,
    )


def small_128() -> RunConfig:
    """128x96 on any GPU.  Not yet trained."""
    return RunConfig(
        name="small-128",
        net=sizes.small_128(),
        resolution=(128, 96),
        diffusion=DiffusionConfig(mask_weight=4.0),
        data=DataConfig(settings=("paired", "counterfactual")),
        optim=OptimConfig(lr=4e-4, warmup_images=20_000),
        batch_size=64,
        images=2_000_000,
        precision="bf16",
    )


def base_128() -> RunConfig:
    """128x96 on VITON-HD with one GPU of 24 GB.  Not yet trained."""
    return RunConfig(
        name="base-128",
        net=sizes.base_128(),
        resolution=(128, 96),
        optim=OptimConfig(lr=2e-4, warmup_images=50_000),
        batch_size=64,
        images=8_000_000,
        precision="bf16",
        checkpoint_every=100_000,
        preview_every=50_000,
    )


def paper_128() -> RunConfig:
    """The paper's 128x128 Parallel-UNet, with its settings where given.  Not yet trained.  [Zhu et al., sec. 4]"""
    return RunConfig(
        name="paper-128",
        net=sizes.paper_128(),
        resolution=(128, 128),
        diffusion=PAPER_DIFFUSION,
        noise_aug=NoiseAugConfig(train_max=1.0),
        data=DataConfig(cloth_kind="worn", fit="square", agnostic="paper", flip=0.0),
        optim=PAPER_OPTIM,
        batch_size=256,
        images=PAPER_IMAGES,
        precision="bf16",
        checkpoint_every=1_000_000,
        preview_every=1_000_000,
    )


def paper_256() -> RunConfig:
    """The 128 -> 256 Parallel-UNet of the paper.  Not yet trained.  [Zhu et al. 2023, app. A]"""
    return replace(paper_128(), name="paper-256", net=sizes.paper_256(), resolution=(256, 256))


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "tiny": tiny,
    "mini-64": mini_64,
    "small-128": small_128,
    "base-128": base_128,
    "paper-128": paper_128,
    "paper-256": paper_256,
}


def preset(name: str) -> RunConfig:
    """The preset of this name.  Raises ConfigError with the nearest name if there is none."""
    if name not in PRESETS:
        advice = did_you_mean(name, PRESETS, otherwise=f"Presets: {', '.join(PRESETS)}.")
        raise ConfigError(f"there is no preset {name!r}. {advice}")
    return PRESETS[name]()
