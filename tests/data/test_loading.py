"""Training batches depend on the seed and the iteration alone; validation keeps the labels as they are."""

import random

import cv2
import numpy as np
import pytest

from segslim.data import FileList
from segslim.data.loading import TrainingSet, training_loader, validation_batches
from segslim.errors import UserError
from tests.data.files import write_file_list

import paddleseg.transforms as T  # isort: skip  (after loading, which imports Paddle in the way that works everywhere)


@pytest.fixture
def pairs(tmp_path):
    return write_file_list(tmp_path, count=8).pairs(tmp_path, "train")


def augmentations():
    return [
        T.RandomRotation(),
        T.ResizeStepScaling(0.5, 2.0, 0.25),
        T.RandomPaddingCrop([16, 12]),
        T.RandomHorizontalFlip(),
        T.RandomDistort(),
        T.RandomNoise(),
        T.Normalize(),
    ]


def batches(pairs, *, start_iter=0, iters=9, num_workers=0, seed=3, batch_size=3, share=(0, 1)):
    loader = training_loader(
        pairs,
        augmentations(),
        batch_size=batch_size,
        seed=seed,
        start_iter=start_iter,
        iters=iters,
        num_workers=num_workers,
        share=share,
    )
    return [(batch["img"].numpy(), batch["label"].numpy()) for batch in loader]


def same(left, right):
    return len(left) == len(right) and all(
        np.array_equal(a, b) for pair in zip(left, right, strict=True) for a, b in zip(*pair, strict=True)
    )


def test_batches_have_the_shapes_and_types_that_networks_take(pairs):
    for image, label in batches(pairs):
        assert (image.shape, image.dtype) == ((3, 3, 12, 16), np.float32)
        assert (label.shape, label.dtype) == ((3, 12, 16), np.int64)


def test_shares_of_a_batch_are_its_parts_in_order(pairs):
    whole = batches(pairs, batch_size=6)
    shares = [batches(pairs, batch_size=6, share=(part, 3)) for part in range(3)]
    parts = zip(*shares, strict=True)
    together = [tuple(np.concatenate(arrays) for arrays in zip(*each, strict=True)) for each in parts]
    assert same(together, whole)


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_batches_are_bit_identical_for_any_number_of_workers(pairs, num_workers):
    assert same(batches(pairs), batches(pairs, num_workers=num_workers))


@pytest.mark.parametrize("start_iter", [1, 4, 8])
def test_a_run_that_resumes_sees_what_it_would_have_seen(pairs, start_iter):
    assert same(batches(pairs)[start_iter:], batches(pairs, start_iter=start_iter, num_workers=2))


def test_random_numbers_drawn_elsewhere_change_nothing_and_are_not_changed(pairs):
    expected = batches(pairs, iters=3)
    random.seed(0)
    np.random.seed(0)
    undisturbed = random.random(), np.random.rand()
    random.seed(0)
    np.random.seed(0)
    assert same(batches(pairs, iters=3), expected)
    assert (random.random(), np.random.rand()) == undisturbed
    random.seed(5)
    assert same(batches(pairs, iters=3), expected)


def test_another_seed_gives_other_batches(pairs):
    assert not same(batches(pairs), batches(pairs, seed=4))


def test_every_epoch_shows_each_image_once_in_a_new_order(pairs):
    stream = TrainingSet(pairs, [T.Normalize()], batch_size=3, seed=0)
    shown = np.concatenate([stream.batch(iteration)["img"] for iteration in range(14)])
    names = [image.tobytes() for image in shown]
    epochs = [names[first : first + 7] for first in range(0, 42, 7)]
    assert all(len(set(epoch)) == 7 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_an_image_is_augmented_anew_in_every_epoch(pairs):
    stream = TrainingSet(pairs[:1], [T.RandomDistort(), T.Normalize()], batch_size=6, seed=0)
    assert len({image.tobytes() for image in stream.batch(0)["img"]}) == 6


def test_labels_follow_their_images(tmp_path):
    dataset = write_file_list(tmp_path)
    for pair in dataset.pairs(tmp_path, "train"):
        label = cv2.imread(str(pair.label), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(pair.image), np.repeat(label[..., None], 3, 2))
    transforms = [T.RandomPaddingCrop([24, 12], im_padding_value=255), T.RandomHorizontalFlip(), T.RandomVerticalFlip()]
    stream = TrainingSet(dataset.pairs(tmp_path, "train"), transforms, batch_size=12, seed=0)
    batch = stream.batch(0)
    assert np.array_equal(batch["img"][:, 0], batch["label"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_that_end_in_different_sizes_are_refused(tmp_path, num_workers):
    pairs = write_file_list(tmp_path / "a").pairs(tmp_path, "train")
    pairs += write_file_list(tmp_path / "b", size=(24, 16)).pairs(tmp_path, "train")
    loader = training_loader(
        pairs, [T.Normalize()], batch_size=6, seed=0, start_iter=0, iters=1, num_workers=num_workers
    )
    with pytest.raises(UserError, match="one batch are 20 x 16 and 24 x 16 pixels"):
        list(loader)


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_file_that_went_bad_is_named(pairs, kind):
    getattr(pairs[2], kind).write_bytes(b"")
    with pytest.raises(UserError, match=rf"train\.txt:3: cannot read the {kind}"):
        batches(pairs, num_workers=1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_validation_resizes_images_and_keeps_labels(pairs, num_workers):
    for _ in range(2):
        found = list(
            validation_batches(pairs, [T.Resize([32, 24]), T.Normalize()], batch_size=4, num_workers=num_workers)
        )
        assert [images.shape for images, _ in found] == [(4, 3, 24, 32), (3, 3, 24, 32)]
        labels = [label for _, batch in found for label in batch]
        stored = [cv2.imread(str(pair.label), cv2.IMREAD_UNCHANGED) for pair in pairs]
        assert all(np.array_equal(a, b) for a, b in zip(labels, stored, strict=True))


def test_validation_images_of_one_size_share_a_batch_and_others_do_not(tmp_path):
    small, large = write_file_list(tmp_path / "a"), write_file_list(tmp_path / "b", size=(24, 16))
    pairs = small.pairs(tmp_path, "train") + large.pairs(tmp_path, "train") + small.pairs(tmp_path, "val")
    widths = [images.shape[3] for images, _ in validation_batches(pairs, [T.Normalize()], batch_size=2)]
    sizes = [len(labels) for _, labels in validation_batches(pairs, [T.Normalize()], batch_size=2)]
    assert widths == [20, 20, 24, 24, 20]
    assert sizes == [2, 1, 2, 1, 1]


def test_validation_may_be_iterated_again(pairs):
    batches_again = validation_batches(pairs, [T.Normalize()], batch_size=4)
    assert len(list(batches_again)) == len(list(batches_again)) == 2


def test_validation_that_pads_is_refused(pairs):
    with pytest.raises(UserError, match=r"dataset\.val_transforms pad"):
        list(validation_batches(pairs, [T.Padding([32, 32]), T.Normalize()], batch_size=2))


def test_images_reach_the_transforms_as_rgb(tmp_path):
    dataset = write_file_list(tmp_path)
    for pair in dataset.pairs(tmp_path, "train"):
        cv2.imwrite(str(pair.image), np.full((16, 20, 3), (10, 20, 30), np.uint8))
    images, _ = next(iter(validation_batches(dataset.pairs(tmp_path, "train"), [], batch_size=1)))
    assert images[0, :, 0, 0].tolist() == [30, 20, 10]


def test_labels_of_one_bit_are_numbers(tmp_path):
    from PIL import Image

    dataset = write_file_list(tmp_path)
    pairs = FileList(tmp_path, "train.txt", "val.txt").pairs(tmp_path, "val")
    Image.fromarray(np.eye(16, 20, dtype=bool)).save(pairs[0].label)
    _, (label,) = next(iter(validation_batches(dataset.pairs(tmp_path, "val"), [T.Normalize()], batch_size=1)))
    assert label.dtype == np.uint8
    assert label.sum() == 16
