"""The smallest honest try-on: a tiny net of two streams, then the real Parallel-UNet in its place.

A net is shown a person whose upper body is hidden, where the joints are, and the photo of a cloth; it paints the person
in that cloth.  It is a diffusion model that predicts velocity, trained on people in their own clothes, like real data:

    x_t = alpha x0 + sigma eps,  loss = w |net(x_t, log_snr, agnostic, joints, cloth) - v|^2,  v = alpha eps - sigma x0

[Ho et al. 2020, eq. 4; Salimans & Ho 2022, sec. 4; two streams joined by attention: Zhu et al. 2023, sec. 3.2]

It is judged on people it never saw, in clothes they do not wear; the right answer is known, since code made them.  And
all through the run it is asked how much worse it predicts with somebody else's cloth (the swap gap).
"""

import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import torch
import typer
from torch import Tensor, nn

from drape.cli._progress import bar
from drape.cli.command import at_least, script
from drape.conditioning import conditions_of
from drape.config import RunConfig
from drape.data.cache import Cached, cache
from drape.data.loader import order
from drape.data.sample import TryOnBatch, TryOnSample
from drape.data.viton_hd import VitonHD
from drape.devices import autocast, hardware, pick_device
from drape.diffusion.guidance import clipped
from drape.diffusion.prediction import Prediction, add_noise, predict, target_of
from drape.diffusion.samplers import ddim, per_image
from drape.diffusion.schedule import ladder
from drape.diffusion.weighting import clipped_snr
from drape.errors import CheckpointError
from drape.evaluation.baselines import mean_colour, true_warp, warped_cloth
from drape.evaluation.metrics import colour_error, masked_mean, psnr, swap_change
from drape.mannequin.dataset import Recipe, write_dataset
from drape.nets.attention import CrossAttention
from drape.nets.body import body_places, num_maps, pose_maps
from drape.nets.conditions import Conditions
from drape.nets.embeddings import Mixer, NoiseLevel, encode_places
from drape.nets.layers import Downsample, Head, ResBlock, Stem, Upsample
from drape.nets.parallel_unet import ParallelUNet
from drape.plotting import save_columns
from drape.presets import mini_64
from drape.settings import EmaConfig
from drape.shapes import Image, PerSample
from drape.storage import read_torch, write_atomic, write_json
from drape.training.ema import Ema
from drape.training.optim import build_optimizer, learning_rate
from drape.training.randomness import draw

EXAMPLES = """
python examples/first_try_on.py
python examples/first_try_on.py --net parallel-unet
python examples/first_try_on.py --quick
python examples/first_try_on.py --net parallel-unet --images 300000 --device cuda --out long
"""
Net = Literal["own", "parallel-unet"]
JUDGED = ("person", "cloth", "cloth_mask", "agnostic", "agnostic_mask", "pose", "cloth_pose", "densepose", "warp")
PROBES = (0.5, 0.7, 0.85, 0.95)  # times at which the swap gap is measured: mostly noise, so the cloth must be read
SAMPLER_STEPS, SHOWN = 4, 5
CLEAN = torch.zeros(1)  # no noise is added to what the net is told
NARROW = replace(mini_64().net, channels=(64, 128, 128), cloth_channels=(64, 96, 96))  # than the net of the demo
WORDS = {"own": "the tiny net", "parallel-unet": "ParallelUNet"}


class FirstTryOn(nn.Module):
    """A cloth stream that only looks, a person stream that paints, and two lookups from one into the other."""

    def __init__(self, fine: int = 64, coarse: int = 128, told: int = 128):
        super().__init__()

        def block(channels: int) -> ResBlock:
            return ResBlock(channels, channels, told, norm="layer", film_at="mid", shortcut="identity")

        def look(channels: int) -> CrossAttention:
            return CrossAttention(channels, coarse, head_dim=64, norm="layer", qk_norm=True, position_dim=32)

        self.level = nn.Sequential(NoiseLevel(told), Mixer(told))
        self.cloth_stem, self.cloth_fine = Stem(3, fine, patch=2), block(fine)
        self.cloth_down, self.cloth_coarse = Downsample(fine, coarse, "light"), block(coarse)
        self.stem, self.fine = Stem(6, fine, patch=2, extra=num_maps("limbs")), block(fine)
        self.down, self.coarse, self.look = Downsample(fine, coarse, "light"), block(coarse), look(coarse)
        self.deep, self.up = block(coarse), Upsample(coarse, fine, "light")
        self.merge, self.look_again, self.polish = block(fine), look(fine), block(fine)
        self.head = Head(fine, patch=2, norm="layer")

    def forward(self, x_t: Image, log_snr: PerSample, given: Conditions) -> Image:
        told = self.level(log_snr)
        cloth = self.cloth_fine(self.cloth_stem(given.cloth), told)
        cloth = self.cloth_coarse(self.cloth_down(cloth), told)
        on_cloth = places_of(given.cloth_pose, cloth)
        x = self.stem(x_t, given.agnostic, extra=pose_maps("limbs", given.pose, *(s // 2 for s in x_t.shape[-2:])))
        skip = x = self.fine(x, told)
        x = self.coarse(self.down(x), told)
        x = self.look(x, self.look.project(cloth, on_cloth), places_of(given.pose, x))
        x = (self.up(self.deep(x, told)) + skip) / math.sqrt(2)
        x = self.merge(x, told)
        x = self.look_again(x, self.look_again.project(cloth, on_cloth), places_of(given.pose, x))
        return self.head(self.polish(x, told))


def places_of(pose: Tensor, features: Tensor) -> Tensor:
    """(b, h w, 32): where on a cloth each place lies, if the cloth hung straight from the shoulders."""
    return encode_places(body_places(pose, *features.shape[-2:])).to(features.dtype)


class Run:
    """A net in training, with all that must survive an interruption.  Goes on from the checkpoint at `path`, if there
    is one; raises CheckpointError if that is damaged, of other code, or not of a run that `key` describes."""

    def __init__(self, net: nn.Module, config: RunConfig, path: Path, key: str):
        self.net, self.config, self.path, self.key = net, config, path, key
        self.optimizer, self.ema = build_optimizer(net, config.optim), Ema(net, config.ema)
        self.seen, self.history = 0, list[dict[str, float]]()
        if not path.is_file():
            return
        if (state := read_torch(path)).get("run") != key:
            raise CheckpointError(f"{path} belongs to a run with other settings. Choose another --out.")
        try:
            net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} is of a net of other code. Choose another --out.") from error
        self.ema.load(state["ema"], str(path))
        self.seen, self.history = state["seen"], state["history"]

    def save(self) -> None:
        state = {"run": self.key, "seen": self.seen, "history": self.history, "ema": self.ema.checkpoint_tensors()}
        state |= {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        write_atomic(self.path, partial(torch.save, state))


def train(run: Run, pairs: Cached, held: TryOnBatch) -> None:
    """Train in place and leave the averaged weights in the net; the swap gap is measured on `held`.  This is `drape
    train` without its guards: the draws, the order, the schedule and the average are the same functions."""
    net, config, device, losses = run.net, run.config, held.need("person").device, []
    every = max(config.batch_size, config.images // 15 // config.batch_size * config.batch_size)
    schedule = config.diffusion.build_schedule(config.resolution)
    with bar("training") as show:
        while run.seen < config.images:
            chosen = order(seed=config.seed, num_samples=len(pairs), images_seen=run.seen, batch_size=config.batch_size)
            draws = draw(config, run.seen, config.batch_size)
            batch, log_snr = pairs.batch(chosen, draws.flip).to(device), schedule.log_snr(draws.t.to(device))
            error = velocity_error(net, config, batch, draws.eps.to(device), log_snr)
            inside = 1 + (config.diffusion.mask_weight - 1) * batch.need("agnostic_mask")  # where there is work to do
            error = (error * inside / inside.mean(dim=(1, 2, 3), keepdim=True)).mean(dim=(1, 2, 3))
            loss = (clipped_snr(log_snr, "v") * error).mean()
            run.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), config.optim.grad_clip)
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate(config.optim, run.seen, run.seen / config.images)
            run.optimizer.step()
            run.seen += config.batch_size
            run.ema.update(net, run.seen, config.batch_size)
            losses.append(loss.item())
            show(run.seen, config.images)
            if run.seen % every < config.batch_size or run.seen >= config.images:
                now = {"images": run.seen, "loss": fmean(losses), "swap_gap": swap_gap(net, config, held)}
                print("{images:7,} images   loss {loss:.3f}   swap gap {swap_gap:4.0%}".format(**now), flush=True)
                run.history.append(now)
                run.save()
                losses.clear()
    net.load_state_dict(run.ema.tensors)


def velocity_error(net: nn.Module, config: RunConfig, batch: TryOnBatch, eps: Image, log_snr: PerSample) -> Image:
    """|net - v|^2 of every pixel and channel."""
    x0, given = batch.need("person"), conditions_of(batch, config, levels=CLEAN.expand(len(batch), 2))
    with autocast(config.precision, x0.device):
        output = net(add_noise(x0, eps, log_snr), log_snr, given).float()
    return (output - target_of("v", x0, eps, log_snr)).square()


@torch.no_grad()
def swap_gap(net: nn.Module, config: RunConfig, held: TryOnBatch) -> float:
    """How much larger the error inside the mask is in the neighbour's cloth, relative: 0 ignores the cloth."""
    eps, mask, gaps = per_image(range(len(held)))(held.need("person")), held.need("agnostic_mask"), []
    swapped = replace(held, cloth=held.need("cloth").roll(1, dims=0))
    for level in config.diffusion.build_schedule(config.resolution).log_snr(torch.tensor(PROBES)):
        errors = (velocity_error(net, config, each, eps, level.to(eps).expand(len(held))) for each in (held, swapped))
        own, other = (masked_mean(error.mean(dim=1, keepdim=True), mask).mean().item() for error in errors)
        gaps.append(other / own - 1)
    return fmean(gaps)


@torch.no_grad()
def dress(net: nn.Module, config: RunConfig, batch: TryOnBatch) -> Image:
    """The people of a batch in its clothes, each from the noise of its own place in the batch."""
    given = conditions_of(batch, config, levels=CLEAN.expand(len(batch), 2))

    def denoise(x_t: Image, log_snr: PerSample) -> Prediction:
        with autocast(config.precision, x_t.device):
            output = net(x_t, log_snr, given).float()
        return predict("v", output, x_t, log_snr)

    x_T = per_image(range(len(batch)))(torch.empty_like(given.agnostic))
    levels = ladder(config.diffusion.build_schedule(config.resolution), SAMPLER_STEPS)
    return ddim(clipped(denoise), x_T, levels).clamp(-1, 1)


def judge(net: nn.Module, config: RunConfig, test: Cached, device: torch.device) -> tuple[dict[str, Any], Tensor]:
    """(numbers, try-ons) of the test people in clothes they do not wear, beside what learns nothing."""
    whole = test.batch(torch.arange(len(test)))
    truth, mask = whole.need("person"), whole.need("agnostic_mask")
    swapped = replace(whole, cloth=whole.need("cloth").roll(1, dims=0))
    worn, other = (dress(net, config, batch.to(device)).cpu() for batch in (whole, swapped))
    samples = [test[index] for index in range(len(test))]
    blind = {"mean colour of the cloth": map(mean_colour, samples), "warped cloth": map(warped_cloth, samples)}
    blind["the true warp, without light"] = (true_warp(s.person, s.cloth, s.cloth_mask, s.warp) for s in samples)
    found = {"net": worn, "net, in another cloth": other} | {name: torch.stack([*each]) for name, each in blind.items()}
    table: dict[str, dict[str, list[float]]] = {}  # [mean, standard error]
    for name, pictures in found.items():
        values = {"psnr": psnr(pictures, truth, mask), "colour_error": colour_error(pictures, truth, mask)}
        table[name] = {key: [each.mean().item(), each.std().item() / len(each) ** 0.5] for key, each in values.items()}
    shown = torch.where(mask.bool(), worn, whole.need("agnostic"))  # what was not hidden stays as it is
    return {"table": table, **vars(swap_change(worn, other, mask))}, shown


def report(out: Path, folder: Path, test: Cached, size: tuple[int, int], by_net: dict[str, Any]) -> None:
    """Print the table and draw the people for every net that has finished in `out`."""
    results = {WORDS[net]: by_net[net] for net in WORDS if net in by_net}
    rows = {name.replace("net", net): row for net, found in results.items() for name, row in found["table"].items()}
    print(f"{'in the mask, people never seen':42}PSNR, dB       colour error")
    for name, row in sorted(rows.items(), key=lambda each: each[1]["psnr"][0]):
        print(f"{name:40}" + "   ".join(f"{mean:5.2f} ± {error:.2f}" for mean, error in row.values()))
    for net, found in results.items():
        print(f"{net}: another cloth changes {found['inside']:.3f} in the mask, {found['outside']:.3f} outside it")
    before = VitonHD(folder, split="test", size=size, fields=("person",))
    samples = [test[index] for index in range(min(SHOWN, len(test)))]  # the first ones, not chosen
    columns = {"the person": [before.by_id(each.person_id).person for each in samples]}
    columns |= {"the net is given": [*map(given, samples)], "and the cloth": [each.cloth for each in samples]}
    columns["warped cloth"] = [*map(warped_cloth, samples)]
    kept = {word: out / net / "worn.pt" for net, word in WORDS.items() if net in by_net}
    columns |= {word: list(read_torch(path)[:SHOWN]) for word, path in kept.items() if path.is_file()}
    save_columns(out / "people.png", columns | {"the truth": [each.person for each in samples]}, smooth=True)


def given(sample: TryOnSample) -> Tensor:
    """The agnostic picture with white dots at the joints."""
    dots = pose_maps("joints", sample.pose[None], *sample.agnostic.shape[-2:], sigma=0.015)[0].amax(dim=0)
    return sample.agnostic + (1 - sample.agnostic) * dots


def settings(size: tuple[int, int], images: int, seed: int) -> RunConfig:
    """Those of mini-64 for a short run in small batches, on people in their own clothes; NARROW, for either net."""
    base = replace(mini_64(), net=NARROW, resolution=size, images=images, seed=seed, batch_size=16, condition_drop=0.0)
    optim = replace(base.optim, warmup_images=min(1_000, images // 10), decay=0.4)
    return replace(base, optim=optim, data=replace(base.data, settings=("paired",)), ema=EmaConfig(lengths=(0.05,)))


def main(
    net: Annotated[Net, typer.Option(help="The tiny net of this file, or drape's.")] = "own",
    data: Annotated[Path | None, typer.Option(help="A mannequin folder with a test split.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for people, checkpoints, results.")] = None,
    images: Annotated[int, typer.Option(callback=at_least(16), help="Images to train on.")] = 24_000,
    quick: Annotated[bool, typer.Option("--quick", help="At most 4,000 images of 32x24, 200 people.")] = False,
    seed: Annotated[int, typer.Option(help="Other weights and noise; the people stay.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a try-on net on people made by code, and judge it on people it never saw."""
    where, size, images = pick_device(device), (32, 24) if quick else (64, 48), min(images, 4_000) if quick else images
    out = out or Path("build/learn") / ("first_try_on_quick" if quick else "first_try_on")
    config, path = settings(size, images, seed), out / "results.json"
    torch.manual_seed(seed)
    built = (FirstTryOn() if net == "own" else ParallelUNet(NARROW)).to(where, memory_format=torch.channels_last)
    key, results = f"{data} {config}", json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if any(found.get("run") != key for found in results.values()):
        raise CheckpointError(f"{path} has runs with other settings. Repeat those, or choose another --out.")
    run = Run(built, config, out / net / "checkpoint.pt", key)  # refused, if at all, before there is work
    if data is None:
        data, people = out / f"people-{size[0]}x{size[1]}", 200 if quick else 4_000
        recipe = Recipe(people=people, test=people // 20, seed=1, size=size, textures=None, worn=False)
        with bar("making people") as show:
            write_dataset(data, recipe, on_sample=show)
    splits = VitonHD(data, size=size), VitonHD(data, split="test", setting="counterfactual", size=size, fields=JUDGED)
    with bar("reading") as show:
        pairs, test = (cache(each, progress=show, folder=out / "cache") for each in splits)
    print(f"{WORDS[net]}: {sum(p.numel() for p in built.parameters()):,} parameters, {hardware(where)}")
    train(run, pairs, test.batch(torch.arange(min(32, len(test)))).to(where))
    found, worn = judge(built, config, test, where)
    write_atomic(out / net / "worn.pt", partial(torch.save, worn))
    results[net] = found | {"images": images, "seed": seed, "history": run.history, "run": key}
    write_json(path, results)
    report(out, data, test, size, results)
    print(f"seed {seed}\n{out}")


if __name__ == "__main__":
    sys.exit(script(main, EXAMPLES, resumes=True))
