"""Where attention looks: the weights are those of the net, and a place is found where the truth is known."""

import base64
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image as PillowImage
from torch import Tensor

from drape.config import override
from drape.doctor.attention import Caught, _hooked, check_attention
from drape.doctor.patient import Patient, patient_of
from drape.doctor.predictor import OfNet
from drape.mannequin.dataset import Recipe, write_dataset
from drape.nets.attention import CrossAttention, attend_plainly, merge_heads
from drape.nets.conditions import Conditions
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny

CONFIG = override(tiny(), ['data.settings=["paired"]'])


@pytest.fixture(scope="module")
def mannequins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mannequins")
    write_dataset(root, Recipe(people=4, test=0, seed=3, size=(32, 24), textures=None, worn=False), workers=0)
    return root


def net(scale: float = 0.05) -> ParallelUNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = ParallelUNet(CONFIG.net)
        for parameter in made.parameters():
            parameter.data += scale * torch.randn_like(parameter)
    return made.requires_grad_(False).eval()


def patient(root: Path, trained: ParallelUNet) -> Patient:
    found = patient_of(CONFIG, root, device="cpu")
    found.ema, found.images_seen = trained, 400
    return found


def test_the_weights_are_those_that_the_net_attends_with(viton: object) -> None:
    """The output of every cross-attention is what its caught weights make of its values."""
    made = net()
    outputs: list[tuple[Tensor, Tensor, Tensor]] = []

    def after(module: CrossAttention, given: tuple[Tensor, ...], output: Tensor) -> None:
        x, cloth, _ = given
        outputs.append((output - x, cloth[1], module.to_out.weight))

    handles = [m.register_forward_hook(after) for m in made.modules() if isinstance(m, CrossAttention)]
    chance = torch.Generator().manual_seed(0)
    images = torch.randn(3, 2, 3, 32, 24, generator=chance)
    pose = torch.rand(2, 18, 3, generator=chance)
    pose[..., 2] = 1
    conditions = Conditions(
        agnostic=images[0], cloth=images[1], pose=pose, cloth_pose=torch.zeros(2, 18, 3), noise_aug=torch.zeros(2, 2)
    )
    with _hooked(made, (32, 24)) as caught, torch.no_grad():
        made(images[2], torch.zeros(2), conditions)
    for handle in handles:
        handle.remove()
    assert [each.name for each in caught] == ["encoder.1", "decoder.1", "decoder.2"]
    for each, (added, values, weight), module in zip(
        caught, outputs, (m for m in made.modules() if isinstance(m, CrossAttention)), strict=True
    ):
        rows = torch.stack([each.weights(row) for row in range(2)])
        assert torch.allclose(rows.sum(dim=-1), torch.ones_like(rows[..., 0]), atol=1e-5)
        assert each.size[0] * each.size[1] == rows.shape[2]
        assert each.cloth_size[0] * each.cloth_size[1] == rows.shape[3]
        expected = module.to_out(merge_heads(rows @ values)).transpose(1, 2).unflatten(2, each.size)
        assert torch.allclose(added, expected, atol=1e-4), weight.shape
        plain = merge_heads(attend_plainly(each.queries, each.keys, values))
        assert torch.allclose(plain, merge_heads(rows @ values), atol=1e-5)


def test_on_mannequins_the_distance_from_the_true_place_is_given(mannequins: Path) -> None:
    (finding,) = check_attention(patient(mannequins, net()))
    evidence = json.loads(json.dumps(dict(finding.evidence)))
    assert 0 < evidence["untrained_px"] < evidence["chance_px"] < 32
    assert all(0 < block["mean_px"] < 32 and 0 < block["peak_px"] < 32 for block in evidence["blocks"])
    assert all(0 < value <= 1.0001 for block in evidence["blocks"] for value in block["entropy"])
    shown = evidence["maps"][0]
    picture = PillowImage.open(io.BytesIO(base64.b64decode(shown["person"])))
    assert picture.size == (24, 32)
    for point in shown["points"]:
        assert min(point["true"]) >= 0 and max(point["true"]) <= 1
        assert sum(map(sum, point["map"])) == pytest.approx(1, abs=0.01)
        assert point["error_px"] >= 0


def test_a_head_that_looks_everywhere_alike_is_a_warning(mannequins: Path) -> None:
    flat = net()
    for module in flat.modules():
        if isinstance(module, CrossAttention):
            assert module.qk_norm is not None
            module.qk_norm.of_query.weight.data *= 1e-3
    (finding,) = check_attention(patient(mannequins, flat))
    assert finding.status == "warn" and "everywhere alike" in finding.found


def test_a_queries_softmax_finds_the_key_that_is_like_it() -> None:
    keys = 20 * torch.eye(12)[None, None]
    caught = Caught(name="x", queries=keys[:, :, [5]], keys=keys, size=(1, 1), cloth_size=(4, 3), out_norm=1.0)
    assert caught.weights(0).argmax().item() == 5


def test_without_a_known_warp_the_entropy_is_told_alone(viton: object) -> None:
    viton.write([f"p{number}" for number in range(4)])  # type: ignore[attr-defined]
    (finding,) = check_attention(patient(viton.root, net()))  # type: ignore[attr-defined]
    assert finding.evidence["chance_px"] is None and finding.evidence["blocks"][0]["mean_px"] is None
    assert finding.evidence["maps"][0]["points"][0]["true"] is None


def test_no_hook_stays_behind(mannequins: Path) -> None:
    made = net()
    check_attention(patient(mannequins, made))
    assert all(not module._forward_pre_hooks for module in made.modules())
    assert OfNet(made, CONFIG) is not None
