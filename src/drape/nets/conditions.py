"""What a denoiser is told besides the noisy image, as one record; and the range check for the border.

The record knows the two operations training and guidance need: `null`, the one unconditional state (joint,
because a state that guidance uses must be a state that training shows), and `take`, any selection of samples.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from drape.errors import DataError
from drape.shapes import ClothImage, Image, Pose


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """c_tryon of the paper, already noise-augmented.  [Zhu et al. 2023, sec. 3.1]

    noise_aug    log_snr of the noise added to each conditioning image, in the order agnostic, cloth[, low_res];
                 `drape.conditioning` gives the level of a clean one, the same in training and sampling
    pose         of the person; a null pose is all zeros (every joint invisible)
    cloth_pose   of who wears the cloth in its photo; null for a cloth lying flat
    low_res      result of the stage before, at its own size: the net enlarges it
    """

    agnostic: Image
    cloth: ClothImage
    pose: Pose
    cloth_pose: Pose
    noise_aug: Float[Tensor, "b m"]
    low_res: Float[Tensor, "b 3 hl wl"] | None = None

    def __len__(self) -> int:
        return self.agnostic.shape[0]

    def null(self, where: Bool[Tensor, " b"] | None = None) -> "Conditions":
        """The samples `where` (all, if not given) with every condition set to 0: images mid-gray, joints missing,
        noise levels 0.  [Zhu et al. 2023, sec. 4: "conditional inputs set to 0 for 10 % of training time"]
        """
        if where is None:
            return self._map(torch.zeros_like)
        return self._map(lambda x: x.masked_fill(where.reshape(-1, *[1] * (x.ndim - 1)), 0))

    def take(self, index: Int[Tensor, " n"] | slice) -> "Conditions":
        """The samples at `index`, in that order and as often as it names them."""
        return self._map(lambda x: x[index])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Conditions":
        """On `device`; images in `dtype`, and in channels-last order if they were.  Joints and noise levels keep
        float32: a coordinate in bfloat16 is off by two pixels in 512."""
        moved = {}
        for name, x in self._tensors().items():
            is_image = name in ("agnostic", "cloth", "low_res")
            moved[name] = x.to(device=device, dtype=dtype if is_image else None, non_blocking=True)
        return type(self)(**moved)

    def _tensors(self) -> dict[str, Tensor]:
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: x for name, x in named.items() if x is not None}

    def _map(self, f: Callable[[Tensor], Tensor]) -> "Conditions":
        return type(self)(**{name: f(x) for name, x in self._tensors().items()})


def check_range(image: Float[Tensor, "... c h w"], name: str) -> None:
    """Raises DataError unless `image` looks like RGB in [-1, 1].  For the border (loader, pipeline), never inside a
    net: it reads the values, which would stall a GPU and break a compiled graph.

    A whole batch without one negative value is refused too: that is an image in [0, 1], the silent fault of other
    implementations (a washed-out condition, and a net that never learns to use it).  So pass a batch, or several images
    of a sample together: a photo of a white shirt alone may have nothing darker than mid-gray.
    """
    low, high = float(image.amin()), float(image.amax())
    if not (torch.isfinite(image).all() and high <= 1.5 and low >= -1.5):
        raise DataError(f"{name} has values from {low:.3g} to {high:.3g}; expected RGB in [-1, 1]. {_cure(high)}")
    if low >= 0 and high > 0:
        raise DataError(
            f"{name} has values from {low:.3g} to {high:.3g} and none below 0; expected RGB in [-1, 1]. {_cure(high)}"
        )


def check_pose(pose: Float[Tensor, "... k 3"], name: str) -> None:
    """Raises DataError if a visible joint has no finite coordinate, or a visibility is neither 0 nor 1."""
    visible = pose[..., 2]
    if not ((visible == 0) | (visible == 1)).all():
        raise DataError(
            f"{name}: visibility must be 0 or 1, found {visible.unique().tolist()[:4]}. Threshold it first."
        )
    if not torch.isfinite(pose[visible == 1]).all():
        raise DataError(f"{name}: a joint marked visible has a coordinate that is no number. Store it as (0, 0, 0).")


def _cure(high: float) -> str:
    return "Use image / 127.5 - 1." if high > 2 else "Use image * 2 - 1."
