"""What the tensors of a net are, in words for somebody who has not read its code."""

PLACES = (
    ("conditioner.time", "time embedding"),
    ("conditioner.noise_aug.0", "noise level of the agnostic image"),
    ("conditioner.noise_aug.1", "noise level of the cloth"),
    ("conditioner.noise_aug.2", "noise level of the low-res image"),
    ("conditioner.person_", "pose of the person"),
    ("conditioner.cloth_", "pose of the cloth"),
    ("conditioner.mix", "mixing of embeddings"),
    (".film.", "FiLM"),
    ("cross_attention.to_q", "cross-attention queries"),
    ("cross_attention.to_kv", "cross-attention"),
    ("cross_attention.to_out", "cross-attention output"),
    ("cross_attention.position", "cross-attention places"),
    ("cross_attention.", "cross-attention norms"),
    ("self_attention.to_qkv", "self-attention"),
    ("self_attention.tokens_to_kv", "self-attention to joints,"),
    ("self_attention.to_out", "self-attention output"),
    ("self_attention.", "self-attention norms"),
    ("cloth_stream.", "cloth UNet"),
    ("head.", "output layer"),
    ("", "person UNet"),
)
"""(part of a tensor's name, what it is), the first that fits."""


def described(name: str, piece: str = "") -> str:
    """What a tensor is, by its name in the state dict; `piece` is which of the weights fused in it."""
    words = next(words for part, words in PLACES if part in name)
    if words == "FiLM":
        words += " of the cloth UNet" if name.startswith("cloth_stream.") else " of the person UNet"
    return f"{words} {piece}".strip()
