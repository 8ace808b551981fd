"""Training batches depend on the seed and the iteration alone; validation keeps the labels as they are."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from segslim.data import loading
from segslim.data.images import read_image
from segslim.data.loading import TrainingSet, ValidationBatches, map_in_order, training_loader
from segslim.errors import UserError
from segslim.evaluation.metrics import laid_over
from segslim.paddle_compat import import_paddle
from tests.data import layouts

import_paddle()
import paddleseg.transforms as T  # noqa: E402  (after Paddle, which must be imported by `import_paddle`)

KILLED_PARENT = """
import os, signal
from segslim.data.loading import map_in_order
for _ in map_in_order(lambda item: bytes(1 << 20), range(1000), 2):
    print("working", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def pairs(tmp_path):
    return layouts.file_list(tmp_path, count=8).pairs(tmp_path, "train")


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


def batches(pairs, **changed):
    options = {"start_iter": 0, "iters": 9, "seed": 3, "batch_size": 3, **changed}
    loader = training_loader(pairs, augmentations(), **options)
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


def test_any_number_of_workers_keeps_the_order():
    assert list(map_in_order(str, range(150), 64)) == [str(number) for number in range(150)]


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


def test_an_image_is_augmented_differently_in_every_epoch(pairs):
    stream = TrainingSet(pairs[:1], [T.RandomDistort(), T.Normalize()], batch_size=6, seed=0)
    assert len({image.tobytes() for image in stream.batch(0)["img"]}) == 6


def test_labels_follow_their_images(tmp_path):
    dataset = layouts.file_list(tmp_path)
    for pair in dataset.pairs(tmp_path, "train"):
        label = cv2.imread(str(pair.label), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(pair.image), np.repeat(label[..., None], 3, 2))
    transforms = [T.RandomPaddingCrop([24, 12], im_padding_value=255), T.RandomHorizontalFlip(), T.RandomVerticalFlip()]
    stream = TrainingSet(dataset.pairs(tmp_path, "train"), transforms, batch_size=12, seed=0)
    batch = stream.batch(0)
    assert np.array_equal(batch["img"][:, 0], batch["label"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_that_end_in_different_sizes_are_refused(tmp_path, num_workers):
    pairs = layouts.file_list(tmp_path / "a").pairs(tmp_path, "train")
    pairs += layouts.file_list(tmp_path / "b", size=(24, 16)).pairs(tmp_path, "train")
    options = {"batch_size": 6, "seed": 0, "start_iter": 0, "iters": 1, "num_workers": num_workers}
    loader = training_loader(pairs, [T.Normalize()], **options)
    with pytest.raises(UserError, match="one batch are 20 x 16 and 24 x 16 pixels"):
        list(loader)


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_file_that_went_bad_is_named(pairs, kind):
    getattr(pairs[2], kind).write_bytes(b"")
    with pytest.raises(UserError, match=rf"train\.txt:3: the {kind} .* cannot be read"):
        batches(pairs, num_workers=1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_validation_resizes_images_and_keeps_labels(pairs, num_workers):
    for _ in range(2):
        transforms = [T.Resize([32, 24]), T.Normalize()]
        found = list(ValidationBatches(pairs, transforms, batch_size=4, num_workers=num_workers))
        assert [images.shape for images, _ in found] == [(4, 3, 24, 32), (3, 3, 24, 32)]
        labels = [label for _, batch in found for label in batch]
        stored = [cv2.imread(str(pair.label), cv2.IMREAD_UNCHANGED) for pair in pairs]
        assert all(np.array_equal(a, b) for a, b in zip(labels, stored, strict=True))


def test_validation_images_of_one_size_share_a_batch_and_others_do_not(tmp_path):
    small, large = layouts.file_list(tmp_path / "a"), layouts.file_list(tmp_path / "b", size=(24, 16))
    pairs = small.pairs(tmp_path, "train") + large.pairs(tmp_path, "train") + small.pairs(tmp_path, "val")
    widths = [images.shape[3] for images, _ in ValidationBatches(pairs, [T.Normalize()], batch_size=2)]
    sizes = [len(labels) for _, labels in ValidationBatches(pairs, [T.Normalize()], batch_size=2)]
    assert widths == [20, 20, 24, 24, 20]
    assert sizes == [2, 1, 2, 1, 1]


def test_padding_in_validation_is_undone_on_the_prediction_as_paddleseg_does(pairs):
    """By PaddleSeg's own reverse_transform, for an image that is resized, padded and resized again."""
    from paddleseg.core.infer import reverse_transform

    transforms = [T.Resize([20, 9], keep_ratio=True), T.Padding([32, 24]), T.Resize([48, 36]), T.Normalize()]
    for workers in (0, 1):
        (images, (label, *_)) = next(iter(ValidationBatches(pairs[:1], transforms, 1, workers)))
        rows, columns = np.indices(images.shape[2:])
        ids = rows // 8 + 10 * (columns // 8)
        steps = [("padding" if padded else "resize", size) for *size, padded in label.steps]
        theirs = reverse_transform(import_paddle().to_tensor(ids[None, None].astype("float32")), steps)
        assert [step[0] for step in steps] == ["resize", "padding", "resize"]
        ours = laid_over(ids, label)
        assert ours.shape == label.shape == tuple(theirs.shape[2:])
        # the same blocks, but for half a pixel: theirs are not nearest centres
        assert (ours == theirs.numpy()[0, 0]).mean() > 0.75


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_training_and_validation_see_the_pixels_that_prediction_reads(pairs, kind):
    pair = pairs[0]
    if kind == "jpg":
        Image.open(pair.image).save(pair.image, "JPEG")
    expected = read_image(pair.image).transpose(2, 0, 1).astype(np.float32)
    images, _ = next(iter(ValidationBatches([pair], [], batch_size=1)))
    assert np.array_equal(images[0], expected)
    assert np.array_equal(TrainingSet([pair], [], batch_size=1, seed=0).batch(0)["img"][0], expected)
    red = np.asarray(Image.open(pair.image))[..., 0]
    assert np.abs(red - expected[0]).max() <= 3  # decoders of JPEG may round differently


# Worker processes


@pytest.mark.parametrize("num_workers", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_results_come_in_order_for_any_number_of_workers(num_workers, count):
    assert list(map_in_order(lambda item: item * item, range(count), num_workers)) == [i * i for i in range(count)]


@pytest.mark.long
def test_spawned_workers_give_the_batches_of_forked_ones(pairs, monkeypatch):
    """As on Windows and macOS."""
    expected = batches(pairs)
    monkeypatch.setattr(loading, "START_METHOD", "spawn")
    assert same(batches(pairs, num_workers=1), expected)
    with pytest.raises(UserError, match=r"ended with code -9"):
        list(map_in_order(signal.raise_signal, [signal.SIGKILL] * 3, 2))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_arrives_as_itself_after_the_results_before_it(num_workers):
    def fail_at_three(item):
        if item == 3:
            raise UserError("three is too many")
        return item

    results = map_in_order(fail_at_three, range(9), num_workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"^three is too many$"):
        next(results)
    assert not multiprocessing.active_children()


def test_leaving_early_ends_the_workers():
    results = map_in_order(lambda item: np.zeros(1 << 20), range(1000), 3)
    next(results)
    assert len(multiprocessing.active_children()) == 3
    results.close()
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_reported():
    with pytest.raises(UserError, match=r"ended with code -9 .* lower num_workers"):
        list(map_in_order(lambda item: os.kill(os.getpid(), signal.SIGKILL), range(3), 2))


def test_workers_end_when_their_parent_is_killed():
    process = subprocess.Popen([sys.executable, "-c", KILLED_PARENT], stdout=subprocess.PIPE)
    # The workers inherit the standard output: it ends when the last of them has.
    output, _ = process.communicate(timeout=30)
    assert output == b"working\n"
    assert process.returncode == -signal.SIGKILL


def test_opencv_works_in_workers_after_it_ran_threads_in_the_parent():
    image = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8)
    expected = cv2.GaussianBlur(image, (0, 0), 3)
    blurred = map_in_order(lambda item: cv2.GaussianBlur(image, (0, 0), 3), range(2), 2)
    assert all(np.array_equal(result, expected) for result in blurred)
