"""PaddleSeg's YAML configs as ours: `paddleseg=configs/mine.yml` on the command line.

A YAML file comes in, a config goes out, and a `UserError` names what has no counterpart here. The room knows nothing
else of this package, and does not import Paddle.
"""

from segslim.paddleseg.config_source import register

__all__ = ["register"]
