"""Tensors that may be split over the processes of a run (FSDP2): the whole of one, and filling one from the whole."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor; where it is split, all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(tensor: Tensor, whole: Tensor) -> None:
    """Copy whole values into a tensor, each process its own part."""
    if isinstance(tensor, DTensor):
        local = whole.to(tensor.device, tensor.dtype)
        whole = distribute_tensor(local, tensor.device_mesh, tensor.placements, src_data_rank=None)
    tensor.copy_(whole)
