"""Transforms of a PaddleSeg config, and the one size of images that follows from them."""

from typing import Any

from segslim.paddleseg.components import node
from segslim.paddleseg.reading import Section

SIZE = "${dataset.size}"
SIZES = {"Resize": "target_size", "RandomPaddingCrop": "crop_size"}  # what brings every image to one size
DEFAULT_SIZE = [512, 512]  # PaddleSeg's, of both
PADDED = ("Padding", "ScalePadding")  # to a target_size
SIZE_STAYS = ("Normalize", "RandomHorizontalFlip", "RandomVerticalFlip", "RandomBlur", "RandomDistort", "RandomNoise")


def translate(config: Section) -> dict[str, Any]:
    """size, train_transforms and val_transforms of our group `dataset`.

    A deployed network is given images of one size, and is measured as it is deployed. So:
    - `export.transforms`, where given, are what images go through once deployed, and replace those of val_dataset;
    - padding in validation becomes Resize to the same size, since labels keep theirs;
    - dataset.size is where the last Resize of validation leads; or else, where PaddleSeg would evaluate each image in
      its own size, that of the last crop or Resize of training, and a Resize to it is put into validation.
    Each of these changes is said in a warning. Transforms to this size follow `dataset.size` on the command line.

    Raises UserError for a transform that PaddleSeg has not or that cannot be used here, and where no size follows.
    """
    training = [_node(entry) for entry in _entries(config, "train_dataset")]
    validation = [_node(_resized_not_padded(entry)) for entry in _deployed(config)]
    sizing = [entry for entry in validation if _name(entry) not in SIZE_STAYS]
    if sizing and _is_resize(sizing[-1]):
        size = _size(sizing[-1])
    else:
        size = _training_size(config, training)
        _add_resize(config, validation, size)
    return {
        "size": size,
        "train_transforms": [_following(entry, size) for entry in training],
        "val_transforms": [_following(entry, size) for entry in validation],
    }


def _entries(config: Section, key: str) -> list[Section]:
    return list(config.section(key).sections("transforms"))


def _deployed(config: Section) -> list[Section]:
    """The transforms of validation, or those that the config wants deployed."""
    validation = _entries(config, "val_dataset")
    if config.get("export") is None:
        return validation
    config.section("export").only(("transforms",))
    exported = _entries(config, "export")
    if [entry.values for entry in exported] != [entry.values for entry in validation]:
        config.warn("export.transforms", "are used in validation too: what is deployed is measured")
    return exported


def _node(entry: Section) -> dict[str, Any]:
    if entry.word("type") == "GenerateInstanceTargets":
        raise entry.fault("type", "= GenerateInstanceTargets: targets for MaskFormer's loss are not supported")
    made = node(entry, "TRANSFORMS")
    key = SIZES.get(_name(made))
    if key is not None and key in made and not _is_size(made[key]):
        raise entry.fault(key, f"= {made[key]!r} should be [width, height] in pixels")
    return made


def _resized_not_padded(entry: Section) -> Section:
    kind = entry.word("type")
    if kind == "PaddingByAspectRatio":
        raise entry.fault("type", f"= {kind} pads images of validation, whose labels keep their size: use Resize")
    if kind not in PADDED:
        return entry
    size = entry.get("target_size", DEFAULT_SIZE)
    entry.warn("type", f"= {kind} became Resize to {size}: labels keep their size")
    return Section(entry.file, entry.key, {"type": "Resize", "target_size": size})


def _add_resize(config: Section, validation: list[dict[str, Any]], size: list[int]) -> None:
    """Puts a Resize before the first Normalize, or at the end."""
    names = [_name(entry) for entry in validation]
    position = names.index("Normalize") if "Normalize" in names else len(names)
    validation.insert(position, {"_target_": "paddleseg.transforms.Resize", "target_size": size})
    said = f"resize images to {size}, the size of training, too: a deployed network has one size"
    config.warn("val_dataset.transforms", said)


def _training_size(config: Section, training: list[dict[str, Any]]) -> list[int]:
    sizes = [_size(entry) for entry in training if _name(entry) == "RandomPaddingCrop" or _is_resize(entry)]
    if not sizes:
        raise config.section("train_dataset").fault(
            "transforms", "bring images to no one size: add RandomPaddingCrop or Resize"
        )
    return sizes[-1]


def _following(entry: dict[str, Any], size: list[int]) -> dict[str, Any]:
    """The transform, with the command line's size in place of this one."""
    return {key: SIZE if key in SIZES.values() and value == size else value for key, value in entry.items()}


def _name(entry: dict[str, Any]) -> str:
    return str(entry["_target_"]).rpartition(".")[2]


def _is_resize(entry: dict[str, Any]) -> bool:
    return _name(entry) == "Resize" and not entry.get("keep_ratio") and not entry.get("size_divisor")


def _size(entry: dict[str, Any]) -> list[int]:
    return list(entry.get(SIZES[_name(entry)], DEFAULT_SIZE))


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)
