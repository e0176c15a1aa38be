"""Tensors against the files they come from, and clothes against the people who wear them."""

import numpy as np
from numpy import ndarray
from scipy.spatial.distance import cdist

from drape.data import parse_labels as labels
from drape.doctor.contract_files import SMOOTH
from drape.doctor.contract_shown import STEP, Evidence, Problem, Shown, apart, as_bytes, judged, share, thumbs
from drape.doctor.finding import Finding
from drape.survey import measures

PLAIN = "no plain folder to compare with"
ORDER = "Decode as RGB: Pillow does, OpenCV gives BGR (image[..., ::-1])."
PAIRS = "Keep a sample's person and cloth together on their way from the list of pairs into the batch."
LEAST_PIXELS = 8
CUT_LEVELS = 4  # levels of 255 by which two ways to shrink a picture may differ in a pixel
ODD = 0.3  # quantile of exchanged pairs from which a pair counts as no match: of strangers 70 % do


def check_colour_order(shown: Shown) -> Finding:
    """RGB, as in the files; and the files themselves: skin is warm, and cloth and worn cloth agree as they stand.

    evidence: reversed_NAME, share of the pairs whose tensor agrees better with the file's channels reversed; skin,
    share of the people whose skin is redder than blue; cloth, the distance of cloth and worn cloth, and cloth_reversed
    with the cloth's channels reversed.
    """
    limits = shown.thresholds
    evidence: Evidence = {}
    turned = []
    for name, (found, expected) in _beside_files(shown).items():
        same, back = apart(found, expected), apart(found[..., ::-1], expected)
        evidence[f"reversed_{name}"] = share(int(((back < 0.5 * same) & (same > limits.file_levels)).sum()), len(found))
        turned += [name] if evidence[f"reversed_{name}"] > limits.reversed_share else []
    problems = _without_colour(shown)
    if problems:
        pass
    elif turned:
        problems.append(Problem("FAIL", f"{' and '.join(turned)} are BGR: red and blue of the files exchanged", ORDER))
    else:
        problems += _order_by_sight(shown, evidence)
    warm = f"skin is warm in {evidence['skin']:.0%}" if "skin" in evidence else "no skin to look at"
    return judged("colour order", problems, f"RGB: {warm} of the people", evidence)


def _without_colour(shown: Shown) -> list[Problem]:
    """Problems of gray pictures, where red equals blue everywhere: grave where the files have colours."""
    problems = []
    for name, side in (("person", "target"), ("cloth", "cloth")):
        files = [getattr(plain, side)["area"] for plain in shown.files.values()]
        if _is_gray(shown.record[name]):
            coloured = bool(files) and not _is_gray(np.stack(files))
            text = f"{name} has no colours, {'though its files have' if coloured else 'nor have its files'}"
            problems.append(Problem("FAIL" if coloured else "warn", text, "Decode red, green and blue."))
    return problems


def _is_gray(images: ndarray) -> bool:
    return bool(np.abs(images[..., 0] - images[..., 2]).mean() < 0.5 * STEP)


def _order_by_sight(shown: Shown, evidence: Evidence) -> list[Problem]:
    """Problems that the pictures themselves show, whatever their files say."""
    limits = shown.thresholds
    skin = [warm for row in shown.firsts if (warm := _skin(shown, row)) is not None]
    cold = False
    if len(skin) >= 4:
        evidence["skin"] = float(np.mean(np.array(skin) > 0))
        cold = evidence["skin"] < limits.skin_warm_least
    swapped = False
    colours = worn_colours(shown, shown.firsts)
    if len(colours) >= 4:
        here = np.mean([measures.spread_distance(cloth, worn) for cloth, worn, _ in colours.values()])
        back = np.mean([measures.spread_distance(turned, worn) for _, worn, turned in colours.values()])
        evidence |= {"cloth": float(here), "cloth_reversed": float(back)}
        swapped = float(back) < limits.cloth_reversed * float(here)
    if cold:
        which = "the people are" if swapped else "people and clothes are"
        text = f"{which} BGR: only {evidence['skin']:.0%} have skin that is redder than blue"
        return [Problem("FAIL", text, f"{ORDER} If the files themselves are wrong, write them again.")]
    if swapped:
        text = f"the clothes are BGR: with red and blue exchanged they look more like what is worn ({back:.0f} against "
        return [Problem("FAIL", f"{text}{here:.0f} in CIELAB)", f"{ORDER} If the files are wrong, write them again.")]
    if len(skin) >= 8 and evidence["skin"] < limits.skin_warm:
        text = f"only {evidence['skin']:.0%} of the people have skin that is redder than blue"
        return [Problem("warn", text, "Look at a few pictures: drape data show.")]
    return []


def _skin(shown: Shown, row: int) -> float | None:
    """Red less blue on the person's skin, by the parse or, without one, about the nose; None where neither is known."""
    person = as_bytes(shown.record["person"][row])
    if row in shown.parsed:
        return measures.skin_is_warm(person, shown.parsed[row])
    x, y, seen = shown.record["pose"][row][0]
    if not seen or shown.parsed:
        return None
    height, width = person.shape[:2]
    top, left = min(int(y * height), height - 1), min(int(x * width), width - 1)
    face = person[max(top - 1, 0) : top + 2, max(left - 1, 0) : left + 2].reshape(-1, 3).astype(float)
    return float((face[:, 0] - face[:, 2]).mean())


def worn_colours(shown: Shown, rows: list[int]) -> dict[int, tuple[ndarray, ndarray, ndarray]]:
    """Colour spreads by row: of the cloth, of what the target wears, of the cloth with red and blue exchanged."""
    found = {}
    for row in [row for row in rows if not shown.parsed or row in shown.parsed]:
        cloth, person = as_bytes(shown.record["cloth"][row]), as_bytes(shown.record["person"][row])
        hidden = shown.record["agnostic_mask"][row] > 0.5
        worn = hidden & np.isin(shown.parsed[row], labels.UPPER_CLOTHES) if row in shown.parsed else _depths(hidden)
        flat = _not_ground(cloth)
        if min(worn.sum(), flat.sum()) >= LEAST_PIXELS:
            turned = np.ascontiguousarray(cloth[flat][:, ::-1])
            found[row] = (measures.spread(cloth[flat]), measures.spread(person[worn]), measures.spread(turned))
    return found


def _depths(mask: ndarray) -> ndarray:
    """The half of the mask that lies deepest in it: cloth rather than arms and background."""
    import cv2

    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return mask & (depth >= np.median(depth[mask])) if mask.any() else mask


def _not_ground(cloth: ndarray) -> ndarray:
    """Where the picture is not of the colour of its border; its middle, where that is nearly nowhere."""
    border = np.concatenate([cloth[0], cloth[-1], cloth[:, 0], cloth[:, -1]])
    region: ndarray = np.abs(cloth.astype(int) - np.median(border, axis=0)).max(axis=2) > 12
    if region.mean() < 0.15:
        height, width = region.shape
        region = np.zeros_like(region)
        region[height // 4 : height * 3 // 4, width // 3 : width * 2 // 3] = True
    return region


def check_resize(shown: Shown) -> Finding:
    """Pictures are shrunk with antialiasing: the tensors agree with averages of the file, not with picked pixels.

    evidence: NAME, the mean difference in levels of 255 for each way to shrink.
    """
    evidence: Evidence = {}
    problems = []
    for name, side in (("person", "target"), ("cloth", "cloth")):
        ways: dict[str, list[float]] = {}
        for row, plain in shown.files.items():
            for way, picture in getattr(plain, side).items():
                ways.setdefault(way, []).append(float(apart(shown.record[name][row][None], picture[None])[0]))
        if len(ways) < 2:
            continue
        found = evidence[name] = {way: round(float(np.median(values)), 3) for way, values in ways.items()}
        best, smooth = min(found, key=lambda way: found[way]), min(found[way] for way in SMOOTH)
        if best not in SMOOTH and found[best] < 0.5 * smooth:
            text = f"{name} is not antialiased: {found[best]:.1f} levels from '{best}', {smooth:.1f} from a mean"
            problems.append(Problem("FAIL", text, "Shrink by area averaging (Pillow's BOX), in training and sampling."))
    off = ", ".join(f"{name} {ways['area']:.2f}" for name, ways in evidence.items())
    sound = f"antialiased: {off} levels from an area average"
    if not evidence:
        sound = f"not compared: {'the files are as small as the net' if shown.files else PLAIN}"
    return judged("resize", problems, sound, evidence)


def check_files(shown: Shown) -> Finding:
    """Each tensor shows its own file: the right one, the right part of it, at the right time.

    evidence: NAME, the median difference in levels of 255; pairs, how many were compared.
    """
    limits, off = shown.thresholds, {}
    problems = []
    for name, (found, expected) in _beside_files(shown).items():
        if name == "agnostic":
            continue  # compared with the person by a check of its own
        differences = apart(found, expected)
        off[name] = float(np.median(differences))
        if off[name] > limits.files_levels:
            worst = shown.pairs[list(shown.files)[int(differences.argmax())]][name == "cloth"]
            text = f"{name} differs from its file by {off[name]:.0f} levels of 255 (median of {len(found)} pairs)"
            remedy = f"Look at {worst}: another file, another part of it, or an old cache (delete RUN/cache)."
            problems.append(Problem("FAIL", text, remedy))
    levels = ", ".join(f"{name} {each:.2f}" for name, each in off.items())
    sound = f"{len(shown.files)} pairs decoded a second time: {levels} levels off"
    return judged("files", problems, sound if off else f"not compared: {PLAIN}", {**off, "pairs": len(shown.files)})


def _beside_files(shown: Shown) -> dict[str, tuple[ndarray, ndarray]]:
    """(tensors, what the files say) of person, cloth and, outside the mask, the agnostic image; none without files."""
    rows = list(shown.files)
    if not rows:
        return {}
    plain = list(shown.files.values())
    seen = 1 - shown.record["agnostic_mask"][rows][..., None]
    return {
        "person": (shown.record["person"][rows], np.stack([each.target["area"] for each in plain])),
        "cloth": (shown.record["cloth"][rows], np.stack([each.cloth["area"] for each in plain])),
        "agnostic": (shown.record["agnostic"][rows] * seen, np.stack([each.original for each in plain]) * seen),
    }


def cut_out(shown: Shown, name: str) -> Problem | None:
    """The problem of pictures whose pixels are their files' where a mask left them, and one colour elsewhere."""
    beside = _beside_files(shown)
    if name not in ("person", "cloth") or not beside:
        return None
    found, expected = beside[name]
    other = np.abs(found - expected).max(axis=3) > CUT_LEVELS * STEP
    painted, part = found[other], float(other.mean())
    if not len(painted) or not 0.02 < part < 1 or not (painted.std(axis=0) < STEP).all():
        return None
    garment = np.stack([_not_ground(as_bytes(image)) for image in expected])
    hidden = float(other[garment].mean()) if garment.any() else 0.0
    colour = ", ".join(f"{value:.2f}" for value in painted.mean(axis=0))
    text = f"{part:.0%} of the pixels of {name} are one colour ({colour}), {1 - part:.0%} are those of the file"
    if name == "cloth" and hidden > 0.5 > float(other[~garment].mean()):
        text = f"the cloth is cut out of its own picture: {text}, and the colour lies on the garment"
        return Problem("FAIL", text, "Look at the mask of the cloth: its wrong side is painted over. Invert it.")
    return Problem("FAIL", f"{text}: a mask paints over the rest", f"Look at what masks {name}, and at its polarity.")


def check_batches(shown: Shown) -> Finding:
    """A row of a batch is its record, mirrored or not, and nothing else.

    evidence: NAME, the share of the rows that differ from both by more than `files_levels`; NAME_levels, the median.
    """
    limits = shown.thresholds
    evidence: Evidence = {}
    problems: list[Problem] = []
    for name in (*shown.names, "agnostic_mask"):
        rows, record = shown.rows[name], shown.record[name]
        off = np.minimum(apart(rows, record), apart(rows, record[:, :, ::-1]))
        changed = evidence[name] = share(int((off > limits.files_levels).sum()), len(off))
        levels = evidence[f"{name}_levels"] = float(np.median(off))
        if changed > limits.rows_changed or levels > limits.file_levels:
            text = (
                f"{name} is changed on its way into the batches: in {changed:.0%} of the rows, by {levels:.0f} levels"
            )
            remedy = f"Change nothing of {name} alone: what is done to a sample is done to all its pictures and joints."
            problems.append(Problem("FAIL" if changed > limits.rows_changed else "warn", text, remedy))
    return judged("batches", problems, f"{len(shown)} rows are their records, mirrored or not", evidence)


def check_pairing(shown: Shown) -> Finding:
    """The cloth is the one that the target wears, row for row: by the files, by the source, and by the colours.

    evidence: strangers_NAME, the share of the rows whose picture is somebody else's; of each setting, ratio: the mean
    distance of cloth and worn cloth over that of clothes and other people's worn cloth, below 1 where they belong
    together, and odd: the share of the pairs that are less alike than 30 % of the exchanged ones.
    """
    limits = shown.thresholds
    evidence: Evidence = {}
    problems: list[Problem] = []
    for name in ("person", "cloth"):
        strangers = evidence[f"strangers_{name}"] = _strangers(shown, name)
        if strangers > limits.strangers:
            text = f"in {strangers:.0%} of the rows the {name} is not the one that the pair names, but another row's"
            problems.append(Problem("FAIL", text, PAIRS))
    words = [f"{len(shown.firsts)} pairs are those that the lists name"]
    for setting in dict.fromkeys(shown.settings):
        problem, said = _by_colour(shown, setting, evidence)
        words.append(said)
        problems += [problem] if problem and not problems else []
    return judged("pairing", problems, "; ".join(words), evidence)


def _strangers(shown: Shown, name: str) -> float:
    """The share of the rows that look like another pair's picture, not like their own, in a mirror or not."""
    one = 0 if name == "person" else 1
    own = [pair if name == "person" else pair[one:] for pair in shown.pairs]
    small = thumbs(shown.record[name])
    sides = [_strange(thumbs(shown.rows[name]), small, own)]
    if shown.files:
        rows = list(shown.files)
        files = np.stack([(plain.target if one == 0 else plain.cloth)["area"] for plain in shown.files.values()])
        sides.append(_strange(small[rows], thumbs(files), [own[row] for row in rows]))
    return max(sides)


def _strange(found: ndarray, expected: ndarray, names: list[tuple[str, ...]]) -> float:
    flat = found.reshape(len(found), -1)
    sides = (side.reshape(len(found), -1) for side in (expected, expected[:, :, ::-1]))
    distance = np.minimum(*(cdist(flat, side, "cityblock") / flat.shape[1] for side in sides))
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    ids = np.array([number[name] for name in names])
    other = np.where(ids[:, None] == ids[None], np.inf, distance).min(axis=1)
    own = np.diag(distance)
    return float(((other < 0.5 * own) & (own > 4 * STEP) & (other < 8 * STEP)).mean())


def _by_colour(shown: Shown, setting: str, evidence: Evidence) -> tuple[Problem | None, str]:
    """What the colours of clothes and of what is worn say about the pairs of a setting."""
    limits = shown.thresholds
    colours = worn_colours(shown, shown.of(setting)[: limits.coloured])
    if len(colours) < 4:
        return None, f"too few {setting} pairs to compare colours"
    cloth, worn = (np.stack([spreads[side] for spreads in colours.values()]) for side in (0, 1))
    distance, between = _distances(cloth, worn), _distances(cloth, cloth)
    off = ~np.eye(len(cloth), dtype=bool)
    own = np.diag(distance)
    if float(np.median(between[off])) < limits.clothes_alike:
        return None, f"the {setting} clothes are too alike to tell by colour"
    ratio = evidence[f"ratio_{setting}"] = float(own.mean() / distance[off].mean())
    typical = np.array([np.quantile(row[keep], ODD) for row, keep in zip(distance, off, strict=True)])
    odd = evidence[f"odd_{setting}"] = float((own >= typical).mean())
    said = f"{setting}: cloth and worn cloth are {ratio:.2f} times as far apart as exchanged ones"
    if ratio > limits.pairing_ratio or (odd > limits.pairing_odd_most and len(own) >= 12):
        return Problem("FAIL", f"{said}, {odd:.0%} of the pairs do not match", PAIRS), said
    if odd > limits.pairing_odd and odd * len(own) >= 2:
        worst = shown.pairs[list(colours)[int((own - typical).argmax())]]
        look = f"Look at {worst[0]} in {worst[1]}, and run drape data check: it ranks the pairs by suspicion."
        return Problem("warn", f"{said}, but {odd:.0%} of the pairs do not match", look), said
    return None, said


def _distances(first: ndarray, second: ndarray) -> ndarray:
    difference: ndarray = np.sqrt(((first[:, None] - second[None]) ** 2).mean(axis=2))
    return difference


def check_same_picture(shown: Shown) -> Finding:
    """The cloth picture is another photograph, not cut out of the target where it lies.

    evidence: in_place, the share of the pairs more than half of whose cloth equals the target pixel by pixel.
    """
    cloth, person = shown.record["cloth"], shown.record["person"]
    if cloth.shape != person.shape:
        return judged("same picture", [], "not compared: cloth and person have different sizes", {})
    copies = [_copied(cloth[row], person[row]) > 0.5 for row in shown.firsts]
    found = share(sum(copies), len(copies))
    problems = []
    if found > shown.thresholds.in_place:
        text = f"{found:.0%} of the cloth pictures are the target's own pixels in place: a net learns to copy them"
        problems.append(Problem("warn", text, "Show the cloth in another photograph, or lying flat."))
    return judged(
        "same picture", problems, f"{found:.0%} of the clothes are cut from the target in place", {"in_place": found}
    )


def _copied(cloth: ndarray, person: ndarray) -> float:
    region = _not_ground(as_bytes(cloth))
    return float((np.abs(cloth - person).max(axis=2)[region] < 3 / 127.5).mean()) if region.any() else 0.0
