"""Every sample takes its own random numbers, whoever works on it."""

import torch

from mimic_wds.training.inputs import model_inputs, step_draws


def split_up(config, parts):
    """The inputs of a step of 8 samples, made of `parts` micro-batches and put together again in order of the rows."""
    draws = step_draws(config, 5)
    num_pairs = 8 // config.samples_per_pair
    images = torch.arange(num_pairs, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 64, 64)
    rows = torch.randperm(num_pairs, generator=torch.Generator().manual_seed(parts))
    pieces = [model_inputs(config, images[part], images[part] + 0.5, part, draws) for part in rows.chunk(parts)]
    samples = [torch.cat(column) for column in zip(*pieces, strict=True)]
    order = samples[0][:, 0, 0, 0].argsort()
    return [column[order] for column in samples]


def test_croco_gets_pairs_and_mae_gets_their_images(tiny):
    image0, image1, noise = split_up(tiny(), 1)
    assert image0.shape == image1.shape == (8, 3, 64, 64)
    assert noise.shape == (8, 16)
    assert torch.equal(noise, step_draws(tiny(), 5)[:, :16])
    images, noise = split_up(tiny(model={"objective": "mae"}), 1)
    assert images[:, 0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert torch.equal(noise, step_draws(tiny(), 5)[:, :16])


def test_inputs_do_not_depend_on_the_micro_batches(tiny):
    for config in (
        tiny(),
        tiny(model={"objective": "mae"}),
    ):
        whole = split_up(config, 1)
        for parts in (2, 4):
            for mine, theirs in zip(split_up(config, parts), whole, strict=True):
                assert torch.equal(mine, theirs)


def test_single_images_take_the_noise_of_their_rows_and_are_not_cropped_again(tiny):
    config = tiny(model={"objective": "mae"}, data={"augmentation": "mae"})
    draws, rows, images = step_draws(config, 2), torch.tensor([5, 0, 7]), torch.rand(3, 3, 64, 64)
    same, noise = model_inputs(config, images, None, rows, draws)
    assert torch.equal(same, images)
    assert torch.equal(noise, draws[rows, :16])
