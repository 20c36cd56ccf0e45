"""Memory is used again, but never while anything still looks at it."""

import torch

from mimic_wds.loading.memory import PixelMemory
from mimic_wds.loading.pairs import PairLoader


def test_memory_comes_back_when_its_tensor_is_gone():
    memory = PixelMemory((2, 3), keep=2)
    first = memory.take()
    assert (first.shape, first.dtype) == ((2, 3), torch.uint8)
    place = first.data_ptr()
    assert memory.take().data_ptr() != place
    del first
    assert memory.take().data_ptr() == place


def test_a_slice_an_array_or_a_view_keeps_the_memory():
    memory = PixelMemory((4, 5), keep=4)
    for look in (lambda t: t[1], lambda t: t.numpy()[2:], lambda t: t.permute(1, 0), lambda t: t.view(-1)[3:4]):
        tensor = memory.take()
        tensor.fill_(7)
        kept, place = look(tensor), tensor.data_ptr()
        del tensor
        others = [memory.take() for _ in range(5)]
        for other in others:
            other.fill_(0)
        assert place not in [other.data_ptr() for other in others]
        assert (kept == 7).all()


def test_no_more_than_asked_for_is_held_back():
    memory = PixelMemory((8,), keep=2)
    tensors = [memory.take() for _ in range(5)]
    places = {tensor.data_ptr() for tensor in tensors}
    assert len(places) == 5
    tensors.clear()
    assert len(memory._free) == 2


def test_memory_outlives_its_giver():
    tensor = PixelMemory((16,), keep=1).take()
    tensor.fill_(9)
    assert tensor.tolist() == [9] * 16
    del tensor


def test_what_is_kept_of_a_batch_stays_as_it_was_for_epochs(dataset):
    loader = PairLoader(dataset, global_batch=4, num_threads=4)
    kept = [(batch.image0[1], batch.image0[1].clone()) for epoch in range(4) for batch in loader.epoch(epoch)]
    assert len(kept) == 28
    assert all(torch.equal(slice_, copy) for slice_, copy in kept)


def test_a_consumer_that_keeps_nothing_needs_a_few_pieces_of_memory_only(dataset):
    loader = PairLoader(dataset, global_batch=2, num_threads=2)
    places = {batch.image0.data_ptr() for epoch in range(3) for batch in loader.epoch(epoch)}
    assert len(places) <= 6  # of 45 batches: three being decoded, one that waits, one in use, one more in hand
