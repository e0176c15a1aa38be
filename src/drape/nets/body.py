"""Geometry from the joints alone: maps that draw the pose for convolutions, and places on the body for attention.

Both say to a small net what a large one has to find out: where the limbs are, and which place of a shirt lies on which
place of a torso.  Pure functions of the joints, differentiable, and nothing where a joint is missing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from drape.nets.config import PoseMaps
from drape.nets.embeddings import is_visible
from drape.shapes import NUM_JOINTS, Pose

NECK, RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_HIP, LEFT_HIP = 1, 2, 5, 8, 11
LIMBS = ((2, 3), (3, 4), (5, 6), (6, 7), (2, 5), (2, 8), (5, 11), (8, 11), (8, 9), (11, 12), (0, 1))
"""Pairs of joints: upper arm and forearm right and left, shoulders, sides, hips, thighs, neck to nose."""

FLAT_ORIGIN, FLAT_RIGHT, FLAT_DOWN = (0.5, 0.14), (0.42, 0.0), (0.0, 0.72)
"""Where a centred flat cloth that fills its image has its mid-shoulder point, its shoulder line and its back length:
the frame of whoever has no joints."""


def num_maps(kind: PoseMaps) -> int:
    """Channels of `pose_maps`."""
    return {"none": 0, "joints": NUM_JOINTS, "limbs": NUM_JOINTS + 3 * len(LIMBS)}[kind]


def pose_maps(kind: PoseMaps, pose: Pose, height: int, width: int, sigma: float = 0.05) -> Float[Tensor, "b m h w"]:
    """Gaussian spots at the joints; for `limbs` also, for each limb, a soft stripe along it, and the stripe times the
    position along (0 to 1) and across (in sigmas, right-hand positive).  0 where a joint is missing.

    sigma   radius, in image heights
    """
    aspect = width / height
    x, y = _grid(height, width, pose.device)
    joint_x, joint_y, visible = _joints(pose)
    dx, dy = (x - joint_x) * aspect, y - joint_y  # (b, k, h, w), in image heights
    spots = visible * torch.exp(-(dx.square() + dy.square()) / (2 * sigma**2))
    if kind == "joints":
        return spots
    start, end = (list(ends) for ends in zip(*LIMBS, strict=True))
    limb_x, limb_y = (joint_x[:, end] - joint_x[:, start]) * aspect, joint_y[:, end] - joint_y[:, start]
    length2 = limb_x.square() + limb_y.square() + 1e-4
    along = ((dx[:, start] * limb_x + dy[:, start] * limb_y) / length2).clamp(0, 1)
    off_x, off_y = dx[:, start] - along * limb_x, dy[:, start] - along * limb_y
    stripe = visible[:, start] * visible[:, end] * torch.exp(-(off_x.square() + off_y.square()) / (2 * sigma**2))
    across = (off_y * limb_x - off_x * limb_y) / (length2.sqrt() * sigma)
    return torch.cat([spots, stripe, stripe * along, stripe * across], dim=1)


def image_places(pose: Pose, height: int, width: int) -> Float[Tensor, "b n 2"]:
    """(x, y) of each pixel centre in [0, 1] of width and height, row by row; the joints only say how many samples."""
    x, y = _grid(height, width, pose.device)
    places = torch.stack(torch.broadcast_tensors(x, y), dim=-1).reshape(1, height * width, 2)
    return places.expand(pose.shape[0], -1, -1)


def body_places(pose: Pose, height: int, width: int) -> Float[Tensor, "b n 2"]:
    """(x, y) of each pixel on the cloth it would show if the cloth were laid flat and lay on the body without folds.

    The affine frame of shoulders and mid-hips is mapped to that of a flat cloth.  Without these four joints, or for
    a cloth lying flat, the frame is the image itself, so both kinds of photo speak of the same places.  A body seen
    from the side has almost no shoulder line: its inverse is damped, and places are clamped to [-1, 2].
    """
    origin, axes = _torso_frame(pose)
    inverse = _damped_inverse(axes)
    flat = torch.tensor([FLAT_RIGHT, FLAT_DOWN], device=pose.device).T
    offset = image_places(pose, height, width) - origin[:, None]
    places = offset @ (flat @ inverse).transpose(1, 2) + torch.tensor(FLAT_ORIGIN, device=pose.device)
    return places.clamp(-1, 2)


def _torso_frame(pose: Pose) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 2 2"]]:
    """Mid-shoulder point; columns right-to-left shoulder and mid-shoulder to mid-hip.  The flat frame where missing."""
    torso = pose[:, [RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_HIP, LEFT_HIP]]
    visible = is_visible(torso).all(dim=1)  # (b, 1)
    right, left, right_hip, left_hip = torch.where(visible[:, None], torso[..., :2], 0.0).float().unbind(1)
    origin, across = (right + left) / 2, left - right
    down = (right_hip + left_hip) / 2 - origin
    flat_origin, flat_right, flat_down = (
        torch.tensor(v, device=pose.device) for v in (FLAT_ORIGIN, FLAT_RIGHT, FLAT_DOWN)
    )
    origin = torch.where(visible, origin, flat_origin)
    axes = torch.stack([torch.where(visible, across, flat_right), torch.where(visible, down, flat_down)], dim=2)
    return origin, axes


def _damped_inverse(a: Float[Tensor, "b 2 2"], damping: float = 1e-3) -> Float[Tensor, "b 2 2"]:
    """(A^T A + damping)^-1 A^T, in closed form: bounded where A has no inverse."""
    p, q, r = a[:, :, 0].square().sum(1), (a[:, :, 0] * a[:, :, 1]).sum(1), a[:, :, 1].square().sum(1)
    p, r = p + damping, r + damping
    adjugate = torch.stack([torch.stack([r, -q], 1), torch.stack([-q, p], 1)], 1)
    return adjugate @ a.transpose(1, 2) / (p * r - q * q)[:, None, None]


def _joints(pose: Pose) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and visibility as (b, k, 1, 1) float32; 0 for what is not visible, whatever is stored there."""
    visible = is_visible(pose)
    place = torch.where(visible, pose[..., :2], 0.0).float()
    return place[..., 0, None, None], place[..., 1, None, None], visible[..., None].float()


def _grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x (1, width) and y (height, 1) of the pixel centres, in [0, 1] of width and height."""
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    return x[None], y[:, None]
