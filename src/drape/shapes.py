"""The axis vocabulary, and the few tensor aliases that the packages share.

Axes: b batch, c channels, h w person height and width, hc wc cloth height and width, n tokens or
steps, k joints, d features.  Sizes are (height, width), coordinates (x, y).

The annotations are executed by the tests (jaxtyping with beartype) and cost nothing in production.
"""

from jaxtyping import Float
from torch import Tensor

NUM_JOINTS = 18
"""Joints of a pose, in COCO-18 order: nose, neck, then shoulder elbow wrist (right, left), hip knee
ankle (right, left), eyes, ears (right, left).  Left and right are the person's own."""

Image = Float[Tensor, "b 3 h w"]  # RGB in [-1, 1]
AnyImage = Float[Tensor, "b c h w"]  # in [-1, 1], grey or colour: what the mathematics of diffusion asks for
ClothImage = Float[Tensor, "b 3 hc wc"]  # RGB in [-1, 1]
Mask = Float[Tensor, "b 1 h w"]  # 1 inside, 0 outside
Pose = Float[Tensor, "b k 3"]  # x, y in [0, 1] of width and height, visibility 0 or 1
PerSample = Float[Tensor, " b"]
