"""Models of other code bases: the example of the docstring runs, and what is wrong with them is found."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from drape.doctor import foreign
from drape.doctor.finding import Finding
from drape.doctor.foreign import examine_foreign
from drape.doctor.thresholds import Thresholds
from drape.errors import DataError

SIZE = (16, 12)
STEPS = 1000
ALPHAS = torch.cos(torch.linspace(0.01, 1.56, STEPS, dtype=torch.float64)).square()
LIMITS = Thresholds(probe_levels=8)


def alpha_bar(t: Tensor) -> Tensor:
    return ALPHAS[(999 * t).round().long()]


def some_batches(count: int = 2, size: int = 8, *, seed: int = 0) -> list[dict[str, Any]]:
    chance = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        shade = torch.rand(size, 3, 1, 1, generator=chance) * 1.6 - 0.8
        cloth = shade.expand(-1, 3, *SIZE).contiguous()
        mask = torch.zeros(size, 1, *SIZE)
        mask[:, :, 4:12, 3:9] = 1
        ground = torch.rand(size, 3, 1, 1, generator=chance).expand(-1, 3, *SIZE) * 1.6 - 0.8
        pose = torch.rand(size, 18, 3, generator=chance)
        person = ground * (1 - mask) + cloth * mask
        agnostic = ground * (1 - mask)
        found.append({"person": person, "cloth": cloth, "agnostic": agnostic, "agnostic_mask": mask, "pose": pose})
    return found


def model(*, cloth: float = 1.0, error: float = 0.05, time: bool = True) -> Callable[..., Tensor]:
    """A closed-form model: it takes the picture to be the agnostic one with `cloth` of the cloth's colour in the mask,
    and is sure of that."""

    def denoise(x_t: Tensor, t: Tensor, batch: dict[str, Any]) -> Tensor:
        level = t if time else torch.full_like(t, 0.3)
        power = alpha_bar(level).to(x_t).reshape(-1, 1, 1, 1)
        guess = batch["agnostic"] + cloth * batch["agnostic_mask"] * batch["cloth"]
        guess = guess + error * (batch["pose"].mean() + batch["cloth"].mean(dim=(1, 2, 3), keepdim=True) * cloth)
        return (x_t - power.sqrt() * guess) / (1 - power).sqrt()

    return denoise


def examined(denoise: Callable[..., Tensor], **more: Any) -> dict[str, Finding]:
    found = examine_foreign(denoise, some_batches(), alpha_bar=alpha_bar, thresholds=LIMITS, **more)
    return {finding.name: finding for finding in found}


def test_the_example_of_the_docstring_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert foreign.__doc__ is not None
    lines = re.findall(r"^    (.*)$|^$", foreign.__doc__, flags=re.MULTILINE)
    told: list[tuple[int, ...]] = []

    def unet(given: Tensor, step: Tensor, cloth: Tensor, pose: Tensor) -> Tensor:
        told.append((given.shape[1], int(step.min()), int(step.max())))
        x_t, agnostic, mask = given.split([3, 3, 1], dim=1)
        batch = {"agnostic": agnostic, "agnostic_mask": mask, "cloth": cloth, "pose": pose}
        return model()(x_t, step / 999, batch)

    exec("\n".join(lines), {"unet": unet, "alphas_cumprod": ALPHAS, "batches": some_batches()})
    printed = capsys.readouterr().out
    assert "yardsticks" in printed and "cloth gap" in printed
    assert all(channels == 7 and 0 <= low <= high <= 999 for channels, low, high in told)


def test_a_model_that_wears_the_cloth_is_told_from_one_that_does_not() -> None:
    assert examined(model())["cloth gap"].status == "ok"
    ignores = examined(model(cloth=0.0))["cloth gap"]
    assert ignores.status == "FAIL" and "cut off" in ignores.found


def test_a_model_that_is_deaf_to_time_is_found() -> None:
    assert examined(model())["time"].status == "ok"
    assert examined(model(time=False))["time"].status == "FAIL"


def test_a_model_that_says_zero_is_worse_than_copying() -> None:
    finding = examined(lambda x_t, t, batch: torch.zeros_like(x_t))["yardsticks"]
    assert finding.status == "FAIL" and "nothing learned" in finding.found


def test_pictures_in_0_to_1_are_found() -> None:
    batches = some_batches()
    for batch in batches:
        for name in ("person", "cloth", "agnostic"):
            batch[name] = (batch[name] + 1) / 2
    finding = examine_foreign(model(), batches, alpha_bar=alpha_bar, thresholds=LIMITS)[0]
    assert (finding.name, finding.status) == ("range", "FAIL")
    assert "127.5" in finding.remedy


def test_an_inverted_mask_is_found() -> None:
    batches = some_batches()
    for batch in batches:
        batch["agnostic_mask"] = 1 - batch["agnostic_mask"]
    assert examine_foreign(model(), batches, alpha_bar=alpha_bar, thresholds=LIMITS)[0].status == "warn"


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_every_target_is_read_as_what_it_is(target: Any) -> None:
    def says(x_t: Tensor, t: Tensor, batch: dict[str, Any]) -> Tensor:
        power = alpha_bar(t).to(x_t).reshape(-1, 1, 1, 1)
        a, s = power.sqrt(), (1 - power).sqrt()
        x0 = batch["agnostic"] + 0.9 * batch["agnostic_mask"] * batch["cloth"]
        eps = (x_t - a * x0) / s
        return {"eps": eps, "x0": x0, "v": a * eps - s * x0}[target]

    assert examined(says, target=target)["yardsticks"].evidence["copying"] < 0.5


def test_guidance_and_memorising_are_asked_where_they_can_be() -> None:
    names = examined(model())
    assert "guidance" not in names and "train-val gap" not in names

    def null(x_t: Tensor, t: Tensor, batch: dict[str, Any]) -> Tensor:
        return torch.zeros_like(x_t)

    found = examined(model(), null=null, trained=some_batches(seed=1))
    assert "guidance" in found and "train-val gap" in found


def test_other_entries_go_with_their_person() -> None:
    batches = some_batches()
    for number, batch in enumerate(batches):
        batch["caption"] = [f"{number}-{row}" for row in range(8)]
        batch["code"] = torch.arange(8) + 8 * number
        batch["person_id"] = [f"{number}-{row}" for row in range(8)]

    def denoise(x_t: Tensor, t: Tensor, batch: dict[str, Any]) -> Tensor:
        assert batch["caption"] == batch["person_id"]
        assert [f"{c // 8}-{c % 8}" for c in batch["code"].tolist()] == batch["person_id"]
        return model()(x_t, t, batch)

    examine_foreign(denoise, batches, alpha_bar=alpha_bar, thresholds=LIMITS)


def test_what_is_missing_or_misshapen_is_said_in_one_line() -> None:
    with pytest.raises(DataError, match="no batch"):
        examine_foreign(model(), [], alpha_bar=alpha_bar)
    with pytest.raises(DataError, match="agnostic_mask"):
        examine_foreign(model(), [{"person": torch.zeros(1), "cloth": torch.zeros(1)}], alpha_bar=alpha_bar)
    with pytest.raises(DataError, match="shape"):
        examine_foreign(lambda x_t, t, batch: x_t[:, :1], some_batches(), alpha_bar=alpha_bar, thresholds=LIMITS)
    with pytest.raises(DataError, match="alpha_bar"):
        examine_foreign(model(), some_batches(), alpha_bar=lambda t: t)
