"""Where the person's pixels look on the cloth: how sharply, and, where the truth is known, how rightly.

Each cross-attention is the implicit warp of its block.  The fused kernel keeps no weights, so queries and keys are
caught on their way in, and their softmax is computed here.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from drape.data.sample import TryOnBatch
from drape.data.viton_hd import VitonHD
from drape.diffusion.schedule import CosineSchedule, resolution_shift
from drape.doctor.batches import take
from drape.doctor.finding import Finding, Status, of_run
from drape.doctor.measured import age_of, examined_on, pairs_of, whose
from drape.doctor.patient import Patient
from drape.doctor.pictures import png
from drape.doctor.predictor import OfNet, amplitudes, noise
from drape.errors import DrapeError
from drape.nets.attention import CrossAttention, KeysValues
from drape.nets.parallel_unet import ParallelUNet
from drape.training import state

PROBE = 0.7  # of the probes: the picture is half hidden, the shapes are there
PICTURED = 2  # pairs whose maps are in the evidence
POINTS = 4  # pixels of each


@dataclass(frozen=True, kw_only=True)
class Look:
    """Where one head of one block looks from each of the pixels that were asked for, over all pairs.

    entropy   over that of looking everywhere alike, mean over the pixels
    peak      (n, 2) x, y in [0, 1] of the cloth: where it looks most
    mean      (n, 2) the mean place
    """

    entropy: float
    peak: Float[Tensor, "n 2"]
    mean: Float[Tensor, "n 2"]


@dataclass(frozen=True, kw_only=True)
class Caught:
    """Queries and keys of one block for a batch, and the sizes (height, width) of what they are of."""

    name: str
    queries: Float[Tensor, "b heads n d"]
    keys: Float[Tensor, "b heads m d"]
    size: tuple[int, int]
    cloth_size: tuple[int, int]
    out_norm: float

    def weights(self, row: int) -> Float[Tensor, "heads n m"]:
        """softmax(q k / sqrt(d)) of one pair."""
        q, k = self.queries[row], self.keys[row]
        return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)


def check_attention(patient: Patient) -> list[Finding]:
    """Entropy of each head, and on mannequins the distance between where the net looks and where it should.

    evidence: t; blocks: by cross-attention {name, entropy (of each head), out_norm, peak_px, mean_px (error of the best
    head in pixels of the cloth, or None)}; chance_px (of always looking at the middle), untrained_px (of the untrained
    net); maps: by pair {block, person, cloth (PNG in base64), points: by pixel {x, y, true, peak (x, y in [0, 1]),
    error_px, map (rows of probabilities over the cloth, mean of the heads)}}
    """
    net, pairs = whose(patient), pairs_of(patient, examined_on(patient))
    if net is None or pairs is None:
        return []
    pairs = take(pairs, range(min(len(pairs), patient.thresholds.attention_pairs)))
    pairs, truth = _with_truth(patient, pairs)
    caught = _catch(net[1], patient, pairs)
    if not caught:
        return []
    if not all(each.queries.isfinite().all() for each in caught):
        return []
    looks = [_looks(each, pairs, truth) for each in caught]
    size = patient.config.cloth_size
    blocks = [_block(each, found, where, size) for each, (found, where) in zip(caught, looks, strict=True)]
    evidence: dict[str, Any] = {"t": PROBE, "blocks": blocks, "chance_px": None, "untrained_px": None}
    chosen = min(range(len(blocks)), key=lambda i: (blocks[i]["mean_px"] or 0, np.mean(blocks[i]["entropy"])))
    if truth is not None:
        where = looks[chosen][1]
        assert where is not None
        evidence["chance_px"] = _distance(where, where.mean(dim=0, keepdim=True), size)
        fresh = _catch(state.fresh_net(patient.config).to(patient.device), patient, pairs)[chosen]
        evidence["untrained_px"] = _block(fresh, *_looks(fresh, pairs, truth), size)["mean_px"]
    evidence["maps"] = _maps(caught[chosen], pairs, truth, size)
    return [_judged(patient, evidence, chosen)]


def _judged(patient: Patient, evidence: dict[str, Any], chosen: int) -> Finding:
    blocks, age = evidence["blocks"], age_of(patient)
    entropies = [value for block in blocks for value in block["entropy"]]
    text = f"{len(entropies)} heads look at {min(entropies):.2f} to {max(entropies):.2f} of the cloth's entropy"
    best = blocks[chosen]
    lost = False
    if evidence["chance_px"] is not None:
        text += (
            f"; {best['name']} looks {best['mean_px']:.1f} px beside the true place "
            f"(untrained {evidence['untrained_px']:.1f}, always in the middle {evidence['chance_px']:.1f})"
        )
        lost = best["mean_px"] >= evidence["chance_px"]
    status: Status = "ok"
    remedy = ""
    if min(entropies) > patient.thresholds.attention_entropy:
        status, text = "warn", f"every head looks everywhere alike: {text}"
    elif lost and not age.early:
        status, text = "warn", f"no head finds the place on the cloth: {text}"
    if status == "warn":
        remedy = "train on" if age.early else "try net.places=body; see the cloth gap for whether the cloth counts"
    return of_run(status, "attention", text, remedy, evidence)


def _with_truth(patient: Patient, pairs: TryOnBatch) -> tuple[TryOnBatch, Tensor | None]:
    """The pairs whose true warp is known, with it: (b, 2, h, w), x and y in [0, 1] of the cloth, nan where none.
    All pairs and None where no warp is known."""
    config = patient.config
    if config.data.layout != "viton-hd" or config.data.cloth_kind != "flat":
        return pairs, None
    rows, warps = [], []
    for row, (person, cloth) in enumerate(zip(pairs.person_id, pairs.cloth_id, strict=True)):
        for split in ("train", "test"):
            try:
                reader = VitonHD(
                    patient.root,
                    split=split,
                    setting="paired" if person == cloth else "counterfactual",
                    size=config.resolution,
                    cloth_size=config.cloth_size,
                    fit=config.data.fit,
                    fields=("warp",),
                    pose=config.data.pose,
                )
                warp = reader.by_id(person).warp
            except (DrapeError, OSError):
                continue
            assert warp is not None
            rows.append(row)
            warps.append(warp.float())
            break
    return (take(pairs, rows), torch.stack(warps).to(patient.device)) if rows else (pairs, None)


def _catch(net: ParallelUNet, patient: Patient, pairs: TryOnBatch) -> list[Caught]:
    """What every cross-attention compares at the probe, in the order they run."""
    reference = CosineSchedule(shift=resolution_shift(*patient.config.resolution))
    level = reference.log_snr(torch.full((len(pairs),), PROBE)).to(patient.device)
    person = pairs.need("person")
    eps = torch.stack([noise(each, "attention", person.shape[1:]) for each in pairs.person_id]).to(person)
    a, s = amplitudes(level)
    with _hooked(net, patient.config.cloth_size) as caught:
        OfNet(net, patient.config)(a * person + s * eps, level, pairs)
    return caught


@contextmanager
def _hooked(net: ParallelUNet, cloth_size: tuple[int, int]) -> Iterator[list[Caught]]:
    caught: list[Caught] = []

    def hook(name: str) -> Any:
        def before(module: CrossAttention, given: tuple[Tensor, KeysValues, Tensor | None]) -> None:
            caught.append(_of(name, module, *given, cloth_size))

        return before

    modules = [(name, module) for name, module in net.named_modules() if isinstance(module, CrossAttention)]
    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def _of(
    name: str, module: CrossAttention, x: Tensor, cloth: KeysValues, position: Tensor | None, size: tuple[int, int]
) -> Caught:
    q = module.to_q(module.norm(x).flatten(2).transpose(1, 2))
    if module.position is not None:
        q = q + module.position.of_query(position)
    q = q.unflatten(2, (module.num_heads, -1)).transpose(1, 2)
    if module.qk_norm is not None:
        q = module.qk_norm.of_query(q)
    side = round(math.sqrt(size[0] * size[1] / cloth.keys.shape[2]))
    return Caught(
        name=name.removesuffix(".cross_attention"),
        queries=q.float(),
        keys=cloth.keys.float(),
        size=(x.shape[-2], x.shape[-1]),
        cloth_size=(size[0] // side, size[1] // side),
        out_norm=float(module.to_out.weight.detach().float().norm()),
    )


def _looks(caught: Caught, pairs: TryOnBatch, truth: Tensor | None) -> tuple[list[Look], Tensor | None]:
    """(each head's look, where it should look), from all pixels of the masks, or all whose place is known."""
    heads = caught.queries.shape[1]
    centres = _centres(caught.cloth_size).to(caught.queries)
    entropy, peaks, means, places = [], [], [], []
    for row in range(len(pairs)):
        inside, where = _asked(caught, pairs, truth, row)
        if not inside.any():
            continue
        weights = caught.weights(row)[:, inside]
        entropy.append(-(weights * weights.clamp_min(1e-12).log()).sum(dim=-1) / math.log(len(centres)))
        peaks.append(centres[weights.argmax(dim=-1)])
        means.append(weights @ centres)
        if where is not None:
            places.append(where[inside])
    if not entropy:
        return [Look(entropy=math.nan, peak=centres[:0], mean=centres[:0]) for _ in range(heads)], None
    together = [torch.cat(each, dim=1) for each in (entropy, peaks, means)]
    looks = [
        Look(entropy=float(together[0][head].mean()), peak=together[1][head], mean=together[2][head])
        for head in range(heads)
    ]
    return looks, torch.cat(places) if places else None


def _asked(caught: Caught, pairs: TryOnBatch, truth: Tensor | None, row: int) -> tuple[Tensor, Tensor | None]:
    """(which pixels of the block are asked, (n, 2) where each should look or None), for one pair."""
    if truth is None:
        mask = F.adaptive_avg_pool2d(pairs.need("agnostic_mask")[row : row + 1], caught.size)
        return mask.flatten() > 0.5, None
    known = truth[row].isfinite().all(dim=0).float()[None, None]
    share = F.adaptive_avg_pool2d(known, caught.size)
    total = F.adaptive_avg_pool2d(truth[row].nan_to_num()[None] * known, caught.size)
    return share.flatten() > 0.5, (total / share.clamp_min(1e-6))[0].flatten(1).T


def _block(caught: Caught, looks: Sequence[Look], where: Tensor | None, size: tuple[int, int]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": caught.name,
        "entropy": [look.entropy for look in looks],
        "out_norm": caught.out_norm,
        "peak_px": None,
        "mean_px": None,
    }
    if where is not None:
        found["peak_px"] = min(_distance(where, look.peak, size) for look in looks)
        found["mean_px"] = min(_distance(where, look.mean, size) for look in looks)
    return found


def _maps(caught: Caught, pairs: TryOnBatch, truth: Tensor | None, size: tuple[int, int]) -> list[dict[str, Any]]:
    return [
        {
            "block": caught.name,
            "person": png(pairs.need("person")[row]),
            "cloth": png(pairs.need("cloth")[row]),
            "points": _points(caught, pairs, truth, row, size),
        }
        for row in range(min(PICTURED, len(pairs)))
    ]


def _points(
    caught: Caught, pairs: TryOnBatch, truth: Tensor | None, row: int, size: tuple[int, int]
) -> list[dict[str, Any]]:
    inside, where = _asked(caught, pairs, truth, row)
    weights = caught.weights(row).mean(dim=0)
    places, centres = _centres(caught.size).to(weights), _centres(caught.cloth_size).to(weights)
    points = []
    for pixel in _spread(places, inside.nonzero().flatten()):
        peak = centres[weights[pixel].argmax()]
        true = None if where is None else where[pixel]
        rows = weights[pixel].unflatten(0, caught.cloth_size).tolist()
        points.append(
            {
                "x": float(places[pixel, 0]),
                "y": float(places[pixel, 1]),
                "true": None if true is None else true.tolist(),
                "peak": peak.tolist(),
                "error_px": None if true is None else _distance(true[None], peak[None], size),
                "map": [[round(value, 5) for value in line] for line in rows],
            }
        )
    return points


def _spread(places: Tensor, among: Tensor) -> list[int]:
    """A few of these pixels that lie far from each other: each as far as can be from those before it."""
    if len(among) == 0:
        return []
    middle = places[among].mean(dim=0, keepdim=True)
    chosen = [int(among[(places[among] - middle).norm(dim=1).argmin()])]
    while len(chosen) < min(POINTS, len(among)):
        nearest = torch.cdist(places[among], places[chosen]).amin(dim=1)
        chosen.append(int(among[nearest.argmax()]))
    return chosen


def _centres(size: tuple[int, int]) -> Float[Tensor, "n 2"]:
    """x, y in [0, 1] of the middle of each pixel, by rows."""
    y, x = torch.meshgrid(*((torch.arange(n) + 0.5) / n for n in size), indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def _distance(true: Tensor, found: Tensor, size: tuple[int, int]) -> float:
    """Mean distance in pixels of a cloth image of this (height, width)."""
    pixels = (true - found) * torch.tensor([size[1], size[0]], device=true.device)
    return float(pixels.norm(dim=1).mean())


CHECKS = (check_attention,)
