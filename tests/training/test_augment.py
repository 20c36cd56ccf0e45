"""Random crops: what is cut out, and that it lands where it should."""

import torch

from mimic_wds.training.augment import crop_and_flip, crop_boxes


def test_boxes_stay_inside_and_have_the_areas_asked_for():
    boxes = crop_boxes(torch.rand(4000, 5, generator=torch.Generator().manual_seed(0)))
    x, y, width, height, mirror = boxes.unbind(1)
    assert (x - width / 2 >= -1e-6).all()
    assert (x + width / 2 <= 1 + 1e-6).all()
    assert (y - height / 2 >= -1e-6).all()
    assert (y + height / 2 <= 1 + 1e-6).all()
    area, whole = width * height, (width < 1) & (height < 1)
    assert area.min() >= 0.2 * 0.85  # only a side cut to the image loses area
    assert torch.logical_and(area[whole] > 0.2 - 1e-6, area[whole] < 1).all()
    aspect = (width / height)[whole].log()
    assert aspect.abs().max() <= torch.log(torch.tensor(4 / 3)) + 1e-6
    assert abs(mirror.mean()) < 0.08


def test_the_whole_image_is_left_as_it_is():
    images = torch.rand(2, 3, 16, 16)
    whole = torch.tensor([[0.5, 0.5, 1.0, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0, -1.0]])
    same, mirrored = crop_and_flip(images, whole)
    torch.testing.assert_close(same, images[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored, images[1].flip(-1), atol=1e-5, rtol=0)


def test_a_quarter_of_a_ramp_is_that_quarter_enlarged():
    # Pixel centres of a 32-pixel ramp; the lower right quarter seen at twice the size keeps its coordinates.
    ramp = (torch.arange(32) + 0.5) / 32
    images = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)])[None]
    quarter = crop_and_flip(images, torch.tensor([[0.75, 0.75, 0.5, 0.5, 1.0]]))[0]
    expected = 0.5 + (torch.arange(32) + 0.5) / 64
    inside = slice(
        4, -4
    )  # the border pixels repeat; the cubic kernel bends a ramp by 0.05 pixels, half a pixel is 0.016
    torch.testing.assert_close(quarter[0, 16, inside], expected[inside], atol=2e-3, rtol=0)
    torch.testing.assert_close(quarter[1, inside, 16], expected[inside], atol=2e-3, rtol=0)
