"""TryOnPipeline: trained weights as something to call."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image as PillowImage

from drape import bundled
from drape.checkpoint import Weights, load_into, load_weights
from drape.config import RunConfig
from drape.data.loader import collate
from drape.data.sample import TryOnBatch, TryOnSample
from drape.devices import pick_device
from drape.diffusion.samplers import OnStep
from drape.errors import CheckpointError, ConfigError, DataError
from drape.nets.conditions import check_pose, check_range
from drape.nets.parallel_unet import ParallelUNet
from drape.pipeline.compose import compose, to_picture
from drape.pipeline.inputs import Cloth, Person, find_cloth, find_person, together
from drape.sampling import SamplingConfig, sample_batch
from drape.shapes import Image

SETTINGS: dict[str, SamplingConfig] = {
    "quick": SamplingConfig(steps=8),
    "standard": SamplingConfig(),
    "fine": SamplingConfig(steps=50),
    "paper-256": SamplingConfig(sampler="ddpm", steps=128, guidance=2.0),
    "paper-128": SamplingConfig(sampler="ddpm", steps=256, guidance=2.0),
}
"""Named ways to sample, fast to slow; the last two are those of the paper's two nets.  [Zhu et al. 2023, sec. 4]"""

MAX_STEPS = 1000
MAX_SEED = 2**62
BATCH = 18
"""Images sampled at once: enough to keep a CPU busy, little memory."""

Sampler = Literal["dpmpp_2m", "ddim", "ddpm"]
Samples = TryOnBatch | Sequence[TryOnSample]
OnImages = Callable[[int, int], object]


@dataclass(frozen=True, kw_only=True)
class Dressed:
    """A person in a cloth.

    image     at the size of the photo: made by the net inside the agnostic mask, the photo's own pixels outside (see
              compose)
    raw       everything the net drew, at the net's size
    seconds   of sampling, the share of this image in its batch
    """

    person: Person
    cloth: Cloth
    image: PillowImage.Image
    raw: PillowImage.Image
    seed: int
    seconds: float


class TryOnPipeline:
    """A net with the settings it was trained by.

        pipeline = TryOnPipeline.from_pretrained("best")
        pipeline.dress("maya", "rugby-tee").image.save("out.png")

    Calling it samples records; `dress` and `dress_all` take people and clothes by name and set the result into the
    person's own photo.  An image depends on its person, its cloth and its seed, never on its batch.
    """

    def __init__(self, weights: Weights, *, name: str, device: torch.device) -> None:
        """Raises CheckpointError if the tensors do not fit the net of their own config, or are no numbers."""
        self.name, self.device, self.provenance = name, device, weights.provenance
        self.config = _inference_config(weights.config, device)
        if self.config.net.low_res:
            raise CheckpointError(f"{name} refines the image of a smaller net. Use the weights of a base net to dress.")
        bad = next((key for key, tensor in weights.tensors.items() if not torch.isfinite(tensor).all()), None)
        if bad is not None:
            raise CheckpointError(f"{name}: {bad} holds values that are no numbers. Use an earlier state of its run.")
        net = ParallelUNet(self.config.net)
        load_into(net, weights.tensors, name)
        net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.net = net.eval()

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = "best", device: str = "auto", *, images: int = 1
    ) -> "TryOnPipeline":
        """Bundled weights by name, or those in a file or in the folder of a run.

        "best" is the largest bundled net that suits the machine and the number of images you are going to ask for.
        Raises CheckpointError if they are not there or cannot be read, ConfigError for an unknown device.
        """
        where = pick_device(device)
        name = str(name_or_path)
        if name == "best":
            name = bundled.best_weights(has_gpu=where.type == "cuda", images=images)
        return cls(load_weights(bundled.weights_file(name)), name=name, device=where)

    def __call__(
        self,
        samples: Samples,
        *,
        seeds: Sequence[int],
        steps: int | None = None,
        guidance: float | None = None,
        sampler: Sampler | None = None,
        on_step: OnStep | None = None,
    ) -> Image:
        """One image per record, RGB in [-1, 1], on the CPU.  What is not given is SETTINGS["standard"].

        Raises DataError for records the net cannot use, ConfigError for settings that cannot work.
        """
        how = sampling("standard", steps=steps, guidance=guidance, sampler=sampler)
        return self._sample(samples, seeds, how, on_step)

    def dress(
        self, person: Person | str, cloth: Cloth | str, *, seed: int = 0, how: SamplingConfig = SETTINGS["standard"]
    ) -> Dressed:
        """One person in one cloth.  Raises DataError for an unknown name, a plain photo of a person, damaged files."""
        return self.dress_all([person], [cloth], seed=seed, how=how)[0][0]

    def dress_all(
        self,
        people: Sequence[Person | str],
        clothes: Sequence[Cloth | str],
        *,
        seed: int = 0,
        how: SamplingConfig = SETTINGS["standard"],
        on_images: OnImages | None = None,
    ) -> list[list[Dressed]]:
        """Everybody in everything: one row per person, one column per cloth, every image from the same seed.

        on_images   called with (steps done, steps in all) as the sampler goes
        """
        wearers = [find_person(person, self.config) if isinstance(person, str) else person for person in people]
        worn = [find_cloth(cloth, self.config) if isinstance(cloth, str) else cloth for cloth in clothes]
        pairs = [(person, cloth) for person in wearers for cloth in worn]
        results: list[Dressed] = []
        num_batches = -(-len(pairs) // BATCH)
        for number in range(num_batches):
            chunk = pairs[number * BATCH : (number + 1) * BATCH]
            results += self._dress_batch(chunk, seed, how, _progress(on_images, number, num_batches, how.steps))
        return [results[row * len(worn) : (row + 1) * len(worn)] for row in range(len(wearers))]

    def _dress_batch(
        self, pairs: list[tuple[Person, Cloth]], seed: int, how: SamplingConfig, on_step: OnStep | None
    ) -> list[Dressed]:
        begun = time.perf_counter()
        images = self._sample([together(*pair) for pair in pairs], [seed] * len(pairs), how, on_step)
        seconds = (time.perf_counter() - begun) / len(pairs)
        return [
            Dressed(
                person=person, cloth=cloth, seed=seed, seconds=seconds, raw=to_picture(image),
                image=compose(person.photo, person.mask, person.background, image, box=person.box),
            )
            for (person, cloth), image in zip(pairs, images, strict=True)
        ]  # fmt: skip

    def _sample(self, samples: Samples, seeds: Sequence[int], how: SamplingConfig, on_step: OnStep | None) -> Image:
        batch = samples if isinstance(samples, TryOnBatch) else collate(samples)
        check_seeds(seeds, len(batch))
        check_records(batch, self.config)
        return sample_batch(self.net, self.config, batch.to(self.device), seeds, how, on_step=on_step).cpu()


def sampling(
    setting: str, *, steps: int | None = None, guidance: float | None = None, sampler: Sampler | None = None
) -> SamplingConfig:
    """A named setting with what is given put over it.  Raises ConfigError for an unknown name or an absurd value."""
    if setting not in SETTINGS:
        raise ConfigError(f"there is no setting {setting!r}. Settings: {', '.join(SETTINGS)}.")
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise ConfigError(f"steps is {steps}, expected 1 to {MAX_STEPS}. 16 are usually enough.")
    if guidance is not None and not 0 <= guidance <= 100:
        raise ConfigError(f"guidance is {guidance}, expected 0 to 100. 1 turns it off, 1.5 is usual.")
    given: dict[str, Any] = {"steps": steps, "guidance": guidance, "sampler": sampler}
    return replace(SETTINGS[setting], **{name: value for name, value in given.items() if value is not None})


def check_seeds(seeds: Sequence[int], images: int) -> None:
    """Raises ConfigError unless there is one seed per image, each from 0 to 2^62."""
    if len(seeds) != images:
        raise ConfigError(f"{len(seeds)} seeds for {images} images. Give one seed per image.")
    bad = next((seed for seed in seeds if not 0 <= seed <= MAX_SEED), None)
    if bad is not None:
        raise ConfigError(f"the seed is {bad}, expected a whole number from 0 to 2^62. Use 0, say.")


def check_records(batch: TryOnBatch, config: RunConfig) -> None:
    """Raises DataError if the batch lacks something, has another size than the net's, or another range than [-1, 1]."""
    wanted = {"person": config.resolution, "agnostic": config.resolution, "cloth": config.cloth_size}
    for name, size in wanted.items():
        image = getattr(batch, name)
        if image is None:
            raise DataError(f"the records have no {name}. Ask the reader for it.")
        if tuple(image.shape[-2:]) != size:
            found = "x".join(map(str, image.shape[-2:]))
            raise DataError(f"{name} is {found}, expected {size[0]}x{size[1]} (height x width). Read it at that size.")
    if batch.pose is None:
        raise DataError("the records have no pose. Ask the reader for it, or for the null pose.")
    assert batch.agnostic is not None and batch.cloth is not None
    # One check for all images: a white cloth alone has no value below 0, and is fine.
    check_range(torch.cat([batch.agnostic.flatten(), batch.cloth.flatten()]).reshape(1, 1, -1), "the batch")
    check_pose(batch.pose, "pose")


def _inference_config(config: RunConfig, device: torch.device) -> RunConfig:
    """On a CPU in fp32, whatever it was trained in: the same picture on every processor."""
    return replace(config, precision="fp32") if device.type == "cpu" else config


def _progress(on_images: OnImages | None, batch: int, batches: int, steps: int) -> OnStep | None:
    if on_images is None:
        return None
    return lambda step, *_: on_images(batch * steps + step + 1, batches * steps)
