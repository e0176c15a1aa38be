"""Power-function averages: their lengths, their profiles, and what is stored of them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from drape.errors import CheckpointError, ConfigError
from drape.settings import EmaConfig
from drape.storage import read_safetensors
from drape.training import snapshots
from drape.training.ema import Ema, power


class Scalar(nn.Module):
    """One weight, a frozen one, a counter and a float buffer."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.frozen = nn.Parameter(torch.tensor([7.0]), requires_grad=False)
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(1))


def follow(path: np.ndarray, batch_size: int, length: float) -> Ema:
    """The average of one weight that takes the values `path`, one for each image, cut into batches."""
    net = Scalar()
    ema = Ema(net, EmaConfig(lengths=(length,)))
    for seen in range(batch_size, len(path) + 1, batch_size):
        nn.init.constant_(net.weight, float(path[seen - 1]))
        ema.update(net, seen, batch_size)
    return ema


@pytest.mark.parametrize(("length", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_the_power_of_a_length_is_the_papers(length: float, gamma: float) -> None:
    assert power(length) == pytest.approx(gamma, abs=0.005)


@pytest.mark.parametrize("length", [0.001, 0.02, 0.05, 0.1, 0.2, 0.28])
def test_the_profile_of_a_power_has_the_length_as_its_relative_standard_deviation(length: float) -> None:
    gamma = power(length)
    first, second = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)  # moments of (gamma + 1) tau^gamma on [0, 1]
    assert (second - first**2) ** 0.5 == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.285, 0.3, float("nan")])
def test_a_length_that_no_profile_has_is_an_error_that_says_which_do(length: float) -> None:
    with pytest.raises(ConfigError, match=r"outside \(0, 0\.28\]"):
        power(length)


@pytest.mark.parametrize("length", [0.05, 0.1, 0.25])
@pytest.mark.parametrize("images", [200, 2_000])
def test_a_weight_that_grows_with_the_run_is_averaged_as_the_profile_says(length: float, images: int) -> None:
    """theta(tau) = tau: the profile's mean is (gamma + 1) / (gamma + 2) of the run, after 200 images as after 2,000."""
    ema = follow(np.arange(1, images + 1), 1, length)
    gamma = power(length)
    assert ema.tensors["weight"].item() / images == pytest.approx((gamma + 1) / (gamma + 2), abs=1 / images)


def test_nothing_of_the_initial_weights_is_left_after_the_first_batch() -> None:
    net = Scalar(100.0)
    ema = Ema(net, EmaConfig(lengths=(0.05, 0.2)))
    nn.init.constant_(net.weight, 1.0)
    ema.update(net, 8, 8)
    assert all(averages["weight"].item() == 1.0 for averages in ema.all.values())


def test_the_average_of_a_piecewise_constant_path_does_not_depend_on_the_batch_size() -> None:
    path = np.repeat(np.random.default_rng(0).normal(size=64), 32)
    values = [follow(path, batch_size, 0.1).tensors["weight"].item() for batch_size in (1, 8, 32)]
    assert values == pytest.approx([values[0]] * 3, abs=1e-5)


def test_the_average_of_any_path_depends_on_the_batch_size_only_by_a_batch_of_images() -> None:
    path = np.sin(np.linspace(0, 20, 4_096))
    fine, coarse = (follow(path, batch_size, 0.1).tensors["weight"].item() for batch_size in (1, 32))
    steepest = 20 / 4_096
    assert abs(fine - coarse) < 32 * steepest


def test_several_lengths_are_what_each_would_be_alone() -> None:
    path = np.random.default_rng(1).normal(size=256)
    net = Scalar()
    together = Ema(net, EmaConfig(lengths=(0.2, 0.05)))
    for seen, value in enumerate(path, 1):
        nn.init.constant_(net.weight, float(value))
        together.update(net, seen, 1)
    assert together.tensors is together.all[0.2]
    for length, averages in together.all.items():
        assert torch.equal(averages["weight"], follow(path, 1, length).tensors["weight"])


def test_counters_are_copied_float_buffers_averaged_and_frozen_weights_shared() -> None:
    net = Scalar()
    ema = Ema(net, EmaConfig(lengths=(0.1,), device="cpu"))
    for seen in (1, 2):
        net.get_buffer("count").fill_(seen)
        net.get_buffer("mean").fill_(seen)
        ema.update(net, seen, 1)
    assert ema.tensors["count"].item() == 2
    assert 1.9 < ema.tensors["mean"].item() < 2
    assert ema.tensors["frozen"].data_ptr() == net.frozen.data_ptr()
    assert not any("frozen" in name for name in ema.checkpoint_tensors())


def test_averages_are_kept_in_fp32_whatever_the_net_is() -> None:
    net = Scalar().to(torch.bfloat16)
    ema = Ema(net, EmaConfig(lengths=(0.1,)))
    ema.update(net, 8, 8)
    assert ema.tensors["weight"].dtype == torch.float32


def test_averages_come_back_from_a_checkpoint_and_those_of_another_run_are_refused_by_name() -> None:
    net, config = Scalar(3.0), EmaConfig(lengths=(0.05, 0.1))
    ema = Ema(net, config)
    stored = {name: tensor.clone() + 1 for name, tensor in ema.checkpoint_tensors().items()}
    ema.load(stored, "checkpoint")
    assert ema.all[0.1]["weight"].item() == 4.0
    stored["0.1.weight"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"0\.1\.weight is \(2,\), expected \(1,\)"):
        ema.load(stored, "checkpoint")
    with pytest.raises(CheckpointError, match=r"0\.1\.\w+ is missing"):
        ema.load(Ema(net, EmaConfig(lengths=(0.05,))).checkpoint_tensors(), "checkpoint")


def run_and_store(folder, images: int, *, first: int = 0, every: int = 50, batch_size: int = 8) -> None:
    """Steps from `first` images to `images`, with averages stored on the way."""
    net = Scalar()
    ema = Ema(net, EmaConfig(lengths=(0.05, 0.1), snapshot_every=every))
    for seen in range(first + batch_size, images + 1, batch_size):
        ema.update(net, seen, batch_size)
        ema.snapshot(folder, seen, batch_size)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("images", [400, 856, 4_000, 16_000])
def test_a_long_run_keeps_no_more_than_a_short_one_at_even_distances(tmp_path, images: int) -> None:
    run_and_store(tmp_path, images)
    times = sorted({each.images for each in snapshots.listed(tmp_path)})
    assert min(images // 50, snapshots.MOST // 2) <= len(times) <= snapshots.MOST
    assert len(names(tmp_path)) == 2 * len(times)
    gaps = np.diff([0, *times, images])
    assert max(gaps) <= snapshots.Grid(every=50, batch_size=8).interval(images) + 8


@pytest.mark.parametrize("killed_at", [304, 840, 1_304])
def test_a_resumed_run_has_the_snapshots_of_an_unbroken_one(tmp_path, killed_at: int) -> None:
    run_and_store(tmp_path / "whole", 2_000)
    run_and_store(tmp_path / "broken", killed_at)
    (tmp_path / "broken" / ".000000000400-0.05.safetensors.part").write_bytes(b"torn")
    checkpoint = killed_at - 104
    snapshots.drop_newer(tmp_path / "broken", checkpoint)
    assert all(each.images <= checkpoint for each in snapshots.listed(tmp_path / "broken"))
    run_and_store(tmp_path / "broken", 2_000, first=checkpoint)
    assert names(tmp_path / "broken") == names(tmp_path / "whole")


def test_the_end_of_a_run_is_stored_and_does_not_outlive_the_next_time_if_the_run_goes_on(tmp_path) -> None:
    ema = Ema(Scalar(), EmaConfig(lengths=(0.05,), snapshot_every=100))
    ema.snapshot(tmp_path, 264, 8, last=True)
    assert [each.images for each in snapshots.listed(tmp_path)] == [264]
    ema.snapshot(tmp_path, 304, 8)
    assert [each.images for each in snapshots.listed(tmp_path)] == [304]


def test_no_snapshots_are_stored_where_none_are_asked_for(tmp_path) -> None:
    Ema(Scalar(), EmaConfig(snapshot_every=0)).snapshot(tmp_path, 50_000, 8, last=True)
    assert snapshots.listed(tmp_path) == []


def test_a_stored_weight_is_off_by_at_most_half_a_thousandth_and_huge_ones_are_stored_exactly(tmp_path) -> None:
    weights = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    huge = torch.tensor([1e6, -3.25])
    path = snapshots.write(tmp_path, 0.05, 100, {"weights": weights, "huge": huge})
    stored, _ = read_safetensors(path)
    assert ((stored["weights"].float() - weights).abs() / weights.abs()).max() <= 2**-11
    assert torch.equal(stored["huge"], huge)


@pytest.fixture
def one_process(tmp_path) -> Iterator[None]:
    """A process group of this process alone."""
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def test_the_averages_of_a_sharded_net_are_sharded_and_stored_whole(tmp_path, one_process: None) -> None:
    net, plain = nn.Linear(4, 4), nn.Linear(4, 4)
    plain.load_state_dict(net.state_dict())
    fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
    config = EmaConfig(lengths=(0.1,), snapshot_every=8)
    ema, expected = Ema(net, config), Ema(plain, config)
    for seen in (8, 16):
        for each in (net, plain):
            with torch.no_grad():
                each.weight.mul_(seen)
        ema.update(net, seen, 8)
        expected.update(plain, seen, 8)
    assert isinstance(ema.tensors["weight"], DTensor)
    whole = {name: tensor.clone() for name, tensor in expected.checkpoint_tensors().items()}
    assert torch.equal(ema.tensors["weight"].full_tensor(), whole["0.1.weight"])
    ema.load({name: tensor + 1 for name, tensor in whole.items()}, "checkpoint")
    ema.snapshot(tmp_path / "ema", 16, 8)
    (stored,) = snapshots.listed(tmp_path / "ema")
    torch.testing.assert_close(
        read_safetensors(stored.path)[0]["weight"].float(), whole["0.1.weight"] + 1, rtol=1e-3, atol=0
    )
    with pytest.raises(ConfigError, match="sharded"):
        Ema(net, EmaConfig(device="cpu"))
