"""Order, batches, mirror images, and the cache that must change nothing."""

import os
import time
from itertools import islice

import numpy as np
import pytest
import torch

from drape.data import parse_labels as labels
from drape.data.cache import Cached, bytes_per_sample, cache, content_key
from drape.data.loader import collate, mirror, order, stream
from drape.data.sample import TENSOR_FIELDS, TryOnBatch, TryOnSample
from drape.data.viton_hd import VitonHD
from drape.errors import DataError

IDS = [f"{number:05}_00" for number in range(11)]
ALL_BUT_WARP = ("person", "cloth", "cloth_mask", "agnostic", "agnostic_mask", "parse", "pose", "cloth_pose")


def same(first: TryOnSample | TryOnBatch, second: TryOnSample | TryOnBatch) -> bool:
    def equal(a: object, b: object) -> bool:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return a.dtype == b.dtype and torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))
        return a == b

    return all(equal(value, getattr(second, name)) for name, value in vars(first).items())


def with_warps(viton) -> VitonHD:
    """A reader of every field that can be mirrored, with the warp."""
    viton.write(IDS)
    (viton.root / "train" / "warp").mkdir()
    for number, name in enumerate(IDS):
        warp = np.random.default_rng(number).random((128, 96, 2)).astype(np.float16)
        warp[:20] = np.nan
        np.savez(viton.root / "train" / "warp" / f"{name}.npz", warp=warp)
    return VitonHD(viton.root, size=(64, 48), fields=(*ALL_BUT_WARP, "warp"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cached_sample_equals_the_read_one_bit_for_bit(viton, workers) -> None:
    reader = with_warps(viton)
    cached = cache(reader, workers=workers)
    assert len(cached) == len(reader) and cached.ids == reader.ids
    assert all(same(cached[index], reader[index]) for index in range(len(reader)))
    indices = torch.tensor([7, 0, 7, 10])
    assert same(cached.batch(indices), collate([reader[index] for index in indices.tolist()]))
    assert cached.num_bytes == bytes_per_sample(reader) * len(reader)


def test_a_cached_counterfactual_keeps_the_original_for_its_agnostic(viton) -> None:
    viton.write(IDS[:3], unpaired=True)
    for name in IDS[:3]:
        viton.image("train", f"counterfactual/{name}.jpg", np.full((128, 96, 3), 9, np.uint8))
    reader = VitonHD(viton.root, setting="counterfactual", size=(64, 48))
    cached = cache(reader)
    assert all(same(cached[index], reader[index]) for index in range(3))
    assert cached[0].agnostic.unique().numel() > 2


def test_a_cache_file_is_used_until_a_file_or_a_setting_changes(viton, tmp_path) -> None:
    folder = tmp_path / "cache"
    viton.write(IDS)

    def decoded(size: tuple[int, int] = (64, 48)) -> tuple[Cached, int]:
        calls: list[int] = []
        cached = cache(VitonHD(viton.root, size=size), folder=folder, progress=lambda done, total: calls.append(done))
        return cached, len(calls)

    first, count = decoded()
    assert count == 2
    again, count = decoded()
    assert count == 0
    assert all(same(first[index], again[index]) for index in range(11))
    assert decoded((32, 24))[1] == 2
    viton.image("train", f"image/{IDS[4]}.jpg", np.zeros((128, 96, 3), np.uint8))
    changed, count = decoded()
    assert count == 2
    assert not same(changed[4], first[4])
    assert sorted(path.suffix for path in folder.iterdir()) == [".safetensors"] * 3  # nothing half-written stays


def test_the_key_sees_time_size_and_settings_but_not_the_clock(viton) -> None:
    viton.write(IDS)
    key = content_key(VitonHD(viton.root, size=(64, 48)))
    time.sleep(0.01)
    assert content_key(VitonHD(viton.root, size=(64, 48))) == key
    assert content_key(VitonHD(viton.root, size=(64, 48), pose="null")) != key
    os.utime(viton.root / "train" / "image" / f"{IDS[0]}.jpg", ns=(1, 1))
    assert content_key(VitonHD(viton.root, size=(64, 48))) != key


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_a_damaged_cache_file_is_made_again(viton, tmp_path, damage) -> None:
    reader = VitonHD(viton.write(IDS).root, size=(64, 48))
    good = cache(reader, folder=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"x" * 100}[damage])
    again = cache(reader, folder=tmp_path)
    assert same(again[3], good[3])
    assert file.read_bytes() == content


def test_a_cache_that_cannot_be_written_says_so(viton, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        cache(VitonHD(viton.write(IDS).root, size=(64, 48)), folder=tmp_path / "file")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_sample_ends_in_its_one_line_also_from_a_worker(viton, workers) -> None:
    reader = VitonHD(viton.write(IDS).root, size=(64, 48))
    (viton.root / "train" / "image" / f"{IDS[6]}.jpg").write_text("text")
    for attempt in (lambda: cache(reader, workers=workers), lambda: endless(reader, workers)):
        with pytest.raises(DataError) as error:
            attempt()
        assert IDS[6] in str(error.value) and "\n" not in str(error.value)


def endless(reader: VitonHD, workers: int) -> list[TryOnBatch]:
    return list(islice(stream(reader, seed=0, images_seen=0, batch_size=4, workers=workers), 3))


def test_progress_counts_up_to_the_end(viton) -> None:
    seen: list[tuple[int, int]] = []
    cache(VitonHD(viton.write(IDS).root, size=(64, 48)), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(8, 11), (11, 11)]


def test_neither_cache_nor_stream_draws_from_torchs_generator(viton) -> None:
    reader = VitonHD(viton.write(IDS).root, size=(64, 48))
    before = torch.get_rng_state()
    cache(reader)
    endless(reader, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_order_is_frozen_for_ever() -> None:
    # A change here would make every interrupted run go on with other images than an unbroken one.
    assert order(seed=0, num_samples=10, images_seen=7, batch_size=6).tolist() == [6, 5, 7, 9, 1, 5]


def test_epochs_and_seeds_differ() -> None:
    first = order(seed=0, num_samples=100, images_seen=0, batch_size=100)
    assert not torch.equal(first, order(seed=0, num_samples=100, images_seen=100, batch_size=100))
    assert not torch.equal(first, order(seed=1, num_samples=100, images_seen=0, batch_size=100))
    assert not torch.equal(first, torch.arange(100))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_goes_on_exactly_where_it_was_left(viton, workers) -> None:
    reader = VitonHD(viton.write(IDS).root, size=(64, 48), fields=("person", "pose"))
    unbroken = list(islice(stream(reader, seed=5, images_seen=0, batch_size=4), 5))
    resumed = list(islice(stream(reader, seed=5, images_seen=8, batch_size=4, workers=workers), 3))
    assert all(same(a, b) for a, b in zip(unbroken[2:], resumed, strict=True))
    cached = cache(reader)
    indices = order(seed=5, num_samples=len(reader), images_seen=8, batch_size=4)
    assert same(cached.batch(indices), resumed[0])


def test_collate_stacks_what_is_there_and_keeps_none(viton) -> None:
    reader = VitonHD(viton.write(IDS).root, size=(64, 48), fields=("person", "parse"))
    batch = collate([reader[0], reader[1]])
    assert len(batch) == 2 and batch.person.shape == (2, 3, 64, 48) and batch.parse.dtype == torch.uint8
    assert batch.cloth is batch.pose is None
    assert batch.person_id == (IDS[0], IDS[1])
    with pytest.raises(ValueError, match="parse"):
        collate([reader[0], VitonHD(viton.root, size=(64, 48), fields=("person",))[0]])


def test_mirroring_moves_everything_together(viton) -> None:
    reader = with_warps(viton)
    batch = collate([reader[index] for index in range(4)])
    where = torch.tensor([True, False, True, False])
    flipped = mirror(batch, where)
    for name in TENSOR_FIELDS:
        before, after = getattr(batch, name), getattr(flipped, name)
        if before is None:
            assert after is None
            continue
        assert torch.equal(after[~where].nan_to_num(-1), before[~where].nan_to_num(-1)), name
        if name in ("person", "cloth", "cloth_mask", "agnostic", "agnostic_mask"):
            assert torch.equal(after[where], before[where].flip(-1)), name
    assert torch.equal(flipped.agnostic, flipped.person * (1 - flipped.agnostic_mask))
    assert flipped.person_id == batch.person_id


def test_in_the_mirror_a_left_arm_is_a_right_arm_and_lies_under_the_right_joints(viton) -> None:
    batch = collate([with_warps(viton)[0]])
    flipped = mirror(batch, torch.tensor([True]))
    assert torch.equal(flipped.parse == labels.LEFT_ARM, (batch.parse == labels.RIGHT_ARM).flip(-1))
    for elbow, arm in ((3, labels.RIGHT_ARM), (6, labels.LEFT_ARM)):
        for each in (batch, flipped):
            x, y = each.pose[0, elbow, 0].item() * 48, each.pose[0, elbow, 1].item() * 64
            assert each.parse[0, int(y), int(x)] == arm


def test_a_mirrored_warp_still_points_at_the_same_cloth_pixel(viton) -> None:
    batch = collate([with_warps(viton)[0]])
    flipped = mirror(batch, torch.tensor([True]))
    x, y = 11, 40
    u, v = batch.warp[0, :, y, x].tolist()
    mu, mv = flipped.warp[0, :, y, 47 - x].tolist()
    shown = batch.cloth[0, :, min(63, int(v * 64)), min(47, int(u * 48))]
    assert (mu, mv) == (pytest.approx(1 - u), v)
    assert torch.equal(flipped.cloth[0, :, min(63, int(mv * 64)), min(47, int(mu * 48 - 1e-4))], shown)
    assert torch.equal(torch.isnan(flipped.warp), torch.isnan(batch.warp.flip(-1)))


def test_mirroring_nothing_gives_the_batch_itself_and_the_input_is_never_changed(viton) -> None:
    batch = collate([with_warps(viton)[0]])
    person = batch.person.clone()
    assert mirror(batch, torch.tensor([False])) is batch
    mirror(batch, torch.tensor([True]))
    assert torch.equal(batch.person, person)


def test_densepose_colours_refuse_the_mirror(viton) -> None:
    viton.write(IDS).image("train", f"image-densepose/{IDS[0]}.jpg", np.zeros((128, 96, 3), np.uint8))
    batch = collate([VitonHD(viton.root, size=(64, 48), fields=("person", "densepose"))[0]])
    with pytest.raises(DataError, match=r"data\.flip=0"):
        mirror(batch, torch.tensor([True]))


def test_a_batch_moves_as_a_whole(viton) -> None:
    batch = collate([VitonHD(viton.write(IDS).root, size=(64, 48))[0]]).to("meta")
    assert all(getattr(batch, name).device.type == "meta" for name in ALL_BUT_WARP)
    assert batch.person_id == (IDS[0],)
