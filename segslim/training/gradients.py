"""The gradients of the loss, batch by batch, of a network that stays as it is."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from segslim.paddle_compat import import_paddle
from segslim.training.losses import Losses, segmentation_loss


def gradients(
    network: Any, batches: Iterable[Mapping[str, Any]], losses: Losses, device: str = "cpu"
) -> Iterator[dict[str, np.ndarray]]:
    """For each batch {"img": N,3,H,W float32, "label": N,H,W int64}, the gradient of every parameter that the output
    depends on, by its name in the state dict.

    The network runs in evaluation mode, so that neither batch norm's statistics nor dropout play a part: with its main
    head alone, and that head's loss.
    """
    paddle = import_paddle()
    paddle.set_device(device)
    network.eval()
    main = Losses(losses.types[:1], losses.coef[:1])
    parameters = {name: value for name, value in network.state_dict().items() if not value.stop_gradient}
    for batch in batches:
        image, label = (paddle.to_tensor(batch[key]) for key in ("img", "label"))
        segmentation_loss(network(image)[:1], label, main).backward()
        yield {name: value.grad.numpy() for name, value in parameters.items() if value.grad is not None}
        for parameter in parameters.values():
            parameter.clear_gradient(set_to_zero=False)
