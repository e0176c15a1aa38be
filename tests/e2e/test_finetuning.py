"""Fine-tuning as a run: what it leaves, that it resumes without a trace, and what docs/finetuning.md says about it."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from drape.checkpoint import CHECKPOINTS, checkpoints, load_weights, save_weights
from drape.cli.main import main
from drape.config import override
from drape.errors import ConfigError
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import preset, tiny
from drape.settings import FinetuneConfig
from drape.training.finetune import ADAPTER_FILE, apply_adapter, counts, prepare
from drape.training.launch import Launch, launch
from drape.training.posthoc import weights_of

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "finetuning.md").read_text(encoding="utf-8")
SETTINGS = [
    "data.pose=null", "data.mask=shipped", 'data.settings=["paired"]', "batch_size=4", "optim.warmup_images=0",
    "ema.snapshot_every=8", "checkpoint_every=8", "preview_every=1000", "validation.every=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights to start from.  None of them is zero: behind a fresh net's silent head nothing would be trained."""
    torch.manual_seed(5)
    net = ParallelUNet(tiny().net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return save_weights(tmp_path_factory.mktemp("base") / "base.safetensors", net.state_dict(), tiny(), {})


@pytest.fixture(scope="module")
def own(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with no more in it than the text asks for."""
    folder = tmp_path_factory.mktemp("data") / "own"
    for name in ("image", "cloth", "agnostic-mask"):
        shutil.copytree(people / "train" / name, folder / "train" / name)
    names = sorted(path.name for path in (folder / "train" / "image").iterdir())
    (folder / "train_pairs.txt").write_text("".join(f"{name} {name}\n" for name in names))
    (folder / "dataset.json").write_text(json.dumps({"source": "our shop", "licence": "all rights reserved"}))
    return folder


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Previews cost more than these runs, and are tested elsewhere."""
    monkeypatch.setattr("drape.training.keeper.sample_batch", lambda net, config, batch, *_: batch.need("person"))


def tuned(mode: str, own: Path, base: Path, out: Path) -> Path:
    config = override(tiny(), [*SETTINGS, f"finetune.train={mode}", "images=24"])
    launch(Launch(config=config, data=own, out=out, init=base, device="cpu", workers=0))
    return out


def changed(run: Path, base: Path) -> set[str]:
    before, after = (load_weights(path).tensors for path in (base, run))
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_loaded_in_part_is_told_only_once_the_folder_is_known_to_be_free(
    own: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    config = override(tiny(), SETTINGS)
    with pytest.raises(ConfigError, match="holds no drape run"):
        launch(Launch(config=config, data=own, out=tmp_path, init=base, partial=True, device="cpu", workers=0))
    assert "tensors loaded" not in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["attention", "lora"])
def test_a_fine_tuned_run_resumes_without_a_trace(mode: str, own: Path, base: Path, tmp_path: Path) -> None:
    unbroken = tuned(mode, own, base, tmp_path / "unbroken")
    broken = shutil.copytree(unbroken, tmp_path / "broken")
    shutil.rmtree(checkpoints(broken / CHECKPOINTS)[-1])
    (broken / "weights.safetensors").unlink()
    tuned(mode, own, base, broken)
    assert_same(load_weights(broken).tensors, load_weights(unbroken).tensors)
    assert (broken / "log.jsonl").read_text() == (unbroken / "log.jsonl").read_text()
    assert sorted(path.name for path in (broken / "ema").iterdir()) == sorted(
        path.name for path in (unbroken / "ema").iterdir()
    )
    names = changed(unbroken, base)
    assert names
    assert mode == "lora" or all("attention" in name for name in names)
    weights, _ = weights_of(unbroken, load_weights(unbroken).config.ema.lengths[0])
    for name, tensor in load_weights(unbroken).tensors.items():
        torch.testing.assert_close(weights.tensors[name], tensor, rtol=2e-3, atol=1e-4)
    if mode == "lora":
        assert_same(apply_adapter(load_weights(base).tensors, unbroken / ADAPTER_FILE), load_weights(unbroken).tensors)


def test_the_commands_of_the_text_are_settings_that_work(capsys: pytest.CaptureFixture[str]) -> None:
    lines = re.findall(r"^drape train .*$", TEXT, flags=re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        assert main([*shlex.split(line)[1:], "--dry-run"]) == 0
        config = json.loads(capsys.readouterr().out)
        assert config["data"]["pose"] == "null" and config["data"]["mask"] == "shipped"


def test_the_numbers_of_parameters_in_the_text_are_those_of_the_code() -> None:
    table = TEXT.partition("## What each way trains\n\n")[2].partition("\n\n")[0]
    header, _, *rows = table.splitlines()
    assert len(rows) == 3
    names = [cell.strip() for cell in header.split("|")[3:-1]]
    with torch.device("meta"):
        nets = [ParallelUNet(preset(name).net) for name in names]
    for row in rows:
        mode, _, *numbers = (cell.strip() for cell in row.split("|")[1:-1])
        with torch.device("meta"):
            trained = [counts(prepare(net, FinetuneConfig(train=mode.strip("`"))))[0] for net in nets]
        assert [f"{each:,}" for each in trained] == numbers, mode


def test_a_run_that_would_freeze_noise_is_refused_before_it_makes_a_folder(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    settings = [word for each in (*SETTINGS, "finetune.train=lora") for word in ("--set", each)]
    assert main(["train", "tiny", "--data", str(own), "--out", str(out), *settings]) == 2
    assert "Give --init" in capsys.readouterr().err
    assert not out.exists()
