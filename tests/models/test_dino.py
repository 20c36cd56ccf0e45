"""DINO: published names and numbers, the loss against numpy, who learns what, schedules, teacher and centre."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimic_wds.models.build import ModelConfig, build_model
from mimic_wds.models.dino import DINO, Thinned, dino_loss, stochastic_depth
from mimic_wds.models.dino_recipe import DinoConfig, clip_each, cosine, teacher_temperature
from mimic_wds.models.published import EXPORTS, load_published
from mimic_wds.models.vit import recompute_activations

TINY = DinoConfig(
    out_dim=48, hidden_dim=32, bottleneck_dim=16, local_crops=3, local_size=32, freeze_last_layer_epochs=0.0
)
CONFIG = ModelConfig(objective="dino", size="tiny", depth=3, image_size=64, dino=TINY)


def tiny(seed=0, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CONFIG if not changes else ModelConfig(
            objective="dino", size="tiny", depth=3, image_size=64, dino=DinoConfig(**{**SMALL, **changes})
        )  # fmt: skip
        return build_model(config)


SMALL = {name: getattr(TINY, name) for name in TINY.__slots__}


def inputs(batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, 64, 64, generator=generator)
    return images, torch.rand(batch, CONFIG.num_draws, generator=generator)


def test_published_numbers():
    """The backbone file has 150 entries; head of 65536 outputs behind 2048, 2048 and 256."""
    with torch.device("meta"):
        model = build_model(ModelConfig(objective="dino"))
    student = model.student.state_dict()
    head = {name: value for name, value in student.items() if name.startswith("head.")}
    backbone = {name: value for name, value in student.items() if name not in head}
    assert (len(backbone), sum(v.numel() for v in backbone.values())) == (150, 85_798_656)
    shapes = {name.removeprefix("head."): tuple(value.shape) for name, value in head.items()}
    assert shapes == {
        "mlp.0.weight": (2048, 768),
        "mlp.0.bias": (2048,),
        "mlp.2.weight": (2048, 2048),
        "mlp.2.bias": (2048,),
        "mlp.4.weight": (256, 2048),
        "mlp.4.bias": (256,),
        "last_layer.weight_g": (65536, 1),
        "last_layer.weight_v": (65536, 256),
    }
    assert sum(v.numel() for v in head.values()) == 23_138_560
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert sum(trained) == 85_798_656 + 23_138_560 - 65536
    assert set(model.state_dict()) == {*student, *(f"student.{name}" for name in student), "centre"}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_the_loss_is_the_mean_cross_entropy_over_pairs_of_crops():
    rng = np.random.default_rng(0)
    student, teacher, centre = rng.normal(size=(5, 3, 7)), rng.normal(size=(2, 3, 7)), rng.normal(size=7)
    terms = [
        -(softmax((teacher[t] - centre) / 0.04) * np.log(softmax(student[s] / 0.1))).sum(-1).mean()
        for t in range(2)
        for s in range(5)
        if s != t
    ]
    target = softmax((teacher - centre) / 0.04)
    found = dino_loss(*map(torch.tensor, (student, teacher, centre)), 0.1, 0.04)
    assert len(terms) == 8
    assert found.loss.item() == pytest.approx(np.mean(terms), rel=1e-12)
    assert found.entropy.item() == pytest.approx(-(target * np.log(target)).sum(-1).mean(), rel=1e-9)


def test_gradients_reach_every_weight_of_the_student_and_none_of_the_teacher():
    model = tiny()
    model.begin_step(0.0)
    model(*inputs()).loss.backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("student.") or name.endswith("weight_g"):
            assert parameter.grad is None, name
            assert not parameter.requires_grad, name
        else:
            assert parameter.grad.abs().max() > 0, name


def test_teacher_begins_as_the_student_and_follows_it():
    model = tiny()
    teacher, student = model.teacher_weights(), dict(model.student.named_parameters())
    assert all(torch.equal(teacher[name], student[name]) for name in student)
    with torch.no_grad():
        for parameter in student.values():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    before = {name: p.clone() for name, p in teacher.items()}
    model.finish_step(0.5)
    for name, value in teacher.items():
        torch.testing.assert_close(value, 0.998 * before[name] + 0.002 * student[name], atol=1e-6, rtol=0)
    model.finish_step(1.0)  # the momentum is 1
    torch.testing.assert_close(teacher["pos_embed"], 0.998 * before["pos_embed"] + 0.002 * student["pos_embed"])


def test_centre_is_that_of_the_whole_step_however_it_is_cut_up():
    whole, cut = tiny(), tiny()
    images, draws = inputs(4)
    for model, parts in ((whole, [slice(4)]), (cut, [slice(2), slice(2, 4)])):
        model.begin_step(0.0)
        losses = [model(images[part], draws[part]).loss.item() for part in parts]
        model.finish_step(0.0)
        assert len(set(losses)) == len(parts)
    torch.testing.assert_close(whole.centre, cut.centre)
    with torch.no_grad():
        crops, _ = whole.crops(images, draws)
        answers = cut.head(cut.describe(crops[0]))
    torch.testing.assert_close(whole.centre, 0.1 * answers.mean(0), atol=1e-6, rtol=1e-4)


def test_a_step_that_was_not_finished_and_evaluation_leave_the_centre():
    model = tiny()
    model.begin_step(0.0)
    model(*inputs())
    model.begin_step(0.0)
    model.eval()
    model(*inputs(seed=1))
    model.finish_step(0.0)
    assert not model.centre.any()


def test_the_last_layer_waits():
    model = tiny(freeze_last_layer_epochs=1.0)
    weight = model.student.head.last_layer.weight_v
    for epoch, learns in ((0.0, False), (0.99, False), (1.0, True)):
        model.zero_grad()
        model.begin_step(epoch)
        model(*inputs()).loss.backward()
        assert bool(weight.grad.any()) == learns
        assert model.student.head.mlp[0].weight.grad.any()


def test_rows_of_the_last_layer_are_unit_vectors():
    model = tiny()
    answers = model.head(torch.randn(100, 192))
    assert answers.abs().max() <= 1 + 1e-6
    layer = model.head.last_layer
    x = torch.nn.functional.normalize(torch.randn(5, 16), dim=1)
    rows = layer.weight_v / layer.weight_v.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer(x), x @ rows.T)


def test_small_crops_have_the_table_resized_and_large_ones_the_table():
    model = tiny()
    assert model.positions(4, 4) is model.pos_embed
    picture = model.pos_embed[0, 1:].T.reshape(1, 192, 4, 4)
    expected = torch.nn.functional.interpolate(picture, size=(2, 3), mode="bicubic", align_corners=False)
    found = model.positions(2, 3)
    assert torch.equal(found[0, 0], model.pos_embed[0, 0])
    torch.testing.assert_close(found[0, 1:].T.reshape(1, 192, 2, 3), expected)


def test_class_tokens_are_those_of_the_plain_encoder():
    """The teacher is an `Encoder`: what is finetuned is what answered."""
    model, images = tiny(), inputs()[0]
    torch.testing.assert_close(model.describe(images), model.encode(images)[:, 0], atol=1e-5, rtol=0)


def test_crops_come_crop_by_crop():
    model = tiny()
    images, draws = inputs(2)
    (large, small), (keep, keep_small) = model.crops(images, draws)
    assert (large.shape, small.shape) == ((4, 3, 64, 64), (6, 3, 32, 32))
    assert (keep.shape, keep_small.shape) == ((4, 3, 2), (6, 3, 2))
    swapped, _ = model.crops(images.flip(0), draws.flip(0))
    assert torch.equal(swapped[0], large.view(2, 2, 3, 64, 64).flip(1).flatten(0, 1))
    assert torch.equal(swapped[1], small.view(3, 2, 3, 32, 32).flip(1).flatten(0, 1))


def test_stochastic_depth_leaves_branches_out_and_keeps_the_mean():
    keep = stochastic_depth(torch.rand(20000, 12, 2, generator=torch.Generator().manual_seed(0)), 0.1)
    assert (keep[:, 0] == 1).all()
    lost = (keep == 0).float().mean((0, 2))
    np.testing.assert_allclose(lost, np.linspace(0, 0.1, 12), atol=6e-3)
    np.testing.assert_allclose(keep.mean((0, 2)), np.ones(12), atol=7e-3)


def test_a_thinned_block_is_the_block_or_nothing():
    block = tiny().blocks[1]
    x = torch.randn(2, 5, 192)
    found = Thinned(block, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))(x)
    torch.testing.assert_close(found[0], block(x)[0])
    assert torch.equal(found[1], x[1])


def test_it_learns_to_agree_with_its_teacher():
    model = tiny(drop_path=0.0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    fixed, losses = inputs(), []
    for step in range(25):
        model.begin_step(step / 25)
        optimizer.zero_grad()
        output = model(*fixed)
        output.loss.backward()
        optimizer.step()
        model.finish_step(step / 25)
        losses.append(output.loss.item())
    assert losses[-1] < losses[0] - 0.3


def test_the_same_draws_give_the_same_loss_and_recomputing_changes_nothing():
    results = []
    for recompute in (False, False, True):
        model = tiny()
        recompute_activations(model, recompute)
        model.begin_step(0.0)
        loss = model(*inputs()).loss
        loss.backward()
        results.append((loss.item(), model.student.blocks[1].mlp.fc1.weight.grad.clone()))
    assert results[0][0] == results[1][0] == results[2][0]
    assert all(torch.equal(results[0][1], other) for _, other in results[1:])
    assert model.student.recompute


def test_bf16_autocast_stays_close():
    model = tiny()
    model.begin_step(0.0)
    exact = model(*inputs()).loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(*inputs()).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=0.05)


def test_the_teacher_is_what_is_written_and_read(tmp_path):
    """timm's layout holds the teacher's encoder; DINO's own file fills encoder and head of the teacher."""
    model, other = tiny(seed=1), tiny(seed=2)
    with torch.no_grad():
        model.cls_token += 1
    written = EXPORTS["timm"](model.state_dict())
    assert len(written) == 4 + 3 * 12 + 2
    assert torch.equal(written["cls_token"], model.cls_token)
    teacher = {
        (name if name.startswith("head.") else f"backbone.{name}"): p for name, p in model.teacher_weights().items()
    }
    student = {f"module.{name}": torch.zeros_like(p) for name, p in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 400}, tmp_path / "dino_full_checkpoint.pth")
    report = load_published(other, tmp_path / "dino_full_checkpoint.pth")
    assert not report.dropped
    assert all(name.startswith("student.") or name == "centre" for name in report.made)
    assert all(torch.equal(p, model.teacher_weights()[name]) for name, p in other.teacher_weights().items())


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_cosine_goes_from_start_to_end_and_never_back(start, end, one, other):
    assert (cosine(start, end, 0), cosine(start, end, 1)) == (pytest.approx(start), pytest.approx(end))
    early, late = (cosine(start, end, progress) for progress in sorted((one, other)))
    assert (late - early) * (end - start) >= -1e-12


def test_the_teacher_grows_warmer_epoch_by_epoch():
    """numpy.linspace over the epochs of the warm-up, then constant."""
    expected = [*np.linspace(0.04, 0.07, 50), 0.07, 0.07]
    config = DinoConfig()
    assert [teacher_temperature(config, epoch + 0.3) for epoch in range(52)] == pytest.approx(expected)
    assert teacher_temperature(DinoConfig(warmup_teacher_temp_epochs=0), 0.0) == 0.07
    model = tiny()
    model.begin_step(49.5)
    assert model.temperature.item() == pytest.approx(0.07)


def test_every_gradient_is_clipped_by_itself():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([0.1, 0.2])
    clip_each(parameters, 0.3)
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.18, 0.24]))
    assert torch.equal(parameters[1].grad, torch.tensor([0.1, 0.2]))


def test_a_copy_goes_on_like_the_original():
    """Nothing but weights, centre and optimizer is needed to go on."""
    model = tiny()
    model.begin_step(1.0)
    model(*inputs()).loss.backward()
    model.finish_step(0.1)
    other = tiny(seed=9)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    for each in (model, other):
        each.begin_step(1.0)
    assert model(*inputs(seed=2)).loss.item() == other(*inputs(seed=2)).loss.item()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out_dim": 0}, "dino.out_dim = 0"),
        ({"local_crops": -1}, "dino.local_crops"),
        ({"local_area": (0.3, 0.1)}, r"dino.local_area = \[0.3, 0.1\]"),
        ({"teacher_temp": 0.0}, "dino.teacher_temp = 0.0"),
        ({"drop_path": 1.0}, "dino.drop_path = 1.0"),
    ],
)
def test_mistakes_name_the_field(values, message):
    with pytest.raises(ValueError, match=message):
        DinoConfig(**values)


def test_numbers_per_image_of_the_published_recipe():
    config = ModelConfig(objective="dino")
    assert config.num_draws == 12 * (14 + 2 * 12)
    with torch.device("meta"):
        assert DINO().num_draws == config.num_draws
    assert [kind.size for kind in config.dino.crop_kinds((224, 224))] == [(224, 224)] * 2 + [(96, 96)] * 10
