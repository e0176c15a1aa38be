"""OpenPose files in all their spellings."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from drape.data.pose import COCO_IN_BODY25, MIRRORED, mirror_pose, null_pose, read_joints, to_pose
from drape.errors import DataError


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def person(joints: np.ndarray) -> dict:
    return {"pose_keypoints_2d": joints.ravel().tolist()}


def test_body_25_becomes_the_eighteen_joints_in_order(joints, tmp_path: Path) -> None:
    read = read_joints(write(tmp_path / "p.json", {"people": [person(joints)]}))
    assert np.array_equal(read, joints)
    pose = to_pose(read, (128, 96))
    assert pose.shape == (18, 3)
    assert pose[0].tolist() == pytest.approx([48 / 96, 20 / 128, 1])
    assert pose[8].tolist() == pytest.approx([40 / 96, 78 / 128, 1])  # right hip is BODY_25's joint 9
    assert pose[14, 0] == pytest.approx(45 / 96)  # right eye is BODY_25's joint 15
    assert pose[9].tolist() == [0, 0, 0]  # no knee was found


def test_of_several_people_the_surest_is_taken_and_the_first_of_equals(joints, tmp_path: Path) -> None:
    faint, equal = joints * [1, 1, 0.5], joints + [1, 1, 0] * (joints[:, 2:] > 0)
    read = read_joints(write(tmp_path / "p.json", {"people": [person(faint), person(joints), person(equal)]}))
    assert np.array_equal(read, joints)


def test_coco_18_of_viton_256_gets_the_middle_of_its_hips(joints, tmp_path: Path) -> None:
    coco = joints[list(COCO_IN_BODY25)]
    read = read_joints(write(tmp_path / "p.json", {"people": [{"pose_keypoints": coco.ravel().tolist()}]}))
    assert np.array_equal(to_pose(read, (128, 96)), to_pose(joints, (128, 96)))
    assert read[8].tolist() == [48, 78, pytest.approx(0.9)]


def test_rows_of_dresscode_with_minus_one_for_missing_are_read(joints, tmp_path: Path) -> None:
    coco = joints[list(COCO_IN_BODY25)]
    rows = [[*row, index] if row[2] > 0 else [-1, -1, 0, -1] for index, row in enumerate(coco.tolist())]
    read = read_joints(write(tmp_path / "p.json", {"keypoints": rows}))
    assert np.array_equal(to_pose(read, (128, 96)), to_pose(joints, (128, 96)))


def test_a_joint_that_is_not_a_number_is_an_error_in_a_file_and_never_reaches_a_pose(joints, tmp_path: Path) -> None:
    joints[3] = np.nan, 10, 0.9
    with pytest.raises(DataError, match="no number"):
        read_joints(write(tmp_path / "p.json", {"people": [person(joints)]}))
    assert torch.isfinite(to_pose(joints, (128, 96))).all()


def test_a_joint_outside_the_image_is_invisible(joints) -> None:
    joints[4, :2] = 50, 128.6  # OpenPose does report such
    joints[7, :2] = -1, 60
    pose = to_pose(joints, (128, 96))
    assert pose[4].tolist() == pose[7].tolist() == [0, 0, 0]
    assert pose[3, 2] == 1


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"people": []}, "holds no person"),
        ({}, "holds no person"),
        ([], "a list"),
        ({"people": [{"pose_keypoints_2d": [1.0] * 74}]}, "neither 25 joints"),
        ({"people": [{"pose_keypoints_2d": ["a"] * 75}]}, "rows of 3 numbers"),
        ({"people": [7]}, "neither 25 joints"),
        ({"keypoints": [[1, 2, 3, 4]] * 17}, "17 joints, expected 18"),
        ({"keypoints": [[1, 2, 3]] * 19}, "rows of 4 numbers"),
        ({"keypoints": "none"}, "rows of 4 numbers"),
    ],
)
def test_a_wrong_document_gives_one_line_with_a_cure(document, says, tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", document)
    with pytest.raises(DataError, match=says) as error:
        read_joints(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_no_json_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not readable JSON"):
        read_joints(path)


def test_a_missing_file_offers_the_null_pose(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pose='null'"):
        read_joints(tmp_path / "absent.json")


def test_in_the_mirror_left_is_right_and_missing_stays_missing(joints) -> None:
    pose = to_pose(joints, (128, 96))
    mirrored = mirror_pose(pose)
    assert mirrored[2].tolist() == pytest.approx([1 - pose[5, 0].item(), pose[5, 1].item(), 1])
    assert (mirrored[pose[list(MIRRORED), 2] == 0] == 0).all()
    assert torch.equal(mirror_pose(null_pose()), null_pose())


def test_mirrored_joints_are_pairs() -> None:
    assert [MIRRORED[index] for index in MIRRORED] == list(range(18))
