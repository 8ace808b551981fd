"""The config's lists of PaddleSeg transforms: as objects, and as deploy.yaml writes them."""

from typing import Any

from segslim.config import Config
from segslim.instantiate import instantiate
from segslim.paddle_compat import import_paddleseg


def transforms(config: Config, split: str) -> list[Any]:
    """The transforms of "train" or "val", in their order."""
    import_paddleseg()
    key = f"dataset.{split}_transforms"
    nodes = config.dataset.train_transforms if split == "train" else config.dataset.val_transforms
    return [instantiate(node, f"{key}[{position}]") for position, node in enumerate(nodes)]


def deploy_form(node: dict[str, Any]) -> dict[str, Any]:
    """{_target_: paddleseg.transforms.Resize, target_size: ...} -> {type: Resize, target_size: ...}."""
    options = {key: value for key, value in node.items() if not key.startswith("_")}
    return {"type": node["_target_"].rpartition(".")[2], **options}
