"""What a net costs, without building it: parameters and floating-point operations, counted on the meta device."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from drape.nets.conditions import Conditions
from drape.nets.config import ParallelUNetConfig
from drape.nets.parallel_unet import ParallelUNet
from drape.shapes import NUM_JOINTS


@dataclass(frozen=True, kw_only=True)
class Cost:
    """parameters         all of the net
    person_flops       one forward for one image, given the cloth features
    cloth_flops        computing these once
    A multiplication and an addition count as two.
    """

    parameters: int
    person_flops: int
    cloth_flops: int

    @property
    def forward_flops(self) -> int:
        return self.person_flops + self.cloth_flops


def count(config: ParallelUNetConfig, size: tuple[int, int], cloth_size: tuple[int, int] | None = None) -> Cost:
    """Cost of the net at (height, width) `size` and `cloth_size` (the same, if not given)."""
    with torch.device("meta"), torch.no_grad():
        net = ParallelUNet(config)
        conditions = blank_conditions(config, size, cloth_size or size)
        x_t, log_snr = torch.zeros_like(conditions.agnostic), torch.zeros(1)
        with FlopCounterMode(display=False) as cloth_counter:
            features = net.encode_cloth(conditions, log_snr)
        with FlopCounterMode(display=False) as person_counter:
            net(x_t, log_snr, conditions, features)
    return Cost(
        parameters=sum(p.numel() for p in net.parameters()),
        person_flops=person_counter.get_total_flops(),
        cloth_flops=cloth_counter.get_total_flops(),
    )


def blank_conditions(
    config: ParallelUNetConfig, size: tuple[int, int], cloth_size: tuple[int, int], batch: int = 1
) -> Conditions:
    """The null condition in the shapes `config` expects, on the current default device."""
    return Conditions(
        agnostic=torch.zeros(batch, 3, *size),
        cloth=torch.zeros(batch, 3, *cloth_size),
        pose=torch.zeros(batch, NUM_JOINTS, 3),
        cloth_pose=torch.zeros(batch, NUM_JOINTS, 3),
        noise_aug=torch.zeros(batch, config.num_noise_aug),
        low_res=torch.zeros(batch, 3, *(side // 2 for side in size)) if config.low_res else None,
    )
