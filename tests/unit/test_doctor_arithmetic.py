"""Tier A on a net's parts: healthy settings pass, and each fault of attention, tokens, output and pictures is named."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from drape.config import override
from drape.data.transforms import to_bytes
from drape.doctor import arithmetic
from drape.doctor.examine import examine
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient, patient_of
from drape.nets import attention, layers
from drape.nets.attention import as_features, as_tokens, attend, merge_heads, split_heads
from drape.presets import preset

SETTINGS = {
    "eps, SR": ("diffusion.target=eps", "net.low_res=true", "noise_aug.train_max=1", "net.patch=1"),
    "flow, bf16": ("diffusion.target=flow", "precision=bf16", "net.norm=group", "net.film_at=mid"),
    "as the paper's": ("net.qk_norm=true", "net.places=none", "net.attend_in=last", "net.skips=concat"),
    "adapters": ("finetune.train=lora", "net.cloth_sees=all", "net.places=image", "batch_size=1"),
}


@cache
def opened(root: Path, name: str, *settings: str) -> Patient:
    return patient_of(override(preset(name), ['data.settings=["paired"]', *settings]), root, device="cpu")


def patient_with(root: Path, *settings: str, name: str = "tiny") -> Patient:
    """A patient that nothing is known of."""
    return replace(opened(root, name, *settings))


@pytest.fixture
def root(noise_people: Path) -> Path:
    return noise_people


def told(findings: list[Finding]) -> str:
    """What the only finding that is not ok says, if it has failed."""
    (finding,) = [finding for finding in findings if finding.status != "ok"]
    assert finding.status == "FAIL" and finding.remedy
    assert len(finding.name) < 20
    return f"{finding.name}: {finding.found}"


HEALTHY = {
    "tiny": ("tiny", ()),
    **{name: ("tiny", settings) for name, settings in SETTINGS.items()},
    **{name: (name, ()) for name in ("mini-64", "small-128", "base-128")},
}
"""A preset, and what is set besides."""


@pytest.mark.parametrize(
    ("name", "settings"),
    [pytest.param(*each, marks=() if case == "tiny" else pytest.mark.slow) for case, each in HEALTHY.items()],
    ids=HEALTHY,
)
def test_a_healthy_net_passes_every_check(root, name, settings) -> None:
    before = torch.random.get_rng_state()
    found = [finding for check in arithmetic.CHECKS for finding in check(patient_with(root, *settings, name=name))]
    assert {finding.status for finding in found} == {"ok"}, [finding.line() for finding in found]
    assert [finding.name for finding in found] == [
        "attention maths", "evaluation mode", "independence", "output range", "pictures"
    ]  # fmt: skip
    assert torch.equal(torch.random.get_rng_state(), before)


def over_the_batch(q: Any, k: Any, v: Any) -> Any:
    """As nn.MultiheadAttention attends where batch_first is forgotten."""
    if q.shape[2] != k.shape[2]:
        return attend(q, k, v)
    return attend(*(x.transpose(0, 2) for x in (q, k, v))).transpose(0, 2)


def over_the_queries(q: Any, k: Any, v: Any) -> Any:
    return torch.matmul(torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).softmax(dim=-2), v)


ATTENTIONS = {
    "the samples of a batch attend to each other": over_the_batch,
    "the softmax runs over the queries": over_the_queries,
    "1 / sqrt(d) is missing": lambda q, k, v: attend(q * q.shape[-1] ** 0.5, k, v),
}


@pytest.mark.parametrize("words", ATTENTIONS)
def test_another_attention_is_named_for_what_it_does(root, plant, words) -> None:
    plant(attend, ATTENTIONS[words])
    found = told(arithmetic.check_attention_maths(patient_with(root)))
    assert found.startswith("attention maths:") and words in found


def test_an_attention_that_is_wrong_in_bf16_alone_is_named(root, plant) -> None:
    plant(attend, lambda q, k, v: attend(q, k, v) if q.dtype == torch.float32 else v.mean(2, keepdim=True) + 0 * q)
    assert "attention in bf16 is not" in told(arithmetic.check_attention_maths(patient_with(root, "precision=bf16")))


def by_view(x: Any) -> Any:
    return x.contiguous(memory_format=torch.contiguous_format).reshape(x.shape[0], -1, x.shape[1])


def test_tokens_that_are_views_of_other_pixels_are_named(root, plant) -> None:
    plant(as_tokens, by_view)
    plant(as_features, lambda tokens, like: tokens.contiguous().reshape(like.shape))
    assert "a token is not a pixel with its channels" in told(arithmetic.check_attention_maths(patient_with(root)))


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        (as_features, lambda tokens, like: tokens.contiguous().reshape(like.shape), "put back in another place"),
        (split_heads, lambda x, heads, parts: split_heads(x.flip(2), heads, parts), "heads are not split"),
        (merge_heads, lambda x: merge_heads(x.flip(1)), "heads are not put side by side"),
    ],
    ids=["features", "split", "merge"],
)
def test_tokens_and_heads_out_of_order_are_named(root, plant, right, wrong, words) -> None:
    plant(right, wrong)
    assert words in told(arithmetic.check_attention_maths(patient_with(root)))


def test_a_net_that_mixes_the_samples_of_a_batch_is_named(root, monkeypatch) -> None:
    right = layers.Stem.forward
    monkeypatch.setattr(
        layers.Stem, "forward", lambda self, *given, **named: (y := right(self, *given, **named)) - 0.1 * y.mean(0)
    )
    assert "independence: the net mixes the samples" in told(arithmetic.check_output(patient_with(root)))


def test_dropout_that_is_always_on_is_named_once_for_what_it_is(root, monkeypatch) -> None:
    right = layers.ResBlock._second
    monkeypatch.setattr(layers.ResBlock, "_second", lambda self, *inputs: F.dropout(right(self, *inputs), 0.1))
    assert "random in evaluation mode" in told(arithmetic.check_output(patient_with(root)))


@pytest.mark.parametrize("squash", [torch.tanh, lambda x: x.clamp(min=-1)], ids=["tanh", "clamp"])
def test_an_output_that_cannot_reach_its_target_is_named(root, monkeypatch, squash) -> None:
    right = layers.Head.forward
    monkeypatch.setattr(layers.Head, "forward", lambda self, x: squash(right(self, x)))
    assert "output range: the output stops at" in told(arithmetic.check_output(patient_with(root)))
    x0 = arithmetic.check_output(patient_with(root, "diffusion.target=x0"))
    assert [finding.status for finding in x0] == ["ok", "ok"]


def test_an_output_of_another_scale_is_no_fault(root, monkeypatch) -> None:
    right = layers.Head.forward
    monkeypatch.setattr(layers.Head, "forward", lambda self, x: 0.25 * right(self, x) + 0.5)
    assert {finding.status for finding in arithmetic.check_output(patient_with(root))} == {"ok"}


PICTURES = {
    "value * 255, without the shift": lambda image: (image.float() * 255).round().clamp(0, 255).to(torch.uint8),
    "red and blue exchanged": lambda image: to_bytes(image).flip(-3),
    "cut instead of rounded": lambda image: ((image.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8),
    "not clipped": lambda image: ((image.float() + 1) * 127.5).round().to(torch.int64).remainder(256).to(torch.uint8),
}


@pytest.mark.parametrize("words", PICTURES)
def test_pictures_that_are_written_wrongly_are_named(root, plant, words) -> None:
    plant(to_bytes, PICTURES[words])
    found = told(arithmetic.check_pictures(patient_with(root)))
    assert found.startswith("pictures: drape try-on writes") and words in found


def test_what_follows_from_an_attention_over_the_batch_only_warns(root, plant, monkeypatch) -> None:
    plant(attend, over_the_batch)
    assert attention.attend is over_the_batch
    found = examine(patient_with(root), [arithmetic.CHECKS], name="tiny")
    assert found.verdict.because == ("attention maths",)
    (follows,) = [finding for finding in found.findings if finding.status == "warn"]
    assert follows.name == "independence" and "(follows from attention maths)" in follows.found
