"""Published layouts, with exactly their keys, shapes and wrappers: read, told, loaded, written back bit by bit."""

import argparse
import pickle
from pathlib import Path, PosixPath

import pytest
import torch
from safetensors.torch import save_file

from mimic_wds.models.build import SIZES, ModelConfig, build_model
from mimic_wds.models.published import (
    EXPORTS,
    load_published,
    parse_call,
    read_published,
    resized_table,
    to_ours,
)
from mimic_wds.models.published_config import model_values

TINY = {
    "size": "tiny",
    "depth": 2,
    "image_size": 64,
    "decoder_dim": 32,
    "decoder_depth": 2,
    "decoder_heads": 4,
    "mask_ratio": 0.75,
}


def tiny(objective="croco", seed=0, **changes):
    torch.manual_seed(seed)
    return build_model(ModelConfig(objective=objective, **{**TINY, **changes}))


def skeleton(**values):
    """Weights of the published sizes, all of one number each: their files are small."""
    with torch.device("meta"):
        model = build_model(ModelConfig(**({"mask_ratio": 0.9} | values)))
    return {name: torch.zeros(1).expand(value.shape) for name, value in model.state_dict().items()}


def naver(weights):
    """The names that naver's code gives the weights of a CroCo without class token."""
    names = {}
    for name, value in weights.items():
        if name in ("pos_embed", "decoder_pos_embed"):
            names[{"pos_embed": "enc_pos_embed"}.get(name, "dec_pos_embed")] = value[0]
            continue
        for ours, theirs in (
            ("decoder_blocks_croco.", "dec_blocks."),
            ("decoder_norm.", "dec_norm."),
            ("decoder_pred.", "prediction_head."),
            ("blocks.", "enc_blocks."),
            ("norm.", "enc_norm."),
        ):
            if name.startswith(ours):
                name = theirs + name[len(ours) :]
                break
        names[name] = value
    return names


def encoder(weights):
    return {n: v for n, v in weights.items() if n != "mask_token" and not n.startswith("decoder_")}


def test_mimics_checkpoint_with_its_discriminator(tmp_path):
    weights = skeleton(objective="croco")
    stray = {f"discriminator_block.{n}.{part}": torch.zeros(3) for n in (0, 2, 4, 6) for part in ("weight", "bias")}
    args = argparse.Namespace(model="mae_vit_base_patch16", output_dir=PosixPath("/out"))
    file = {"model": {**weights, **stray}, "optimizer": {"state": {}}, "epoch": 120, "scaler": {}, "args": args}
    torch.save(file, tmp_path / "checkpoint-120.pth")
    published = read_published(tmp_path / "checkpoint-120.pth")
    assert published.layout == "mimic"
    assert len(published.weights) == 350 + 8
    assert sum(value.numel() for name, value in published.weights.items() if name in weights) == 120_329_216
    with torch.device("meta"):
        model = build_model(ModelConfig(objective="croco", mask_ratio=0.9))
    ours, _ = to_ours(published)
    assert {name for name in ours if name not in model.state_dict()} == set(stray)


@pytest.mark.parametrize(
    ("decoder", "entries", "values"), [((512, 8, 16), 349, 120_076_288), ((768, 12, 12), 445, 200_269_824)]
)
def test_navers_croco(tmp_path, decoder, entries, values):
    dim, depth, heads = decoder
    options = {"class_token": False, "decoder_dim": dim, "decoder_depth": depth, "decoder_heads": heads}
    weights = skeleton(objective="croco", **options)
    torch.save({"model": naver(weights), "croco_kwargs": {"dec_depth": depth}}, tmp_path / "CroCo.pth")
    published = read_published(tmp_path / "CroCo.pth")
    assert (published.layout, published.options, len(published.weights)) == ("croco", {"dec_depth": depth}, entries)
    ours, report = to_ours(published)
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in weights.items()}
    assert sum(v.numel() for n, v in ours.items() if "pos_embed" not in n) == values
    assert report.renamed["enc_blocks.0.attn.qkv.weight"] == "blocks.0.attn.qkv.weight"
    assert report.used == ["mask_token", "patch_embed.proj.weight", "patch_embed.proj.bias", *report.used[3:]]


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "", "teacher"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone."])
def test_encoders_under_every_wrapper(tmp_path, wrapper, prefix):
    """MAE's `{"model": ...}`, timm's and torch hub's bare tables, DINO's student and teacher."""
    source, target = tiny("mae", seed=1), tiny("croco", seed=2)
    weights = {f"{prefix}{name}": value for name, value in encoder(source.state_dict()).items()}
    student = {f"{prefix}{name}": value + 1 for name, value in encoder(source.state_dict()).items()}
    torch.save({wrapper: weights, "student": student} if wrapper else weights, tmp_path / "vit.pth")
    report = load_published(target, tmp_path / "vit.pth")
    assert all(torch.equal(target.state_dict()[n], v) for n, v in encoder(source.state_dict()).items())
    assert sorted(report.used) == sorted(encoder(source.state_dict()))
    assert all(name == "mask_token" or name.startswith("decoder_") for name in report.made)
    assert [(what, count) for what, count, _ in report.rows()][:2] == [("used", len(report.used)), ("renamed", 0)]


def test_the_published_encoder_file_has_150_entries(tmp_path):
    torch.save({"model": encoder(skeleton(objective="mae"))}, tmp_path / "mae_pretrain_vit_base.pth")
    published = read_published(tmp_path / "mae_pretrain_vit_base.pth")
    assert (published.layout, len(published.weights)) == ("vit", 150)
    assert sum(value.numel() for value in published.weights.values()) == 85_798_656


def test_safetensors(tmp_path):
    source, target = tiny(seed=1), tiny(seed=2)
    save_file(dict(source.state_dict()), tmp_path / "model.safetensors")
    assert load_published(target, tmp_path / "model.safetensors").made == []
    assert all(torch.equal(target.state_dict()[n], v) for n, v in source.state_dict().items())


@pytest.mark.parametrize(
    ("layout", "objective", "class_token"),
    [
        ("croco", "croco", False),
        ("mae", "mae", True),
        ("mae", "croco", True),
        ("timm", "croco", True),
    ],
)
def test_what_is_written_is_read_back_bit_by_bit(tmp_path, layout, objective, class_token):
    source, target = tiny(objective, 1, class_token=class_token), tiny(objective, 2, class_token=class_token)
    torch.save(EXPORTS[layout](source.state_dict()), tmp_path / "out.pth")
    report = load_published(target, tmp_path / "out.pth")
    is_whole = layout == "croco" or (layout, objective) == ("mae", "mae")
    assert (report.made == []) == is_whole
    names = source.state_dict() if is_whole else encoder(source.state_dict())
    assert all(torch.equal(target.state_dict()[name], source.state_dict()[name]) for name in names)
    assert not report.dropped


def test_navers_names_are_written(tmp_path):
    source = tiny(class_token=False)
    written = EXPORTS["croco"](source.state_dict())["model"]
    expected = naver(source.state_dict())
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], value) for name, value in expected.items())


def test_multimae_finetunes_from_a_picture_of_positions():
    weights = tiny().state_dict()
    written = EXPORTS["multimae"](weights)["model"]
    picture = written["input_adapters.rgb.pos_emb"]
    assert picture.shape == (1, 192, 4, 4)
    assert torch.equal(picture[0, :, 1, 2], weights["pos_embed"][0, 1 + 1 * 4 + 2])
    assert torch.equal(written["global_tokens"], weights["cls_token"] + weights["pos_embed"][:, :1])
    assert torch.equal(written["encoder.1.mlp.fc2.weight"], weights["blocks.1.mlp.fc2.weight"])
    assert set(written) == {
        "input_adapters.rgb.pos_emb",
        "input_adapters.rgb.proj.weight",
        "input_adapters.rgb.proj.bias",
        "global_tokens",
        *(n.replace("blocks.", "encoder.", 1) for n in weights if n.startswith("blocks.")),
    }


def test_a_class_token_and_a_table_that_only_one_side_has(tmp_path):
    """CroCo v1 into a model with class token, and for larger images."""
    source, target = tiny(class_token=False, seed=1), tiny(seed=2, image_size=128)
    torch.save({"model": naver(source.state_dict())}, tmp_path / "CroCo.pth")
    token = target.cls_token.clone()
    report = load_published(target, tmp_path / "CroCo.pth")
    assert report.made == ["cls_token"]
    assert torch.equal(target.cls_token, token)
    assert report.resized["pos_embed"] == "(1, 16, 192) -> (1, 65, 192)"
    assert not target.pos_embed[0, 0].any()


def test_tables_are_resized_as_pictures():
    table = torch.randn(1, 17, 8)
    assert torch.equal(resized_table(table, 17), table)
    assert torch.equal(resized_table(table, 16), table[:, 1:])
    larger = resized_table(table, 65)
    assert torch.equal(larger[:, :1], table[:, :1])
    picture = table[0, 1:].T.reshape(1, 8, 4, 4)
    expected = torch.nn.functional.interpolate(picture, size=(8, 8), mode="bicubic", align_corners=False)
    assert torch.equal(larger[0, 1:].T.reshape(1, 8, 8, 8), expected)
    with pytest.raises(ValueError, match="no squares of patches"):
        resized_table(torch.randn(1, 20, 8), 17)


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_no_code_in_a_file_runs(tmp_path):
    mark = tmp_path / "mark"
    torch.save({"model": {"blocks.0.x": torch.zeros(1)}, "args": Evil(mark)}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil(mark)))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(ValueError, match="cannot be read as weights, or asks for more than those"):
            read_published(tmp_path / name)
    assert not mark.exists()


def test_constructor_strings_are_parsed_not_evaluated(tmp_path):
    text = "CroCoNet(enc_embed_dim=768, pos_embed='RoPE100', img_size=(224, 224))"
    assert parse_call(text) == {"enc_embed_dim": 768, "pos_embed": "RoPE100", "img_size": (224, 224)}
    weights = naver(tiny(class_token=False).state_dict())
    torch.save({"model": weights, "args": argparse.Namespace(model=text)}, tmp_path / "own.pth")
    assert read_published(tmp_path / "own.pth").options["pos_embed"] == "RoPE100"
    bad_calls = ("__import__('os').system('true')", "f(x=open('/etc/passwd'))", "f(1)", "f(", "f(x=" + "(" * 500)
    for bad in (*bad_calls, "f(**{'x': 1})", "f(x={[]: 1})", "f(x=1).g(y=2)", "f(x=9**9**9)", "\0"):
        with pytest.raises(ValueError, match="no constructor with plain arguments"):
            parse_call(bad)


@pytest.mark.parametrize(("content", "message"), [
    (b"torn", "cannot be read as weights"),
    (None, "no such file"),
    ({"model": {"conv1.weight": torch.zeros(1)}}, "holds no ViT that is known"),
    ([1, 2], "holds a list"),
])  # fmt: skip
def test_files_that_are_no_weights(tmp_path, content, message):
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        read_published(path)


def test_another_size_of_model_is_named(tmp_path):
    torch.save({"model": tiny(size="small").state_dict()}, tmp_path / "small.pth")
    with pytest.raises(ValueError, match="it is another size of model"):
        load_published(tiny(), tmp_path / "small.pth")


V2 = {
    "CroCo_V2_ViTBase_SmallDecoder.pth": ("base", (512, 8, 16), 347, 120_076_288),
    "CroCo_V2_ViTBase_BaseDecoder.pth": ("base", (768, 12, 12), 443, 200_269_824),
    "CroCo_V2_ViTLarge_BaseDecoder.pth": ("large", (768, 12, 12), 587, 417_918_720),
}


@pytest.mark.parametrize("name", V2)
def test_the_three_files_of_crocos_second_version(tmp_path, name):
    """Weights and constructor arguments as released; the model that they belong to is found, every name has a place."""
    size, (dim, depth, heads), entries, values = V2[name]
    decoder = {"decoder_dim": dim, "decoder_depth": depth, "decoder_heads": heads}
    weights = skeleton(objective="croco", size=size, class_token=False, rotary=True, **decoder)
    width, blocks, of_encoder = SIZES[size]
    kwargs = {
        "enc_embed_dim": width,
        "enc_depth": blocks,
        "enc_num_heads": of_encoder,
        "dec_embed_dim": dim,
        "dec_depth": depth,
        "dec_num_heads": heads,
        "pos_embed": "RoPE100",
    }
    torch.save({"model": naver(weights), "croco_kwargs": kwargs}, tmp_path / name)
    published = read_published(tmp_path / name)
    assert (len(published.weights), sum(v.numel() for v in published.weights.values())) == (entries, values)
    found = ModelConfig(**model_values(published))
    expected = ModelConfig(objective="croco", size=size, mask_ratio=0.9, class_token=False, rotary=True, **decoder)
    assert found == expected
    ours, report = to_ours(published)
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in weights.items()}
    assert not report.dropped


def test_rotary_weights_go_there_and_back_bit_by_bit(tmp_path):
    source, target = (tiny(seed=seed, class_token=False, rotary=True) for seed in (1, 2))
    written = {**EXPORTS["croco"](source.state_dict()), "croco_kwargs": {"pos_embed": "RoPE100"}}
    torch.save(written, tmp_path / "v2.pth")
    report = load_published(target, tmp_path / "v2.pth")
    assert not report.made
    assert all(torch.equal(target.state_dict()[name], value) for name, value in source.state_dict().items())
    with pytest.raises(ValueError, match=r"rotary positions, this model adds tables; set model\.rotary = true"):
        load_published(tiny(), tmp_path / "v2.pth")
    with pytest.raises(ValueError, match="MultiMAE's layout has a position table"):
        EXPORTS["multimae"](source.state_dict())


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"objective": "croco"}, "checkpoint-120.pth"),
        ({"objective": "croco", "class_token": False}, "CroCo.pth"),
        ({"objective": "mae", "mask_ratio": 0.75}, "mae_pretrain_vit_base_full.pth"),
        ({"objective": "mae", "mask_ratio": 0.75, "size": "large"}, "mae_visualize_vit_large.pth"),
    ],
)
def test_a_file_says_which_model_it_is_of(tmp_path, values, name):
    weights = skeleton(**values)
    torch.save({"model": naver(weights) if name == "CroCo.pth" else weights}, tmp_path / name)
    assert ModelConfig(**model_values(read_published(tmp_path / name))) == ModelConfig(**({"mask_ratio": 0.9} | values))


def test_files_of_unknown_models_are_refused_by_name(tmp_path):
    path, weights = tmp_path / "file.pth", dict(skeleton(objective="mae", mask_ratio=0.75))
    v2 = naver(tiny(class_token=False, rotary=True).state_dict())
    cases = [
        ({n: v for n, v in weights.items() if not n.startswith("blocks.11.")}, {}, "768 wide and 11 blocks deep"),
        (weights | {"pos_embed": torch.zeros(1, 198, 768)}, {}, "197 positions are no square"),
        (weights | {"mask_token": torch.zeros(1, 1, 520)}, {}, "how many heads its decoder of width 520"),
        ({n: v for n, v in weights.items() if "patch_embed" not in n}, {}, "has no patch embedding"),
        (v2, {"pos_embed": "RoPE50"}, "wide and 2 blocks deep"),
    ]
    for table, kwargs, message in cases:
        torch.save({"model": table, "croco_kwargs": kwargs}, path)
        with pytest.raises(ValueError, match=f"file.pth: .*{message}"):
            model_values(read_published(path))


def test_tables_that_are_no_tables_are_refused(tmp_path):
    weights = encoder(tiny("mae").state_dict())
    for table in (torch.zeros(4), torch.zeros(1, 0, 192), torch.zeros(1, 17, 96), torch.zeros(1, 1, 4, 192)):
        torch.save({"model": weights | {"pos_embed": table}}, tmp_path / "vit.pth")
        with pytest.raises(ValueError, match=r"another size of model|no squares of patches"):
            load_published(tiny("mae"), tmp_path / "vit.pth")


def test_the_class_token_of_a_grid_that_is_no_square_is_left_out():
    """3 x 5 patches and a token are 16 rows: a square by chance."""
    written = EXPORTS["croco"](tiny(image_size=(48, 80)).state_dict())["model"]
    assert written["enc_pos_embed"].shape == (15, 192)
    with pytest.raises(ValueError, match="15 patches are no square"):
        EXPORTS["multimae"](tiny(image_size=(48, 80)).state_dict())
