"""The trainer on a CUDA device: every precision learns, resumes, and says what memory it needs."""

import json
from pathlib import Path

import pytest
import torch

from drape.config import override
from drape.presets import tiny
from drape.training.launch import Launch, StopRun, launch
from drape.training.memory import estimate

pytestmark = pytest.mark.gpu

SMALL = ["images=160", "validation.pairs=4", "validation.levels=4", "validation.every=80", "preview_every=80"]


def run(people: Path, out: Path, *settings: str, **launching: object) -> list[dict[str, float]]:
    """The log of a small run on the GPU."""
    config = override(tiny(), [*SMALL, *settings])
    launch(Launch(config=config, data=people, out=out, device="cuda", workers=0, **launching))  # type: ignore[arg-type]
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns(people: Path, tmp_path: Path, precision: str) -> None:
    log = run(people, tmp_path / "run", f"precision={precision}")
    first, last = (sum(line["loss"] for line in part) for part in (log[:5], log[-5:]))
    assert last < 0.7 * first


@pytest.mark.parametrize("setting", ["checkpoint_blocks=true", "channels_last=false", "ema.device=cpu", "accumulate=2"])
def test_settings_of_memory_and_speed_do_not_change_the_run(people: Path, tmp_path: Path, setting: str) -> None:
    plain, other = run(people, tmp_path / "plain"), run(people, tmp_path / "other", setting)
    assert other[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-4)
    assert other[-1]["loss"] == pytest.approx(plain[-1]["loss"], rel=0.05)


def test_a_stopped_run_goes_on(people: Path, tmp_path: Path) -> None:
    def stop(images: int, progress: float, values: dict[str, float]) -> None:
        if images == 80:
            raise StopRun

    unbroken = run(people, tmp_path / "unbroken", "precision=fp16")
    with pytest.raises(StopRun):
        run(people, tmp_path / "run", "precision=fp16", on_validation=stop)
    resumed = run(people, tmp_path / "run", "precision=fp16")
    assert [line["images"] for line in resumed] == [line["images"] for line in unbroken]
    assert resumed[-1]["loss"] == pytest.approx(unbroken[-1]["loss"], rel=0.05)


def test_the_memory_said_beforehand_is_about_what_is_used(people: Path, tmp_path: Path) -> None:
    torch.cuda.reset_peak_memory_stats()
    run(people, tmp_path / "run", "precision=bf16", "batch_size=40")
    need = estimate(override(tiny(), ["precision=bf16", "batch_size=40"]), "cuda")
    used = torch.cuda.max_memory_allocated()
    assert 0.5 < (need.total - need.runtime) / used < 2
