"""Joints on their person, left and right, and the mirror."""

import numpy as np
from numpy import ndarray

from drape.data import parse_labels as labels
from drape.doctor.contract_shown import Evidence, Problem, Shown, apart, as_bytes, judged, share
from drape.doctor.finding import Finding
from drape.survey import measures

OWN = "Read the joints of this very picture: same id, x to the right, y down, as shares of width and height."
TOGETHER = "Mirror person, cloth, agnostic image, mask and joints together, and exchange left and right joints."
NEAR = 1e-3
"""Joints this near, as a share of the picture, are the same."""

BELONGS: dict[int, tuple[int, ...]] = {
    0: labels.HEAD, 14: labels.HEAD, 15: labels.HEAD, 16: labels.HEAD, 17: labels.HEAD,
    1: (labels.NECK, labels.FACE, *labels.UPPER_CLOTHES), 2: (*labels.UPPER_CLOTHES, labels.NECK, labels.RIGHT_ARM),
    5: (*labels.UPPER_CLOTHES, labels.NECK, labels.LEFT_ARM), 3: (*labels.UPPER_CLOTHES, labels.RIGHT_ARM),
    6: (*labels.UPPER_CLOTHES, labels.LEFT_ARM), 4: (labels.RIGHT_ARM, labels.GLOVE),
    7: (labels.LEFT_ARM, labels.GLOVE),
}  # fmt: skip
"""COCO-18 joints of the upper body and the labels they lie on."""


def check_pose(shown: Shown) -> Finding:
    """Joints lie in the picture, on the body, on this very body, left on the left.

    evidence: missing, the share of the joints not found; null, of the people without any; file, the mean distance from
    the file's joints as a share of the picture; fit and fit_of_others, mean distances (shares of the height) of joints
    from the labels they belong to, own and exchanged; sides, from -1 (left and right agree with the labels) to 1.
    """
    pose, limits = shown.record["pose"][shown.firsts], shown.thresholds
    seen = pose[..., 2] > 0
    evidence: Evidence = {"missing": float(1 - seen.mean()), "null": float((~seen.any(axis=1)).mean())}
    if not seen.any():
        return _null_pose(shown, evidence)
    problems = []
    points = pose[..., :2][seen]
    if not np.isin(pose[..., 2], (0, 1)).all() or not np.isfinite(points).all():
        problems.append(Problem("FAIL", "joints are no numbers, or visibilities neither 0 nor 1", OWN))
    elif points.min() < -0.01 or points.max() > 1.01:
        text = f"joints run from {points.min():.2f} to {points.max():.2f}, expected shares of the picture from 0 to 1"
        problems.append(Problem("FAIL", text, "Divide x by the width and y by the height of the file they belong to."))
    else:
        problems += _joints_of_files(shown, evidence) or _joints_on_labels(shown, evidence)
    if shown.config.data.pose == "null":
        problems.append(Problem("FAIL", "the config asks for no joints (data.pose=null), and there are some", OWN))
    if evidence["null"] and evidence["null"] > limits.pose_null:
        text = f"{evidence['null']:.0%} of the people have no joint at all"
        problems.append(Problem("warn", text, "Run OpenPose on them again, or leave them out."))
    elif evidence["missing"] and evidence["missing"] > limits.pose_missing:
        text = f"{evidence['missing']:.0%} of the joints are missing, usually below {limits.pose_missing:.0%}"
        problems.append(Problem("warn", text, "Look at the joints: drape data show."))
    fit = evidence.get("fit")
    where = (
        ""
        if fit is None
        else f", {fit:.1%} of the height from their labels (exchanged {evidence['fit_of_others']:.1%})"
    )
    return judged("pose", problems, f"{1 - (evidence['missing'] or 0):.0%} of the joints found{where}", evidence)


def _null_pose(shown: Shown, evidence: Evidence) -> Finding:
    if shown.config.data.pose == "null":
        return judged("pose", [], "none, as the config asks (data.pose=null)", evidence)
    text = "no sample has a single joint, though the config reads them (data.pose=read)"
    return judged("pose", [Problem("FAIL", text, "Restore openpose_json, or set data.pose=null.")], "", evidence)


def _joints_of_files(shown: Shown, evidence: Evidence) -> list[Problem]:
    """Problems of the joints against those in the files."""
    rows = [row for row, plain in shown.files.items() if plain.pose is not None]
    if not rows:
        return []
    found = shown.record["pose"][rows]
    expected = np.stack([plain.pose for row in rows if (plain := shown.files[row]).pose is not None])
    off = np.array([distance_of(*both) for both in zip(found, expected, strict=True)])
    away = evidence["file"] = float(np.mean(off))
    if away <= shown.thresholds.pose_file:
        return []
    kinds = {
        "x and y are exchanged": expected[..., [1, 0, 2]],
        "left and right joints are exchanged": expected[:, list(measures.POSE_MIRRORED)],
        "the joints are mirrored": np.stack([measures.mirrored_pose(each) for each in expected]),
        "the joints are upside down": expected * (1, -1, 1) + (expected[..., 2:] * (0, 1, 0)),
    }
    for text, other in kinds.items():
        if np.median([distance_of(*both) for both in zip(found, other, strict=True)]) < 0.3 * np.median(off):
            return [Problem("FAIL", f"{text}, compared with their files", OWN)]
    among = np.array([[distance_of(mine, theirs) for theirs in expected] for mine in found])
    np.fill_diagonal(among, np.inf)
    strangers = float((among.min(axis=1) < 0.3 * off).mean())
    if strangers > shown.thresholds.strangers:
        return [Problem("FAIL", f"{strangers:.0%} of the poses are other people's, compared with their files", OWN)]
    return [Problem("FAIL", f"joints lie {away:.1%} of the picture away from those in their files", OWN)]


def distance_of(pose: ndarray, other: ndarray) -> float:
    """Mean distance of joints, as a share of the picture; one that only one of them has counts as far away."""
    seen, also = pose[:, 2] > 0, other[:, 2] > 0
    if not (seen | also).any():
        return 0.0
    away = np.where(seen & also, np.hypot(*(pose[:, :2] - other[:, :2]).T), 0.5)
    return float(away[seen | also].mean())


def _joints_on_labels(shown: Shown, evidence: Evidence) -> list[Problem]:
    """Problems of the joints against the labels of the same picture."""
    limits = shown.thresholds
    rows = [row for row in shown.parsed if (shown.record["pose"][row][:, 2] > 0).any()]
    if not rows:
        return _by_the_mask(shown, evidence)
    poses = shown.record["pose"][rows].astype(np.float64)
    reach = [_reaches(shown.parsed[row]) for row in rows]
    fits = np.array([[_fit(pose, field) for pose in poses] for field in reach])
    own = float(np.nanmean(np.diag(fits)))
    off = ~np.eye(len(rows), dtype=bool)
    others = float(np.nanmean(fits[off])) if len(rows) > 1 else float("nan")
    evidence |= {"fit": own, "fit_of_others": others}
    sides = [
        turn
        for row, pose in zip(rows, poses, strict=True)
        if (turn := measures.sides_swapped(pose, shown.parsed[row])) is not None
    ]
    evidence["sides"] = float(np.mean(sides)) if sides else None
    if len(rows) >= 4 and own > limits.pose_fit_ratio * others and own > limits.pose_fit:
        text = f"joints lie {own:.1%} of the height from their labels, other people's {others:.1%}: not their own"
        return [Problem("FAIL", text, OWN)]
    if len(sides) >= 4 and np.mean(sides) > limits.pose_sides:
        return [
            Problem("FAIL", f"left and right of joints and labels disagree (evidence {np.mean(sides):+.2f})", TOGETHER)
        ]
    if own > limits.pose_fit:
        text = f"joints lie {own:.1%} of the height from their labels (other people's {others:.1%})"
        return [Problem("warn", text, "Look at them: drape data show.")]
    return []


def _by_the_mask(shown: Shown, evidence: Evidence) -> list[Problem]:
    """Without labels: elbows and wrists lie in the mask, which was made from them."""
    rows = [row for row in shown.firsts if (shown.record["pose"][row][:, 2] > 0).any()][: shown.thresholds.coloured]
    masks, poses = shown.record["agnostic_mask"] > 0.5, shown.record["pose"]
    hits = np.array([[_inside(masks[row], poses[other]) for other in rows] for row in rows])
    off = ~np.eye(len(rows), dtype=bool)
    own, others = float(np.diag(hits).mean()), float(hits[off].mean()) if off.any() else 0.0
    evidence |= {"in_mask": own, "in_mask_of_others": others}
    if len(rows) >= 8 and own < others + shown.thresholds.pose_in_mask and own < 1 - shown.thresholds.pose_in_mask:
        text = f"{own:.0%} of the elbows and wrists lie in the mask, of other people's {others:.0%}: not their own"
        return [Problem("FAIL", text, OWN)]
    return []


def _inside(mask: ndarray, pose: ndarray) -> float:
    """The share of elbows and wrists that lie in the mask; 1 where none was found."""
    points = pose[[3, 4, 6, 7]]
    points = points[points[:, 2] > 0]
    rows = np.clip((points[:, 1] * mask.shape[0]).astype(int), 0, mask.shape[0] - 1)
    columns = np.clip((points[:, 0] * mask.shape[1]).astype(int), 0, mask.shape[1] - 1)
    return float(mask[rows, columns].mean()) if len(points) else 1.0


def _reaches(parse: ndarray) -> dict[int, ndarray]:
    """By joint: for each pixel the distance, as a share of the height, from the labels that the joint belongs to."""
    import cv2

    found = {}
    for joint, owners in BELONGS.items():
        region = np.isin(parse, owners)
        if region.any():
            away = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
            found[joint] = away / parse.shape[0]
    return found


def _fit(pose: ndarray, reaches: dict[int, ndarray]) -> float:
    """Mean distance of the joints from their labels; NaN where no joint can be judged."""
    away = []
    for joint, field in reaches.items():
        x, y, seen = pose[joint]
        if seen:
            height, width = field.shape
            away.append(field[min(max(int(y * height), 0), height - 1), min(max(int(x * width), 0), width - 1)])
    return float(np.mean(away)) if away else float("nan")


def check_flip(shown: Shown) -> Finding:
    """Person, cloth, agnostic image, mask and joints of a row are all mirrored, or none; and files agree with files.

    evidence: share, of the rows whose person is mirrored; apart_NAME, the share of the rows in which NAME is mirrored
    and the person is not, or the other way round; parse, above 0 where pictures fit their labels better in a mirror.
    """
    limits, config = shown.thresholds, shown.config
    states = {name: _states(shown, name) for name in (*shown.names, "agnostic_mask", "pose")}
    person, known = states["person"], states["person"] != 0
    drawn = np.where(shown.drawn_flip, 1, -1)
    reference = np.where(known, person, drawn)
    mirrored = float((person[known] > 0).mean()) if known.any() else 0.0
    evidence: Evidence = {"share": mirrored}
    broken = []
    for name, state in states.items():
        disagrees = (state != 0) & (state != reference)
        evidence[f"apart_{name}"] = share(int(disagrees.sum()), int((state != 0).sum()))
        broken += [name] if (evidence[f"apart_{name}"] or 0) > limits.flip_apart else []
    problems = []
    if broken:
        worst = max(evidence[f"apart_{name}"] or 0 for name in broken)
        text = f"in {worst:.0%} of the rows only one of the person and {', '.join(broken)} is mirrored"
        problems.append(Problem("FAIL", text, TOGETHER))
    problems += _flips_of_files(shown, evidence)
    sigma = np.sqrt(max(config.data.flip * (1 - config.data.flip), 1e-6) / max(int(known.sum()), 1))
    if known.any() and abs(mirrored - config.data.flip) > 5 * sigma + 0.01 and not problems:
        text = f"{mirrored:.0%} of the rows are mirrored, data.flip asks for {config.data.flip:.0%}"
        problems.append(Problem("warn", text, "Look at where flips are drawn and applied."))
    sound = f"{mirrored:.0%} of the rows are mirrored (data.flip {config.data.flip:g}), {', '.join(states)} together"
    return judged("flip", problems, sound, evidence)


def _states(shown: Shown, name: str) -> ndarray:
    """(n,) 1 where the row is the record mirrored, -1 where as it is, 0 where it is neither or cannot be told."""
    rows, record = shown.rows[name], shown.record[name]
    if name == "pose":
        ways = [
            record,
            *(np.stack([way(pose) for pose in record]) for way in (measures.mirrored_pose, _x_only, _sides_only)),
        ]
        off = np.array([[distance_of(*both) for both in zip(rows, way, strict=True)] for way in ways])
        return np.where(
            (off[0] < NEAR) == (off[1] < NEAR), _half_mirrored(off, shown.drawn_flip), np.where(off[1] < NEAR, 1, -1)
        )
    same, mirrored = apart(rows, record), apart(rows, record[:, :, ::-1])
    told = np.minimum(same, mirrored) < 0.5 * np.maximum(same, mirrored)
    return np.where(told & (np.abs(same - mirrored) > 0.2), np.where(mirrored < same, 1, -1), 0)


def _half_mirrored(off: ndarray, drawn: ndarray) -> ndarray:
    """Poses of which only x, or only left and right, was mirrored count as the opposite of what was drawn."""
    half = (np.minimum(off[2], off[3]) < NEAR) & (np.minimum(off[0], off[1]) > NEAR)
    return np.where(half, np.where(drawn, -1, 1), 0)


def _x_only(pose: ndarray) -> ndarray:
    return np.where(pose[:, 2:] > 0, pose * (-1, 1, 1) + (1, 0, 0), 0)


def _sides_only(pose: ndarray) -> ndarray:
    found: ndarray = pose[list(measures.POSE_MIRRORED)]
    return found


def _flips_of_files(shown: Shown, evidence: Evidence) -> list[Problem]:
    """Problems that lie on disk, or between disk and record: pictures that fit their files, or labels, in a mirror."""
    problems = []
    for name, side in (("person", "target"), ("cloth", "cloth")):
        rows = list(shown.files)
        if rows:
            found, expected = (
                shown.record[name][rows],
                np.stack([getattr(plain, side)["area"] for plain in shown.files.values()]),
            )
            same, mirrored = apart(found, expected), apart(found[:, :, ::-1], expected)
            part = share(int(((mirrored < 0.5 * same) & (same > 2)).sum()), len(rows))
            if part > shown.thresholds.flip_apart:
                problems.append(
                    Problem("FAIL", f"the reader shows {part:.0%} of the files of {name} mirrored", TOGETHER)
                )
    if problems or len(shown.parsed) < 4:
        return problems
    pictures = [
        measures.flipped_evidence(as_bytes(shown.record["original"][row]), parse) for row, parse in shown.parsed.items()
    ]
    better = evidence["parse"] = float(np.mean(pictures))
    if better > shown.thresholds.flip_parse:
        text = f"pictures fit their labels better in a mirror (by {better:.3f} of their variance)"
        problems.append(Problem("FAIL", text, "Mirror the files of image and parse together, or neither."))
    return problems
