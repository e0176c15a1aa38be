"""What a net is made of, against arithmetic written a second time: attention, tokens, its output, pictures of it.

No data and no training: a net whose every layer speaks is shown noise, a few samples of it.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from drape.doctor.finding import Finding
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import any_conditions, used_by
from drape.doctor.trial import lively
from drape.nets import attention
from drape.nets.conditions import Conditions
from drape.nets.parallel_unet import ParallelUNet
from drape.pipeline import compose
from drape.shapes import Image, PerSample
from drape.training import preview

SAMPLES, HEADS, HEAD_DIM = 3, 2, 8
LENGTHS = ((12, 12), (12, 5))
"""(queries, keys): as many of both, as within a picture, and more pixels than joints."""
REACH, LITTLE = 3.0, 0.03
"""Outputs asked for: v and eps reach 4 in one pixel of ten thousand, so a sound net says the first as well as the
second."""
GAIN = 0.9


def check_attention_maths(patient: Patient) -> list[Finding]:
    """Attention is softmax(q k^T / sqrt(d)) v over the keys of the same sample; tokens are pixels, row by row.

    evidence   errors: largest, over the size of what is right, by "attention", "attention in PRECISION", "tokens",
               "features", "split", "merge"
    """
    limit = patient.thresholds.attention_error
    errors = {"attention": _attention_error(patient.device, torch.float32)}
    if patient.config.precision == "bf16":
        errors["attention in bf16"] = _attention_error(patient.device, torch.bfloat16)
    errors |= _order_errors()
    evidence = {"errors": errors}
    wrong = {name: error for name, error in errors.items() if not error <= limit}
    if not wrong:
        text = "softmax(q k^T / sqrt(d)) v of each sample, tokens and heads in their order"
        return [Finding("ok", "attention maths", text, "", evidence)]
    name = next(iter(wrong))
    if name.startswith("attention"):
        how = _recognised(patient.device)
        text = f"{name} is not softmax(q k^T / sqrt(d)) v, off by {wrong[name]:.2g} times its size{how}"
        remedy = "Compare attend in drape/nets/attention.py: (b, heads, n, d), softmax over the keys of one sample."
        return [Finding("FAIL", "attention maths", text, remedy, evidence)]
    text, remedy = ORDERS[name]
    return [Finding("FAIL", "attention maths", text, remedy, evidence)]


ORDERS = {
    "tokens": (
        "a token is not a pixel with its channels: as_tokens(x)[b, y * w + x] is not x[b, :, y, x]",
        "Use x.flatten(2).transpose(1, 2); a view or reshape to (b, h * w, c) mixes pixels and channels.",
    ),
    "features": (
        "tokens are put back in another place than they came from: as_features(as_tokens(x)) is not x",
        "Use tokens.transpose(1, 2).unflatten(2, (h, w)).",
    ),
    "split": (
        "heads are not split from the channels of their token",
        "Split (b, n, parts * heads * d) by unflatten, then move the heads before the tokens.",
    ),
    "merge": ("heads are not put side by side again", "Use x.transpose(1, 2).flatten(2)."),
}
"""By what is in the wrong order: what is wrong, what to do."""


def _attention_error(device: torch.device, dtype: torch.dtype) -> float:
    """The largest error, also as in training where that takes another way."""
    worst = 0.0
    for queries, keys in LENGTHS:
        q, k, v = (x.to(device, dtype) for x in _heads(queries, keys))
        due = _attended(q, k, v, dim=-1)
        with torch.enable_grad():
            found = used_by(attention, "attend")(q.requires_grad_(), k, v)
        worst = max(worst, _off(found, due))
    return worst


def _recognised(device: torch.device) -> str:
    """ ": what it is instead", in words, where that is known."""
    q, k, v = (x.to(device) for x in _heads(*LENGTHS[0]))
    with torch.no_grad():
        found = used_by(attention, "attend")(q, k, v)
    across, heads = ([x.transpose(axis, 2) for x in (q, k, v)] for axis in (0, 1))
    known = {
        "the samples of a batch attend to each other": _attended(*across, dim=-1).transpose(0, 2),
        "the heads attend to each other": _attended(*heads, dim=-1).transpose(1, 2),
        "the softmax runs over the queries": _attended(q, k, v, dim=-2),
        "1 / sqrt(d) is missing": _attended(q * math.sqrt(HEAD_DIM), k, v, dim=-1),
        "1 / sqrt(d) is there twice": _attended(q / math.sqrt(HEAD_DIM), k, v, dim=-1),
    }
    name, error = min(((name, _off(found, other)) for name, other in known.items()), key=lambda each: each[1])
    return f": {name}" if error < 0.01 else ""


def _heads(queries: int, keys: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SAMPLES, HEADS, n, HEAD_DIM, generator=generator) for n in (queries, keys, keys)]


def _attended(q: Tensor, k: Tensor, v: Tensor, *, dim: int) -> Tensor:
    """exp(logits) over their sum along `dim`, times v, in float64."""
    q, k, v = (x.detach().double() for x in (q, k, v))
    shares = torch.einsum("bhnd,bhmd->bhnm", q, k).div(math.sqrt(q.shape[-1])).exp()
    return torch.einsum("bhnm,bhmd->bhnd", shares / shares.sum(dim=dim, keepdim=True), v)


def _order_errors() -> dict[str, float]:
    """Errors of what only moves numbers: 0 where each is in its place."""
    x = torch.arange(2 * 6 * 4 * 5.0).reshape(2, 6, 4, 5)
    tokens = torch.stack([x[:, :, y, column] for y in range(4) for column in range(5)], dim=1)
    parts = [tokens[..., first : first + 1] for first in range(6)]  # 3 parts of 2 heads of width 1
    formats = (torch.contiguous_format, torch.channels_last)
    made = [x.contiguous(memory_format=each) for each in formats]
    split = used_by(attention, "split_heads")(tokens, 2, 3)
    heads = torch.stack(parts[:2], dim=1)
    return {
        "tokens": max(_off(used_by(attention, "as_tokens")(each), tokens) for each in made),
        "features": max(_off(used_by(attention, "as_features")(tokens, each), x) for each in made),
        "split": max(_off(split[part], torch.stack(parts[2 * part : 2 * part + 2], dim=1)) for part in range(3)),
        "merge": _off(used_by(attention, "merge_heads")(heads), tokens[..., :2]),
    }


def check_output(patient: Patient) -> list[Finding]:
    """What the net says, in evaluation mode: the same twice, for a sample whatever its batch, and of any size.

    evidence   evaluation mode: change of the output when asked again; independence: of that of a sample when the
               others of its batch are gone; both over its size.  output range: what is said at the bias REACH
    """
    config, limits = replace(patient.config, precision="fp32", compile=False), patient.thresholds
    net = lively(config).to(patient.device).eval()
    asked = _Asked.of(patient, SAMPLES)
    alone = asked.rows(1)
    with torch.no_grad(), torch.random.fork_rng():
        one, again, together = alone.say(net), alone.say(net), asked.say(net)[:1]
        found = [_random(_off(again, one), limits.random_error)]
        if found[0].status == "ok":
            found.append(_mixing(_off(together, one), limits.independence_error))
        if config.diffusion.target != "x0":  # which never leaves [-1, 1]
            found.append(_range_of(net, alone))
    return found


class _Asked(NamedTuple):
    """What a net is asked about."""

    x_t: Image
    log_snr: PerSample
    conditions: Conditions

    @classmethod
    def of(cls, patient: Patient, count: int) -> "_Asked":
        x_t = torch.randn(count, 3, *patient.config.resolution, generator=torch.Generator().manual_seed(0))
        levels = torch.linspace(0, 4, count)
        conditions = any_conditions(patient.config, count).to(patient.device)
        return cls(x_t.to(patient.device), levels.to(patient.device), conditions)

    def rows(self, count: int) -> "_Asked":
        kept = torch.arange(count, device=self.x_t.device)
        return _Asked(self.x_t[kept], self.log_snr[kept], self.conditions.take(kept))

    def say(self, net: ParallelUNet) -> Tensor:
        return net(self.x_t, self.log_snr, self.conditions).float()


def _random(change: float, limit: float) -> Finding:
    evidence = {"change": change}
    if change <= limit:
        return Finding("ok", "evaluation mode", "the net says the same twice", "", evidence)
    text = f"the net is random in evaluation mode: asked twice, it says something else, {change:.1%} off"
    remedy = "Look for F.dropout without training=self.training, or for noise drawn inside the net."
    return Finding("FAIL", "evaluation mode", text, remedy, evidence)


def _mixing(change: float, limit: float) -> Finding:
    evidence = {"change": change}
    if change <= limit:
        return Finding("ok", "independence", f"a sample's output is its own: {change:.0e} off in a batch", "", evidence)
    text = f"the net mixes the samples of a batch: alone, a sample's output is {change:.1%} off what it is among others"
    remedy = (
        "Look for an attention over axis 0 (batch_first forgotten), a batch norm, or a reshape that crosses axis 0."
    )
    return Finding("FAIL", "independence", text, remedy, evidence)


def _range_of(net: ParallelUNet, asked: _Asked) -> Finding:
    """Whether the last convolution's bias comes out as it is.  The net is spoiled for anything else."""
    last = net.head.conv
    last.weight.zero_()
    said = []
    for bias in (0.0, LITTLE, REACH, -REACH):
        assert last.bias is not None
        last.bias.fill_(bias)
        said.append(asked.say(net).mean().item())
    zero, little, *ends = said
    slope = (little - zero) / LITTLE
    found = min((abs(end - zero) for end in ends), default=0.0)
    evidence = {"said": ends, "slope": slope}
    if slope != 0 and found >= GAIN * abs(slope) * REACH:
        return Finding("ok", "output range", f"the output reaches {found:.3g} and {-found:.3g}", "", evidence)
    text = f"the output stops at {found:.2g} where the last layer says {REACH:g}: targets reach 4"
    remedy = "End the net with its last convolution: no tanh, sigmoid or clamp behind it."
    return Finding("FAIL", "output range", text, remedy, evidence)


def check_pictures(patient: Patient) -> list[Finding]:
    """Pictures are written as they were read: all 256 levels of three channels there and back, what is beyond clipped.

    evidence   off: levels at most, by who writes
    """
    level = np.arange(256, dtype=np.int64).reshape(16, 16)
    rgb = np.stack([level, 255 - level, (7 * level + 3) % 256], axis=-1)
    signed = rgb / 127.5 - 1
    writers = {
        "drape try-on": lambda image: np.asarray(compose.to_picture(image)),
        "the previews": used_by(preview, "_to_pixels"),
    }
    off: dict[str, int] = {}
    problem = ""
    for who, write in writers.items():
        found, beyond = (_written(write, values) for values in (signed, 1.5 * signed))
        clipped = np.clip(np.rint((1.5 * signed + 1) * 127.5), 0, 255)
        plain = np.abs(found - rgb)
        off[who] = int(max(plain.max(), np.abs(beyond - clipped).max() - 1))
        if off[who] > 0 and not problem:
            at = np.unravel_index(int(plain.argmax()), plain.shape)
            how = _how_written(found, signed, rgb)
            said = (
                f"what is level {rgb[at]} of 255 as {found[at]}"
                if plain.max()
                else "what lies beyond [-1, 1] not clipped"
            )
            problem = f"{who} writes {said}{how}"
    if problem:
        remedy = "Write (value + 1) * 127.5, rounded and clipped to 0 to 255: to_bytes in drape/data/transforms.py."
        return [Finding("FAIL", "pictures", problem, remedy, {"off": off})]
    return [Finding("ok", "pictures", "all 256 levels are written as they were read", "", {"off": off})]


def _written(write: object, signed: ndarray) -> ndarray:
    assert callable(write)
    image = torch.from_numpy(signed).permute(2, 0, 1).float()
    return np.asarray(write(image)).astype(np.int64)


def _how_written(found: ndarray, signed: ndarray, rgb: ndarray) -> str:
    """ " (cause)", where one of the usual ones explains it."""
    known = {
        "value * 255, without the shift": np.clip(signed * 255, 0, 255),
        "value * 255, without the shift, wrapped around": np.rint(signed * 255).astype(np.int64) % 256,
        "red and blue exchanged": rgb[..., ::-1],
        "cut instead of rounded": np.floor((signed + 1) * 127.5),
        "(value + 1) * 128": np.clip((signed + 1) * 128, 0, 255),
    }
    off = {name: float(np.abs(found - other).mean()) for name, other in known.items()}
    best = min(off, key=lambda name: off[name])
    return f" ({best})" if off[best] < 0.6 and off[best] < np.abs(found - rgb).mean() else ""


def _off(found: Tensor, due: Tensor) -> float:
    """The largest difference over the root mean square of what is right; infinite for another shape, or no numbers."""
    if found.shape != due.shape or not torch.isfinite(found).all():
        return math.inf
    due = due.double()
    return ((found.detach().double() - due).abs().max() / due.square().mean().sqrt().clamp(min=1e-12)).item()


CHECKS = (check_attention_maths, check_output, check_pictures)
