"""The nets drape trains, from the paper's two to one for two CPU cores.  One function each."""

from dataclasses import replace

from drape.nets.config import ParallelUNetConfig


def paper_128() -> ParallelUNetConfig:
    """The 128x128 Parallel-UNet: 1.13 B parameters.  [Zhu et al. 2023, fig. 2 and A.1]"""
    return ParallelUNetConfig(
        channels=(128, 256, 512, 1024),
        repeats=(3, 4, 6, 7),
        cloth_channels=(128, 256, 512, 1024),
        cloth_encoder_repeats=(3, 4, 6, 7),
        cloth_decoder_repeats=(0, 0, 6, 7),
        self_attention=(2, 3),
        encoder_cross=((2, 2), (3, 3)),
        decoder_cross=((2, 2), (3, 3)),
    )


def paper_256() -> ParallelUNetConfig:
    """The 256x256 Parallel-UNet, fed the 128 result: 1.06 B parameters.  [Zhu et al. 2023, A.1, fig. 8]"""
    return ParallelUNetConfig(
        channels=(128, 128, 256, 512, 1024),
        repeats=(2, 3, 4, 7, 7),
        cloth_channels=(128, 128, 256, 512, 1024),
        cloth_encoder_repeats=(2, 3, 4, 6, 7),
        cloth_decoder_repeats=(0, 0, 0, 0, 7),
        self_attention=(4,),
        encoder_cross=((4, 4),),
        decoder_cross=((4, 4),),
        low_res=True,
    )


def base_128() -> ParallelUNetConfig:
    """About 100 M parameters, for 128x96 on one 24 GB GPU."""
    return replace(
        small_128(),
        channels=(128, 256, 512),
        repeats=(2, 3, 3),
        cloth_channels=(128, 256, 384),
        cloth_encoder_repeats=(2, 2, 2),
        cloth_decoder_repeats=(0, 2, 2),
        embedding_dim=512,
        norm="group",
        resample="conv",
        skips="concat-scaled",
    )


def small_128() -> ParallelUNetConfig:
    """At most 25 M parameters, for 128x96: hours on one GPU.  Every modern choice of the config in one place."""
    return ParallelUNetConfig(
        channels=(64, 128, 256),
        repeats=(2, 3, 3),
        cloth_channels=(64, 128, 192),
        cloth_encoder_repeats=(2, 2, 2),
        cloth_decoder_repeats=(0, 2, 2),
        self_attention=(2,),
        encoder_cross=((1, 1), (2, 2)),
        decoder_cross=((1, 1), (2, 2)),
        head_dim=64,
        embedding_dim=256,
        film_at="mid",
        skips="add-scaled",
        shortcut="identity",
        norm="layer",
        patch=2,
        cloth_sees="cloth",
        places="body",
        pose_maps="limbs",
        qk_norm=True,
    )


def mini_64() -> ParallelUNetConfig:
    """At most 8 M parameters, for 64x48 on two CPU cores: depth at 8x6, the warp at 16x12, detail at 32x24."""
    return replace(
        small_128(),
        channels=(64, 192, 256),
        repeats=(1, 2, 1),
        cloth_channels=(64, 128, 128),
        cloth_encoder_repeats=(1, 2, 0),
        cloth_decoder_repeats=(0, 0, 0),
        encoder_cross=((1, 1),),
        decoder_cross=((0, 1), (1, 1)),
        attend_in="last",
        embedding_dim=128,
        resample="light",
    )
