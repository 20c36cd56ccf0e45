import pytest
import timm
import torch

from mimic_wds.models.build import build_model


@pytest.mark.parametrize(("class_token", "pool"), [(True, "token"), (False, "avg")])
def test_encoder_is_timms_vision_transformer(tiny_config, shaken, inputs, class_token, pool):
    config = tiny_config("croco", image_size=64, class_token=class_token)
    ours = shaken(config)
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        depth=3,
        img_size=64,
        num_classes=0,
        class_token=class_token,
        global_pool=pool,
        fc_norm=False,
    )
    names = theirs.state_dict().keys()
    theirs.load_state_dict({key: value for key, value in ours.state_dict().items() if key in names})  # strict
    image, *_ = inputs(config)
    with torch.no_grad():
        expected, tokens = theirs.eval().forward_features(image), ours.encode(image)
    assert tokens.shape == (2, 16 + class_token, 192)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)


def test_order_of_visible_patches_decides_only_the_order_of_tokens(tiny_config, shaken, inputs):
    config = tiny_config("mae")
    model = shaken(config)
    image, _ = inputs(config)
    order = torch.tensor([[7, 2, 11], [0, 14, 3]])
    with torch.no_grad():
        tokens, reversed_tokens = model.encode(image, order), model.encode(image, order.flip(1))
    torch.testing.assert_close(tokens[:, 1:], reversed_tokens[:, 1:].flip(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens[:, 0], reversed_tokens[:, 0], rtol=0, atol=1e-5)


def test_images_of_another_size_are_refused_with_both_sizes(tiny_config, inputs):
    config = tiny_config("croco")
    model = build_model(config)
    image0, image1, noise = inputs(config)
    with pytest.raises(ValueError, match=r"images are \(80, 48\) .* made for \(48, 80\); set model.image_size"):
        model(image0, image1.transpose(2, 3), noise)
