"""A stopped step is written down whole, and its replay names the module, the sample and a remedy."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from drape.checkpoint import load_weights
from drape.cli.main import main
from drape.config import RETIRED, RunConfig, override
from drape.data.sample import TryOnBatch
from drape.errors import CheckpointError, TrainingError
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.training import replay as replay_module
from drape.training.faults import Fault, read_fault, record_fault
from drape.training.replay import replay

CPU = torch.device("cpu")
PEOPLE = ("ada", "bea", "cleo", "dora")
FAULT = Fault(images_seen=240, first=240, found="the loss is not finite", device="cpu", scale=1.0, lr=3e-3)


def batch_of(people: tuple[str, ...] = PEOPLE, seed: int = 0) -> TryOnBatch:
    """People of noise, 32x24."""
    generator = torch.Generator().manual_seed(seed)
    b = len(people)
    pictures = {name: torch.rand(b, 3, 32, 24, generator=generator) * 2 - 1 for name in ("person", "cloth", "agnostic")}
    masks = {"agnostic_mask": (torch.rand(b, 1, 32, 24, generator=generator) < 0.5).float()}
    poses = {name: torch.rand(b, 18, 3, generator=generator).round(decimals=2) for name in ("pose", "cloth_pose")}
    for pose in poses.values():
        pose[..., 2] = 1.0
    words = {"source": ("test",) * b, "licence": ("none",) * b, "cloth_kind": ("flat",) * b}
    return TryOnBatch(**pictures, **masks, **poses, person_id=people, cloth_id=people, **words)


def net_of(config: RunConfig) -> ParallelUNet:
    """A net that is not at its zero-initialised start."""
    torch.manual_seed(0)
    net = ParallelUNet(config.net)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=0.05)
    return net


def recorded(run: Path, net: ParallelUNet, config: RunConfig | None = None, batch: TryOnBatch | None = None) -> Path:
    batch = batch or batch_of()
    return record_fault(run, FAULT, config or tiny(), [batch], net)


def test_a_fault_comes_back_as_it_was_written(tmp_path: Path) -> None:
    net = net_of(tiny())
    halves = [batch_of(PEOPLE[:2], seed=1), batch_of(PEOPLE[2:], seed=2)]
    folder = record_fault(tmp_path, FAULT, tiny(), halves, net)
    assert folder == tmp_path / "faults" / "000000000240"
    found = read_fault(folder)
    assert found.fault == FAULT and found.config == tiny() and found.batch.person_id == PEOPLE
    assert torch.equal(found.batch.need("cloth"), torch.cat([half.need("cloth") for half in halves]))
    assert found.batch.cloth_mask is None and found.micros == (2, 2)
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in net.state_dict().items())
    assert load_weights(folder / "weights.safetensors").config == tiny()  # what --init takes


def test_the_same_fault_met_again_replaces_its_folder(tmp_path: Path) -> None:
    folder = recorded(tmp_path, net_of(tiny()))
    assert recorded(tmp_path, net_of(tiny()), batch=batch_of(seed=5)) == folder
    assert torch.equal(read_fault(folder).batch.need("cloth"), batch_of(seed=5).need("cloth"))
    assert [path.name for path in (tmp_path / "faults").iterdir()] == [folder.name]


def test_processes_that_meet_the_same_fault_write_a_folder_each(tmp_path: Path) -> None:
    for process, people in enumerate((PEOPLE[:2], PEOPLE[2:])):
        fault = replace(FAULT, process=process, first=FAULT.first + 2 * process)
        record_fault(tmp_path, fault, tiny(), [batch_of(people)], net_of(tiny()))
    found = [read_fault(path) for path in sorted((tmp_path / "faults").iterdir())]
    assert [each.folder.name for each in found] == ["000000000240-0", "000000000240-1"]
    assert [each.batch.person_id for each in found] == [PEOPLE[:2], PEOPLE[2:]]


def test_a_weight_that_is_no_number_is_named(tmp_path: Path) -> None:
    net = net_of(tiny())
    name = next(name for name, parameter in net.named_parameters() if parameter.ndim == 4)
    net.get_parameter(name).data[0, 0] = torch.nan
    findings = {finding.name: finding for finding in replay(read_fault(recorded(tmp_path, net)), CPU)}
    assert findings["batch"].status == "ok"
    assert findings["weights"].status == "FAIL" and name in findings["weights"].found
    assert findings["fp32"].status == "FAIL" and name.rpartition(".")[0] in findings["fp32"].found


def test_an_input_that_is_no_number_is_named_with_its_sample(tmp_path: Path) -> None:
    batch = batch_of()
    batch.need("cloth")[2, 1, 4, 4] = torch.inf
    findings = {f.name: f for f in replay(read_fault(recorded(tmp_path, net_of(tiny()), batch=batch)), CPU)}
    assert findings["batch"].status == "FAIL" and "cloth of cleo" in findings["batch"].found
    assert findings["weights"].status == "ok"
    assert "of the 4 samples: cleo" in findings["fp32"].found


def overflowing(config: RunConfig) -> tuple[ParallelUNet, str]:
    """A net with one weight so large that fp16, or fp32, cannot hold what comes out of it."""
    net = net_of(config)
    name = next(name for name, module in net.named_modules() if isinstance(module, torch.nn.Conv2d))
    return net, name


@pytest.mark.parametrize("size, precision, broken", [(1e6, "fp16", ["fp16"]), (1e38, "bf16", ["fp32", "bf16"])])
def test_a_forward_pass_that_overflows_is_explained_by_its_module_and_precision(
    tmp_path: Path, size: float, precision: str, broken: list[str]
) -> None:
    config = override(tiny(), [f"precision={precision}"])
    net, name = overflowing(config)
    net.get_submodule(name).weight.data.fill_(size)
    findings = {f.name: f for f in replay(read_fault(recorded(tmp_path, net, config)), CPU)}
    assert [name for name in ("fp32", precision) if findings[name].status == "FAIL"] == broken
    assert f"breaks in {name} (Conv2d)" in findings[precision].found
    expected = f"--init {tmp_path} --set precision=bf16" if broken == ["fp16"] else "--set optim.lr=0.001"
    assert expected in findings[precision].remedy


def test_a_gradient_that_overflows_is_found_where_it_begins_and_by_sample(tmp_path: Path) -> None:
    """In fp16 with a scale of the loss that is far too large, the forward pass is sound and the backward is not."""
    config = override(tiny(), ["precision=fp16"])
    folder = record_fault(tmp_path, replace(FAULT, scale=1e9), config, [batch_of()], net_of(config))
    findings = {finding.name: finding for finding in replay(read_fault(folder), CPU)}
    assert findings["fp32"].status == "ok"
    assert findings["fp16"].status == "FAIL" and "the gradient breaks at" in findings["fp16"].found
    assert any(person in findings["fp16"].found for person in PEOPLE)


def test_what_does_not_happen_again_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = recorded(tmp_path, net_of(tiny()))
    assert main(["doctor", "--replay", str(folder), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok", "ok", "warn"]
    assert "nothing is wrong on this device -> It happened on cpu" in lines[-1]


def test_what_does_not_happen_again_after_updates_inside_the_backward_pass_is_no_start_for_a_run(
    tmp_path: Path,
) -> None:
    config = override(tiny(), ["optim.in_backward=true", "optim.grad_clip=0"])
    *_, last = replay(read_fault(recorded(tmp_path, net_of(config), config)), CPU)
    assert last.remedy == (
        "Some weights had already changed (optim.in_backward): "
        f"begin a new --out with --init {tmp_path} and a lower rate, such as --set optim.lr=0.001."
    )


def test_weights_that_are_no_numbers_are_sent_to_the_newest_checkpoint(tmp_path: Path) -> None:
    net = net_of(tiny())
    next(net.parameters()).data[0] = torch.nan
    weights = replay(read_fault(recorded(tmp_path, net)), CPU)[1]
    assert f"begin a new --out with --init {tmp_path}." in weights.remedy


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool, list[str]]]:
    """(precision, blocks computed again, people) of every loss that a replay computes."""
    found: list[tuple[str, bool, list[str]]] = []
    plain = replay_module.diffusion_loss

    def spy(net: ParallelUNet, config: RunConfig, batch: TryOnBatch, draws: object, **more: object) -> object:
        found.append((config.precision, net.checkpoint_blocks, list(batch.person_id)))
        return plain(net, config, batch, draws, **more)

    monkeypatch.setattr(replay_module, "diffusion_loss", spy)
    return found


def test_a_replay_takes_the_micro_batches_and_the_checkpointing_of_the_step(tmp_path: Path, passes) -> None:
    config = override(tiny(), ["checkpoint_blocks=true", "precision=bf16", "batch_size=4", "accumulate=2"])
    halves = [batch_of(PEOPLE[:2], seed=1), batch_of(PEOPLE[2:], seed=2)]
    folder = record_fault(tmp_path, FAULT, config, halves, net_of(config))
    findings = {finding.name: finding for finding in replay(read_fault(folder), CPU)}
    assert findings["fp32"].status == findings["bf16"].status == "ok"
    alone = [("fp32", True, [person]) for person in PEOPLE]  # values of fp32 take twice the memory
    assert passes == [*alone, ("bf16", True, ["ada", "bea"]), ("bf16", True, ["cleo", "dora"])]


def test_a_replay_in_micro_batches_finds_what_one_pass_finds(tmp_path: Path) -> None:
    net, whole = net_of(tiny()), batch_of()
    parts = [{name: None if v is None else v[p] for name, v in vars(whole).items()} for p in (slice(3), slice(3, 4))]
    found = []
    for number, batches in enumerate(([whole], [TryOnBatch(**part) for part in parts])):
        folder = record_fault(tmp_path / str(number), FAULT, tiny(), batches, net)
        found.append([asdict(finding) for finding in replay(read_fault(folder), CPU)])
    assert found[0] == found[1]


def test_a_sample_of_a_later_micro_batch_is_named(tmp_path: Path) -> None:
    halves = [batch_of(PEOPLE[:2], seed=1), batch_of(PEOPLE[2:], seed=2)]
    halves[1].need("cloth")[1, 1, 4, 4] = torch.inf
    folder = record_fault(tmp_path, FAULT, tiny(), halves, net_of(tiny()))
    findings = {finding.name: finding for finding in replay(read_fault(folder), CPU)}
    assert "of the 4 samples: dora" in findings["fp32"].found


def test_a_step_that_does_not_fit_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*parts: object, **more: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(replay_module, "diffusion_loss", full)
    with pytest.raises(TrainingError, match="does not fit into the free memory of cpu"):
        replay(read_fault(recorded(tmp_path, net_of(tiny()))), CPU)


def test_a_fault_of_a_run_begun_with_settings_that_are_gone_can_be_read(tmp_path: Path) -> None:
    folder = recorded(tmp_path, net_of(tiny()))
    config = tiny().to_dict()
    for section, keys in RETIRED.items():
        config[section] |= dict.fromkeys(keys, 1)
    (folder / "config.json").write_text(json.dumps(config))
    assert read_fault(folder).config == tiny()


def test_the_command_explains_a_fault_and_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = batch_of()
    batch.need("pose")[1, 3, 0] = torch.nan
    folder = recorded(tmp_path, net_of(tiny()), batch=batch)
    assert main(["doctor", "--replay", str(folder), "--device", "cpu", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings[0]["status"] == "FAIL" and "pose of bea" in findings[0]["found"]


def break_nothing(folder: Path) -> None:
    (folder / "fault.json").unlink()


def break_record(folder: Path) -> None:
    (folder / "fault.json").write_text("{}")


def break_split(folder: Path) -> None:
    record = json.loads((folder / "fault.json").read_text())
    (folder / "fault.json").write_text(json.dumps(record | {"micros": [3]}))


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"name": "x"}')


def break_batch(folder: Path) -> None:
    (folder / "batch.safetensors").write_bytes(b"no")


def break_weights(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, folder / "weights.safetensors")


@pytest.mark.parametrize("damage", [break_nothing, break_record, break_split, break_config, break_batch, break_weights])
def test_a_folder_that_is_no_whole_record_is_one_line_and_2(tmp_path: Path, damage, capsys) -> None:
    folder = recorded(tmp_path, net_of(tiny()))
    damage(folder)
    assert main(["doctor", "--replay", str(folder), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("drape: ")


def test_the_folder_of_a_run_is_answered_with_the_fault_inside_it(tmp_path: Path) -> None:
    folder = recorded(tmp_path, net_of(tiny()))
    with pytest.raises(CheckpointError, match=str(folder)):
        read_fault(tmp_path)
