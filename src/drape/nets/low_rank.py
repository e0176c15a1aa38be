"""Low-rank additions to frozen weights, as parametrisations: one class for linear maps and convolutions, and names by
which a file that holds them can be merged without building the net.  [Hu et al. 2022]
"""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

ORIGINAL = "parametrizations.weight.original"
"""Where torch keeps the weight that is parametrised, instead of `weight`."""
ADAPTER = "parametrizations.weight.0"


class LowRank(nn.Module):
    """weight + alpha / rank * up @ down; `up` starts at zero: fresh, the net is unchanged.  [Hu et al. 2022, sec. 4.1]

    A convolution's weight (out, in, height, width) is taken as the matrix (out, in * height * width).
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.scale = alpha / rank
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        nn.init.normal_(self.down, std=columns**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        kind = weight.device.type
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            return add_low_rank(weight, self.up, self.down, self.scale)

    @staticmethod
    def pays(weight: Tensor, rank: int) -> bool:
        """Whether the two factors have at most half as many parameters as the weight itself."""
        return 2 * rank * (weight.shape[0] + weight[0].numel()) <= weight.numel()


def add_low_rank(weight: Tensor, up: Tensor, down: Tensor, scale: float) -> Tensor:
    """weight + scale * up @ down, in the shape and memory order of `weight`."""
    return weight + (scale * up @ down).view_as(weight)


def base_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of an adapted net under the names of a plain one, without the additions."""
    return {name.replace(ORIGINAL, "weight"): t for name, t in tensors.items() if f".{ADAPTER}." not in name}


def merged_tensors(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The tensors of a plain net that does what the adapted one does; those of a plain net come back as they are."""
    plain = base_tensors(tensors)
    for name in tensors:
        layer = name.removesuffix(f".{ORIGINAL}")
        if layer != name:
            up, down = tensors[f"{layer}.{ADAPTER}.up"], tensors[f"{layer}.{ADAPTER}.down"]
            plain[f"{layer}.weight"] = add_low_rank(tensors[name], up, down, scale)
    return plain
