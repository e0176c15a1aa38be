"""RunConfig: plain data both ways, unknown keys refused with the nearest name."""

import math

import pytest
import torch

from drape.config import from_dict, override, read_config
from drape.errors import ConfigError
from drape.presets import PRESETS, preset, tiny


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_a_round_trip_through_plain_data(name: str) -> None:
    assert from_dict(preset(name).to_dict()) == preset(name)


def test_a_setting_is_overridden_by_its_dotted_name() -> None:
    config = override(tiny(), ["optim.lr=2e-4", "batch_size=16", "data.pose=null", "data.mask=shipped"])
    assert (config.optim.lr, config.batch_size, config.data.pose, config.data.mask) == (2e-4, 16, "null", "shipped")


def test_settings_that_only_fit_together_need_no_order() -> None:
    pair = ["optim.in_backward=true", "optim.grad_clip=0"]
    assert override(tiny(), pair) == override(tiny(), pair[::-1])
    assert override(tiny(), ['optim={"lr": 0.5}']).optim.lr == 0.5
    assert override(tiny(), ["name=7", "cloth_resolution=null"]).name == "7"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("optim.learning_rate=1", "unknown setting optim.learning_rate"),
        ("optim.betaz=[0.9,0.99]", "optim.betas"),
        ("optim.lr", "no '='"),
        ("optim.lr=fast", "optim.lr"),
        ("batch_size=0", "batch_size is 0"),
        ("seed.x=1", "single value"),
        ("resolution=[33,24]", "multiples of"),
        ("noise_aug.sample=0.5", "train_max"),
        ("data.pose=guess", "data.pose"),
        ('data={"layout": "dresscode", "cloth_kind": "worn"}', "Set data.cloth_kind=flat"),
        ('data={"layout": "dresscode", "mask": "shipped"}', "Set data.mask=computed"),
        ('data={"layout": "dresscode", "settings": ["paired", "counterfactual"]}', "only mannequin sets"),
        ("diffusion.gamma=NaN", "diffusion.gamma is nan, expected a finite number"),
        ("optim.lr=1e999", "optim.lr is inf"),
        ("=1", "unknown setting"),
        ('optim={"rl": 1}', "Did you mean optim.lr"),
        ("target=flow", "Did you mean diffusion.target?"),
        ("lr=1e-4", "Did you mean optim.lr?"),
        ("tarjet=flow", "Did you mean diffusion.target?"),
        ("loss.lr=1", "Did you mean optim.lr?"),
        ("kind=l1", "Did you mean optim.kind or loss.kind?"),
        ("batchsize=8", "Did you mean batch_size?"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_in_one_line_that_names_it(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(tiny(), [setting])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean mini-64"):
        preset("mini64")


def test_a_config_file_without_its_required_keys_says_which(tmp_path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"name": "x"}')
    with pytest.raises(ConfigError, match="lacks net, resolution"):
        read_config(path)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "flow"])
def test_every_schedule_is_shifted_for_the_resolution(schedule: str) -> None:
    diffusion = override(tiny(), [f"diffusion.schedule={schedule}"]).diffusion
    half = torch.tensor(0.5)
    small, large = (diffusion.build_schedule(size).log_snr(half).item() for size in ((64, 64), (128, 128)))
    assert large == pytest.approx(small - 2 * math.log(2), abs=0.01)
