"""Every number that a check compares with: written once, documented, and to be overridden by name.

Proposals of the literature and of theory, then calibrated on healthy and on faulty runs of mannequins
(`benchmarks/doctor_faults.py`, docs/log.md).  A value belongs to the check that its comment names.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from drape.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Shares and relative numbers, unless a name says otherwise."""

    # sampler, schedule: theory with the oracle in the net's place
    oracle_psnr_db: float = 40.0
    oracle_steps: int = 16
    variance_error: float = 0.02
    # sampler: relative error of the contrast of images made by the perfect denoiser of plain noise, 64 steps
    plain_error: float = 0.1
    # prediction: largest error of target, x_t and what is recovered, single precision
    prediction_error: float = 1e-3
    # schedule: alpha^2 + sigma^2 - 1; levels in log-SNR; what may be left of the image's amplitude at t = 1
    power_error: float = 1e-4
    level_error: float = 0.02
    alpha_end: float = 0.05
    # noise labels: |log-SNR told - held|; share of x_t that is neither person nor noise; noise of x_t when sampling,
    # relative; longest stretch of t without a training image
    label_error: float = 0.05
    noise_rest: float = 1e-2
    sampled_noise_error: float = 0.05
    level_gap: float = 0.05
    # draws: images; distance of t from even, of all and of windows of 32; |mean|, |std - 1|; correlation of noise;
    # different pairs over those due in the first epoch
    draws: int = 2048
    different_pairs: float = 0.9
    uneven: float = 0.05
    stratified: float = 0.1
    noise_error: float = 0.01
    noise_correlation: float = 0.02
    # what the net is shown: 256 samples as the trainer gets them
    samples: int = 256
    # contract: pairs whose files are decoded a second time, whose colours are compared, that are dressed by try-on
    files: int = 48
    coloured: int = 48
    dressed: int = 3
    # contract, range: largest magnitude; std of people, and of nothing at all; contrast and mean against the files, and
    # contrast where the pictures are others than the files'
    range_most: float = 1.5
    std_least: float = 0.3
    std_most: float = 0.8
    std_none: float = 0.02
    contrast_ratio: float = 1.2
    brightness_shift: float = 0.1
    contrast_unlike: float = 1.6
    # contract, files and colour order: levels of 255 from the files; shares of pairs, of warm skins; cloth reversed
    file_levels: float = 3.0
    files_levels: float = 8.0
    reversed_share: float = 0.2
    skin_warm: float = 0.7
    skin_warm_least: float = 0.3
    cloth_reversed: float = 0.7
    # contract, agnostic and leak: shares of the pixels outside the mask, levels inside; correlation; share of the cloth
    agnostic_outside_least: float = 0.005
    agnostic_outside: float = 0.2
    agnostic_inside_levels: float = 4.0
    leak_correlation: float = 0.05
    leak_correlation_most: float = 0.2
    leak_outside: float = 0.05
    leak_outside_most: float = 0.15
    # contract, mask: coverage of the picture; share of odd ones; of cloth, of one's own cloth, of background, of chests
    mask_least: float = 0.05
    mask_most: float = 0.95
    mask_odd: float = 0.2
    mask_cloth: float = 0.5
    mask_own: float = 0.96
    mask_own_margin: float = 0.03
    mask_background: float = 0.8
    mask_chest: float = 0.5
    # contract, pose: shares missing, of people without; distances, as shares of the picture, from the file, from
    # labels, over other people's; left against right; margin of joints in the mask
    pose_missing: float = 0.3
    pose_null: float = 0.05
    pose_file: float = 0.01
    pose_fit: float = 0.015
    pose_fit_ratio: float = 0.8
    pose_sides: float = 0.2
    pose_in_mask: float = 0.05
    # contract, flip: share of rows in which one thing is mirrored and another is not; evidence of mirrored files
    flip_apart: float = 0.03
    flip_parse: float = 0.03
    # contract, pairing: shares of rows with another row's picture, with a changed one; distance of own over exchanged
    # pairs; shares of odd pairs; least distance of clothes; share of clothes cut from the target
    strangers: float = 0.03
    rows_changed: float = 0.1
    pairing_ratio: float = 0.8
    pairing_odd: float = 0.08
    pairing_odd_most: float = 0.45
    clothes_alike: float = 5.0
    in_place: float = 0.5
    # contract, what reaches the net and the sampler: levels of 255; noise over its label, off by
    handed_levels: float = 1.0
    sampling_levels: float = 2.0
    low_res_levels: float = 4.0
    noise_ratio: float = 0.1
    # contract, overlap and variety: share of the held-out; people; different pictures; repeated draws of an epoch
    overlap: float = 0.1
    people: int = 32
    pictures_different: float = 0.5
    repeats: float = 0.02
    repeats_most: float = 0.42
    # updates of a fresh net, images in each at most
    steps: int = 20
    trial_batch: int = 8
    # attention maths, evaluation mode, independence: largest error, over the size of what is right
    attention_error: float = 0.05
    random_error: float = 1e-3
    independence_error: float = 0.01
    # initial loss: relative errors: of an image's loss by its formula; of the mean by theory; of an image's weight
    loss_error: float = 1e-3
    initial_error: float = 0.03
    weight_error: float = 0.01
    # inputs: change of the output, relative, at which an input is severed; below which it is hardly heard; the same
    # of two log-SNR more told to the net, of which a fresh one makes 0.03 or more
    severed: float = 1e-6
    faint: float = 1e-3
    faint_time: float = 2e-3
    # gradients: of the cloth's sub-network over the person's
    cloth_ratio_low: float = 1e-3
    cloth_ratio_high: float = 10.0
    cloth_ratio_least: float = 1e-4
    # updates: median |change| / |weight| at the full rate; gradient against that of the mean loss; highest rate of the
    # run over optim.lr, told and too low; updates of the whole run, likewise; what weight decay alone leaves of a
    # weight, and the decays that are then told, and that kill
    step_low: float = 1e-5
    step_high: float = 0.1
    gradient_cosine: float = 0.999
    gradient_norm: float = 0.01
    peak_rate: float = 0.5
    peak_least: float = 0.1
    updates_few: int = 100
    updates_least: int = 20
    shrink: float = 0.3
    decay_high: float = 2.0
    decay_most: float = 6.0
    # averages: off their formula, over how far the weights have come; a net made of weights against the one trained
    average_error: float = 1e-3
    view_error: float = 1e-3
    # precision: loss, relative; cosine of the gradients; share of the gradient that becomes 0
    precision_loss: float = 0.01
    precision_cosine: float = 0.99
    underflow: float = 0.02
    # overfit fixed, overfit fresh: people learned by heart
    overfit_samples: int = 8
    # overfit fixed: updates at most; loss in units of a net that says 0, learned and stuck
    overfit_fixed_steps: int = 300
    overfit_fixed_loss: float = 0.05
    overfit_fixed_stuck: float = 0.3
    # overfit fresh: updates, and between two readings; error in units of Wiener's, noisier half of t and mean; share of
    # a silent net's error that nobody healthy is left with; rise of the error in another cloth; what is drawn
    overfit_steps: int = 800
    overfit_every: int = 50
    overfit_wiener: float = 0.5
    overfit_wiener_mean: float = 1.0
    overfit_stuck: float = 0.5
    overfit_rise: float = 0.02
    overfit_psnr_db: float = 18.0
    overfit_right: float = 0.8
    # learning rate: updates and images a batch; loss that is nothing learned, in units of a silent net's; relative
    # difference of two losses that counts; factors from the best rate that are far.  training length: peak of the rate
    rate_steps: int = 60
    rate_batch: int = 8
    rate_stuck: float = 0.9
    rate_better: float = 0.1
    rate_far_low: float = 100.0
    rate_far_high: float = 10.0
    rate_peak: float = 0.5
    # what a trained net does: how it is measured
    probe_pairs: int = 64
    probe_levels: int = 16
    # steps before a net may be blamed for ignoring a condition: at least `enough_steps`, in a long run this share of
    # it, but no more than `late_steps`
    enough_steps: int = 1000
    enough_share: float = 0.05
    late_steps: int = 10_000
    # ... or `ripe_steps`, if its error at most noise is below so many times that of a linear filter
    ripe_steps: int = 200
    ripe_ratio: float = 1.1
    # yardsticks: error as a share of that of copying, and of a linear filter, on the whole and in one quarter of t
    copying: float = 0.9
    copying_most: float = 1.1
    linear: float = 0.9
    linear_quarter: float = 1.1
    # cloth gap, conditions: rise of the error when an input is changed
    cloth_gap: float = 0.10
    cloth_gap_least: float = 0.01
    condition_gap: float = 0.01
    # cloth swap: mean |change| of samples in the mask, the same over that outside, fall of the error in the right cloth
    swap_pairs: int = 16
    swap_steps: int = 16
    swap_change: float = 0.05
    swap_change_least: float = 0.02
    swap_ratio: float = 3.0
    swap_gain: float = 0.10
    # guidance: mean |change| of x0 without conditions; the error then as a share of that of copying, and its rise
    guidance_change: float = 0.01
    null_error: float = 1.0
    null_rise: float = 1.0
    # time: rise of the error at a level told wrongly by a quarter of t
    time_rise: float = 0.5
    time_least: float = 0.1
    time_better: float = 0.1
    # attention: entropy as a share of that of attending everywhere alike
    attention_pairs: int = 8
    attention_entropy: float = 0.98
    # ema: its error over that of the online weights
    ema_ratio: float = 1.02
    ema_ratio_most: float = 1.5
    # weights: root mean square over that of the start
    weight_growth: float = 20.0
    weight_growth_most: float = 100.0
    weight_shrink: float = 0.1
    # sample quality: error over that of one prediction out of noise
    sample_factor: float = 4.0
    # train-val gap: rise of the error from training pairs to held-out ones
    train_val_gap: float = 0.10
    train_val_gap_most: float = 0.50
    # improving: the last part of the run, as a share; a change below this counts as none
    window: float = 0.5
    flat: float = 0.005
    # curve: the last part of the log that is looked at
    curve_window: float = 0.5
    # overfitting: rise of the score from its best
    score_rise: float = 0.05
    score_rise_most: float = 0.20
    # events: share of steps
    skipped: float = 0.01
    skipped_most: float = 0.20
    spikes: float = 0.01
    # gradient balance: norms over that of the person's part
    cloth_gradient: float = 1e-3
    cloth_gradient_least: float = 1e-4
    gradient_most: float = 10.0
    # lr record: deviation from the config's schedule, over optim.lr
    lr_off: float = 0.02


def override(thresholds: Thresholds, settings: Iterable[str]) -> Thresholds:
    """`thresholds` with numbers such as "cloth_gap=0.05".  Raises ConfigError for an unknown name or no number."""
    known = {each.name: each.type for each in fields(Thresholds)}
    values: dict[str, float | int] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        name = name.strip()
        if name not in known:
            advice = did_you_mean(name, known, otherwise=f"Known: {', '.join(known)}.")
            raise ConfigError(f"there is no threshold {name!r}. {advice}")
        usual = getattr(thresholds, name)
        try:
            values[name] = int(text) if known[name] is int else float(text)
        except ValueError as error:
            kind = "whole number" if known[name] is int else "number"
            raise ConfigError(
                f"--threshold {setting}: {text!r} is no {kind}. Write --threshold {name}={usual}."
            ) from error
        if not math.isfinite(values[name]):
            raise ConfigError(f"--threshold {setting}: expected a finite number. Write --threshold {name}={usual}.")
    return replace(thresholds, **values)  # type: ignore[arg-type]
