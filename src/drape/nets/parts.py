"""The sub-networks of a net, by the names of its tensors: what a stranger would call them."""

from typing import Literal, get_args

SubNet = Literal["person", "cloth", "attention", "embedding"]
SUB_NETS: tuple[SubNet, ...] = get_args(SubNet)


def sub_net_of(tensor: str) -> SubNet:
    """Where a tensor belongs, by its name in the state dict.

    person      convolutions, norms and self-attention of the person's UNet, with its head
    cloth       the cloth's UNet
    attention   cross-attention from person to cloth, the implicit warp  [Zhu et al. 2023, sec. 3.2]
    embedding   noise level, noise augmentation, poses and pooled images, and the FiLM layers that they steer
    """
    if "cross_attention." in tensor:
        return "attention"
    if tensor.startswith("conditioner.") or ".film." in tensor:
        return "embedding"
    return "cloth" if tensor.startswith("cloth_stream.") else "person"
