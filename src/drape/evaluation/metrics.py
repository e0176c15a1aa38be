"""How far an image is from the truth inside a mask, and what a change of cloth changes.

All functions are pure and take batches; images are RGB in [-1, 1], masks 0 or 1, and a pixel outside the mask never
counts.  SSIM and colour differences are scikit-image's.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from drape.shapes import Image, Mask, PerSample

PEAK = 2.0  # of images in [-1, 1]
SSIM_SIGMA = 1.5  # Gaussian window of Wang et al. 2004, 11 pixels wide
SSIM_WINDOW = 11


def psnr(found: Image, truth: Image, mask: Mask) -> PerSample:
    """10 log10(peak^2 / mean squared error), in dB, over the pixels and channels inside the mask of each image.

    inf where they are equal.  Raises ValueError if a mask is empty.
    """
    error = masked_mean((found - truth).double().square().mean(dim=1, keepdim=True), mask)
    return (10 * torch.log10(PEAK**2 / error)).float()


def ssim(found: Image, truth: Image, mask: Mask) -> PerSample:
    """Structural similarity in [-1, 1], the SSIM map averaged inside the mask.  [Wang et al. 2004]

    Windows reach over the edge of the mask, as they must: structure is a matter of neighbourhoods.
    Raises ValueError if a mask is empty or an image is smaller than the window of 11 pixels.
    """
    if min(found.shape[-2:]) < SSIM_WINDOW:
        height, width = found.shape[-2:]
        raise ValueError(f"SSIM looks through a window of {SSIM_WINDOW} pixels, but the images are {height}x{width}.")
    maps = [_ssim_map(x, y) for x, y in zip(_hwc(found), _hwc(truth), strict=True)]
    return masked_mean(torch.from_numpy(np.stack(maps))[:, None].to(mask.device), mask).float()


def colour_error(found: Image, truth: Image, mask: Mask) -> PerSample:
    """Mean CIEDE2000 colour difference of sRGB pixels inside the mask; 1 is just noticeable, black to white is 100.

    Raises ValueError if a mask is empty.
    """
    pairs = zip(_hwc(found), _hwc(truth), strict=True)
    maps = [deltaE_ciede2000(rgb2lab(_unit(x)), rgb2lab(_unit(y))) for x, y in pairs]
    return masked_mean(torch.from_numpy(np.stack(maps))[:, None].to(mask.device), mask).float()


METRICS = {"psnr": psnr, "ssim": ssim, "colour_error": colour_error}
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "colour_error": False}


@dataclass(frozen=True, kw_only=True)
class SwapChange:
    """Mean |change| of the pixels in [-1, 1] when only the cloth changes: inside the mask and outside it.

    A ratio alone proves little, a net that ignores the cloth can have a fair one at a change of 0.001: read both.
    """

    inside: float
    outside: float

    @property
    def ratio(self) -> float:
        """inside / outside; inf if nothing outside changes, nan if nothing changes at all."""
        if self.outside == 0:
            return float("nan") if self.inside == 0 else float("inf")
        return self.inside / self.outside


def swap_change(first: Image, second: Image, mask: Mask) -> SwapChange:
    """What differs between two results for the same people and seeds in two different cloths, over all pixels."""
    change = (first - second).double().abs().mean(dim=1, keepdim=True)
    inside = mask.bool()
    if inside.all() or not inside.any():
        raise ValueError("the masks cover everything or nothing, so inside and outside cannot be compared.")
    return SwapChange(inside=change[inside].mean().item(), outside=change[~inside].mean().item())


def masked_mean(values: Float[torch.Tensor, "b 1 h w"], mask: Mask) -> PerSample:
    """Mean of the values inside the mask of each image, float64.  Raises ValueError if a mask is empty."""
    inside = mask.bool()
    count = inside.sum(dim=(1, 2, 3))
    if (count == 0).any():
        raise ValueError(f"mask {int((count == 0).nonzero()[0])} is empty: nothing can be measured inside it.")
    return torch.where(inside, values.double(), 0.0).sum(dim=(1, 2, 3)) / count


def _hwc(images: Image) -> Float[ndarray, "b h w 3"]:
    return images.detach().permute(0, 2, 3, 1).cpu().double().numpy()


def _unit(image: Float[ndarray, "h w 3"]) -> Float[ndarray, "h w 3"]:
    """[-1, 1] to [0, 1]; what lies outside is clipped, as a screen would."""
    return np.clip((image + 1) / 2, 0, 1)


def _ssim_map(x: Float[ndarray, "h w 3"], y: Float[ndarray, "h w 3"]) -> Float[ndarray, "h w"]:
    _, similarity = structural_similarity(
        x,
        y,
        data_range=PEAK,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    return similarity.mean(axis=-1)
