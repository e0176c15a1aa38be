"""How the doctor asks a denoiser: as a function of noisy images, a level and pairs, with an input exchanged.

The arithmetic (alpha, sigma, what a prediction stands for) is written here again on purpose, from
x_t = alpha x0 + sigma eps and log_snr = log(alpha^2 / sigma^2), so that a fault in the library's own shows.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from drape import sampling
from drape.conditioning import inference_conditions
from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.diffusion.guidance import Denoiser
from drape.diffusion.prediction import Prediction, Target
from drape.doctor.batches import ids_of
from drape.nets.parallel_unet import ParallelUNet
from drape.shapes import Image, PerSample
from drape.training.validation import evaluating, other_clothes

Predictor = Callable[[Image, PerSample, TryOnBatch], Prediction]
"""(x_t, log_snr, pairs) -> what it takes the image and the noise to be.  A row of x_t belongs to the same row of the
pairs, of which it may look at everything but `person`."""

CLOTHS = ("cloth", "cloth null", "cloth noise")
INPUTS = (*CLOTHS, "pose", "cloth pose", "agnostic", "low_res")
TIMES = ("time -", "time +")
NOTHING = "nothing"
CHANGES = (*INPUTS, *TIMES, NOTHING)
"""What can be changed: an input for that of another pair (a cloth for gray, for noise), the time told to the net, or
all conditions for the null ones."""

TIME_SHIFT = 0.25


class OfNet:
    """A net as a `Predictor`, by the sampler's own path.  Made for pairs in turn: those of the last call are kept.

    null   whether every condition is null, as the unconditional half of guidance has it
    """

    def __init__(self, net: ParallelUNet, config: RunConfig, *, null: bool = False) -> None:
        self.net, self.config, self.null = net, config, null
        self._pairs: TryOnBatch | None = None
        self._denoise: Denoiser | None = None

    def __call__(self, x_t: Image, log_snr: PerSample, pairs: TryOnBatch) -> Prediction:
        with evaluating(self.net), torch.inference_mode():
            if self._pairs is not pairs or self._denoise is None:
                conditions = inference_conditions(pairs, self.config, lambda name, image: _noise_of(pairs, name, image))
                if self.null:
                    conditions = conditions.null()
                self._pairs, self._denoise = pairs, sampling.plain_denoiser(self.net, self.config, conditions)
            return self._denoise(x_t, log_snr)


def changed(pairs: TryOnBatch, name: str) -> TryOnBatch | None:
    """The pairs with one input changed; None where there is no such input, or nothing to exchange it for."""
    other = strangers(pairs)
    if name in (*TIMES, NOTHING):
        return replace(pairs)
    if name == "cloth":
        cloths = ((pairs.need("cloth") + 1) * 127.5).round()
        wrong = other_clothes(cloths.cpu(), ids_of(pairs))
        return None if wrong is None else _exchanged(pairs, ("cloth", "cloth_pose"), list(wrong))
    if name == "cloth null":
        return replace(pairs, cloth=torch.zeros_like(pairs.need("cloth")))
    if name == "cloth noise":
        cloth = pairs.need("cloth")
        drawn = [noise(person, "cloth", cloth.shape[1:]) for person in pairs.person_id]
        return replace(pairs, cloth=torch.stack(drawn).to(cloth).clamp(-1, 1))
    field = name.replace(" ", "_")
    value = getattr(pairs, field)
    if value is None or other is None or not value.any():
        return None
    return _exchanged(pairs, (field,), other)


def strangers(pairs: TryOnBatch) -> list[int] | None:
    """For each pair one of another person, each used once where that can be; None if there is one person only."""
    people, size = pairs.person_id, len(pairs)
    turns = [[people[row] != people[(row + turn) % size] for row in range(size)] for turn in range(size)]
    best = max(range(size), key=lambda turn: (sum(turns[turn]), -turn))
    return [(row + best) % size for row in range(size)] if any(turns[best]) else None


def amplitudes(log_snr: PerSample) -> tuple[Tensor, Tensor]:
    """(alpha, sigma), each (b, 1, 1, 1): alpha^2 + sigma^2 = 1 and alpha^2 / sigma^2 = exp(log_snr)."""
    level = log_snr.double().reshape(-1, 1, 1, 1)
    return (1 + torch.exp(-level)).rsqrt().to(log_snr), (1 + torch.exp(level)).rsqrt().to(log_snr)


def encode(target: Target, found: Prediction, log_snr: PerSample) -> Tensor:
    """What the model must have said to be read as this pair at this level."""
    a, s = amplitudes(log_snr)
    said = {"eps": found.eps, "x0": found.x0, "v": a * found.eps - s * found.x0, "flow": found.eps - found.x0}
    return said[target]


def decode(target: Target, said: Tensor, x_t: Image, log_snr: PerSample) -> Prediction:
    """(x0, eps) from what the model said at this level."""
    a, s = amplitudes(log_snr)
    if target == "eps":
        return Prediction(x0=(x_t - s * said) / a, eps=said)
    if target == "x0":
        return Prediction(x0=said, eps=(x_t - a * said) / s)
    if target == "v":
        return Prediction(x0=a * x_t - s * said, eps=s * x_t + a * said)
    return Prediction(x0=(x_t - s * said) / (a + s), eps=(x_t + a * said) / (a + s))


def noise(person: str, place: str, shape: Sequence[int]) -> Tensor:
    """N(0, 1), the same for a person at a place in every measurement."""
    digest = hashlib.blake2b(f"doctor/{person}/{place}".encode("utf-8", "surrogateescape"), digest_size=7).digest()
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int.from_bytes(digest, "big")))


def _exchanged(pairs: TryOnBatch, names: Sequence[str], rows: list[int]) -> TryOnBatch:
    values = {name: getattr(pairs, name) for name in names}
    return replace(pairs, **{name: value[rows] for name, value in values.items() if value is not None})


def _noise_of(pairs: TryOnBatch, name: str, image: Image) -> Image:
    return torch.stack([noise(person, name, image.shape[1:]) for person in pairs.person_id]).to(image)
