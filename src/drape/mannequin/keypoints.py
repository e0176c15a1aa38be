"""OpenPose's view of the person: BODY_25 joints, the JSON file and the drawn skeleton; DensePose colours."""

import json

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

BODY_25 = (
    "nose", "neck", "r_shoulder", "r_elbow", "r_wrist", "l_shoulder", "l_elbow", "l_wrist", "mid_hip", "r_hip",
    "r_knee", "r_ankle", "l_hip", "l_knee", "l_ankle", "r_eye", "l_eye", "r_ear", "l_ear",
)  # fmt: skip
LIMBS = (
    (1, 8), (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (8, 12), (12, 13), (1, 0), (0, 15),
    (15, 17), (0, 16), (16, 18),
)  # fmt: skip
LIMB_COLOURS = (
    (153, 0, 51), (153, 51, 0), (102, 153, 0), (153, 102, 0), (153, 153, 0), (51, 153, 0), (0, 153, 0),
    (0, 153, 51), (0, 153, 102), (0, 102, 153), (0, 51, 153), (153, 0, 0), (153, 0, 102), (102, 0, 153),
    (51, 0, 153), (0, 0, 153),
)  # fmt: skip

# MATLAB's parula at I * 255 / 24 for the DensePose parts I = 0..24, as VITON-HD stores them; 0 is black.
PARULA = np.array([
    (0, 0, 0), (37, 60, 163), (20, 80, 194), (4, 97, 223), (8, 110, 221), (15, 122, 216), (20, 133, 212),
    (14, 146, 208), (6, 158, 204), (6, 166, 198), (22, 173, 185), (40, 179, 172), (56, 185, 158), (86, 188, 145),
    (116, 190, 131), (145, 191, 116), (170, 189, 105), (192, 188, 96), (212, 187, 88), (233, 186, 78),
    (254, 191, 62), (252, 206, 46), (247, 221, 33), (246, 236, 24), (249, 251, 14),
], np.uint8)  # fmt: skip


def body_25(joints: dict[str, tuple[float, float]], size: tuple[int, int]) -> NDArray[np.float64]:
    """(25, 3) pixel coordinates and confidence; joints outside the picture are (0, 0, 0), as OpenPose leaves them."""
    height, width = size
    table = np.zeros((25, 3))
    left, right = joints["l_hip"], joints["r_hip"]
    known = {**joints, "mid_hip": ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)}
    for i, name in enumerate(BODY_25):
        if name in known:
            x, y = known[name]
            if 0 <= x < width and 0 <= y < height:
                table[i] = round(x, 3), round(y, 3), 0.9
    return table


def openpose_json(table: NDArray[np.float64]) -> str:
    """The file OpenPose 1.3 would write; face and hands are present and empty of detections."""
    person = {
        "person_id": [-1],
        "pose_keypoints_2d": [float(v) for v in table.ravel()],
        "face_keypoints_2d": [0.0] * 210,
        "hand_left_keypoints_2d": [0.0] * 63,
        "hand_right_keypoints_2d": [0.0] * 63,
        "pose_keypoints_3d": [],
        "face_keypoints_3d": [],
        "hand_left_keypoints_3d": [],
        "hand_right_keypoints_3d": [],
    }
    return json.dumps({"version": 1.3, "people": [person]}, separators=(",", ":"))


def draw_skeleton(table: NDArray[np.float64], size: tuple[int, int]) -> Image.Image:
    """The skeleton on black, limbs and joints in OpenPose's colours."""
    height, width = size
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    thick = max(1, round(8 * width / 768))
    for (a, b), colour in zip(LIMBS, LIMB_COLOURS, strict=True):
        if table[a, 2] > 0 and table[b, 2] > 0:
            draw.line((*table[a, :2], *table[b, :2]), fill=colour, width=thick)
    for i, (x, y, c) in enumerate(table[:19]):
        if c > 0:
            r = max(0.8, 5 * width / 768)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(v * 5 / 3) for v in LIMB_COLOURS[i % 16]))
    return image


def densepose_rgb(parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Parts (h, w) in 0..24 as colours (h, w, 3)."""
    return PARULA[parts]
