"""What holds for every image, mask, pose and order, not only for the ones we thought of."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from drape.data import crop
from drape.data import parse_labels as labels
from drape.data.agnostic import agnostic_mask, agnostic_mask_paper, agnostic_mask_v32, parse_agnostic_v32
from drape.data.loader import order
from drape.data.pose import mirror_pose, to_pose
from drape.data.transforms import resize_map, resize_mask, resize_rgb, shrink_mask, to_bytes, to_signed

sides = st.integers(8, 70)
sizes = st.tuples(sides, sides)
coordinates = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=64), st.floats(-50, 200), st.sampled_from([0.0, -1.0, 48.0])
)
joint_sets = hnp.arrays(np.float64, (25, 3), elements=coordinates)
parses = hnp.arrays(np.uint8, st.tuples(st.integers(16, 48), st.integers(16, 40)), elements=st.integers(0, 19))


@given(parse=parses, joints=joint_sets)
@settings(max_examples=60)
def test_any_joints_give_masks_that_respect_what_must_stay(parse, joints) -> None:
    for mask_of in (agnostic_mask_v32, agnostic_mask_paper, agnostic_mask):
        hidden = mask_of(parse, joints)
        assert hidden.shape == parse.shape
        assert not hidden[np.isin(parse, [labels.FACE, labels.SUNGLASSES, *labels.LOWER_BODY])].any()
    assert agnostic_mask(parse, joints)[np.isin(parse, labels.UPPER_CLOTHES)].all()


@given(parse=parses, joints=joint_sets)
@settings(max_examples=60)
def test_the_agnostic_parse_only_ever_removes_labels_of_cloth_neck_and_arms(parse, joints) -> None:
    left = parse_agnostic_v32(parse, joints)
    changed = left != parse
    assert (left[changed] == labels.BACKGROUND).all()
    removable = [*labels.UPPER_CLOTHES, labels.NECK, labels.LEFT_ARM, labels.RIGHT_ARM]
    assert np.isin(parse[changed], removable).all()


@given(joints=joint_sets, size=sizes)
def test_any_joints_give_a_finite_pose_in_the_unit_square(joints, size) -> None:
    pose = to_pose(joints, size)
    assert torch.isfinite(pose).all()
    assert ((pose >= 0) & (pose <= 1)).all()
    assert set(pose[:, 2].tolist()) <= {0.0, 1.0}
    assert (pose[pose[:, 2] == 0] == 0).all()


@given(points=hnp.arrays(np.float32, (2, 18, 2), elements=st.floats(0, 1, width=32)), seen=hnp.arrays(bool, (2, 18, 1)))
def test_a_pose_mirrored_twice_is_itself(points, seen) -> None:
    pose = torch.from_numpy(np.concatenate([points * seen, seen], axis=2).astype(np.float32))
    again = mirror_pose(mirror_pose(pose))
    assert torch.allclose(again, pose, atol=1e-6)
    assert torch.equal(mirror_pose(pose)[..., 2].sum(dim=1), pose[..., 2].sum(dim=1))


@given(old=sizes, new=sizes, seed=st.integers(0, 99))
def test_no_colour_under_the_mask_reaches_a_pixel_outside_the_resized_mask(old, new, seed) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(old) < rng.choice([0.02, 0.5, 0.98])
    rgb = rng.integers(0, 256, (*old, 3), dtype=np.uint8)
    other = np.where(mask[..., None], 255 - rgb, rgb)
    outside = ~shrink_mask(mask, new)
    assert np.array_equal(resize_rgb(rgb, new)[outside], resize_rgb(other, new)[outside])


@given(size=sizes, joints=joint_sets)
def test_any_joints_give_a_square_of_the_shorter_side_inside_the_picture(size, joints) -> None:
    box = crop.square_inside(size, joints)
    assert box.size == (min(size), min(size))
    assert 0 <= box.top <= size[0] - box.height and 0 <= box.left <= size[1] - box.width
    pose = to_pose(crop.joints_in(joints, box), box.size)
    assert ((pose >= 0) & (pose <= 1)).all() and (pose[pose[:, 2] == 0] == 0).all()


@given(size=sizes, side=sides, joints=joint_sets, seed=st.integers(0, 99))
def test_no_old_cloth_leaks_through_a_mask_that_was_cut_with_its_picture(size, side, joints, seed) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(size) < rng.choice([0.02, 0.5, 0.98])
    rgb = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    other = np.where(mask[..., None], 255 - rgb, rgb)
    box = crop.square_inside(size, joints)
    outside = ~shrink_mask(crop.cut(mask, box), (side, side))
    first, second = (resize_rgb(crop.cut(picture, box), (side, side)) for picture in (rgb, other))
    assert np.array_equal(first[outside], second[outside])


@given(size=sizes)
def test_a_padded_square_holds_every_pixel_of_the_picture(size) -> None:
    picture = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
    padded = crop.cut(picture, crop.square_around(size), fill=255)
    assert padded.shape == (max(size), max(size))
    assert np.array_equal(padded[padded < 255], picture.ravel())


@given(old=sizes, new=sizes, seed=st.integers(0, 99))
def test_a_conservative_mask_contains_the_ordinary_one_and_every_masked_pixel(old, new, seed) -> None:
    mask = np.random.default_rng(seed).random(old) < 0.1
    shrunk = shrink_mask(mask, new)
    assert (shrunk | ~resize_mask(mask, new)).all()
    if new[0] <= old[0] and new[1] <= old[1] and old[0] % new[0] == 0 and old[1] % new[1] == 0:
        cells = mask.reshape(new[0], old[0] // new[0], new[1], old[1] // new[1])
        assert np.array_equal(shrunk, cells.any(axis=(1, 3)))


@given(factor=st.tuples(st.integers(1, 6), st.integers(1, 6)), new=st.tuples(st.integers(2, 20), st.integers(2, 20)))
def test_shrinking_by_whole_numbers_is_the_mean_of_the_cell(factor, new) -> None:
    old = new[0] * factor[0], new[1] * factor[1]
    rgb = np.random.default_rng(0).integers(0, 256, (*old, 3), dtype=np.uint8)
    mean = rgb.reshape(new[0], factor[0], new[1], factor[1], 3).astype(float).mean(axis=(1, 3))
    assert np.abs(resize_rgb(rgb, new) - mean).max() <= 1.01  # Pillow rounds after each axis


@given(old=sizes, new=sizes)
def test_a_resized_map_holds_only_values_it_was_given(old, new) -> None:
    values = np.random.default_rng(0).random((*old, 2)).astype(np.float16)
    values[::3] = np.nan
    resized = resize_map(values, new)
    assert resized.shape == (*new, 2)
    assert set(resized[~np.isnan(resized)].tolist()) <= set(values[~np.isnan(values)].tolist())


@given(values=hnp.arrays(np.uint8, (3, 4, 5)))
def test_bytes_survive_the_way_to_signed_and_back(values) -> None:
    image = to_signed(torch.from_numpy(values))
    assert image.min() >= -1 and image.max() <= 1
    assert torch.equal(to_bytes(image), torch.from_numpy(values))


@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 40),
    start=st.integers(0, 200),
    cuts=st.lists(st.integers(1, 20), max_size=6),
)
def test_the_order_does_not_know_how_it_was_cut_into_batches(seed, count, start, cuts) -> None:
    whole = order(seed=seed, num_samples=count, images_seen=start, batch_size=sum(cuts) or 1)
    pieces, seen = [], start
    for cut in cuts or [1]:
        pieces.append(order(seed=seed, num_samples=count, images_seen=seen, batch_size=cut))
        seen += cut
    assert torch.equal(torch.cat(pieces), whole)


@given(seed=st.integers(0, 1000), count=st.integers(1, 60), epoch=st.integers(0, 5))
def test_every_epoch_sees_every_sample_once(seed, count, epoch) -> None:
    indices = order(seed=seed, num_samples=count, images_seen=epoch * count, batch_size=count)
    assert sorted(indices.tolist()) == list(range(count))
