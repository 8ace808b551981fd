"""PaddleSeg's YAML configs as ours: `paddleseg=configs/mine.yml` on the command line. No Paddle here."""

from segslim.paddleseg.source import register

__all__ = ["register"]
