"""Random streams that depend on names and numbers only: the same in every process, on every machine."""

import hashlib

import numpy as np


def stream(*keys: int | str) -> np.random.Generator:
    """A generator derived from `keys` by blake2b, such as stream(seed, "train", index, "pose")."""
    digest = hashlib.blake2b("/".join(map(str, keys)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
