"""python -m segslim.predict EXPORT_DIR IMAGE_OR_FOLDER [--engine onnxruntime] [--output DIR] [--threads N]"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from segslim.deployment.engines import ENGINES
from segslim.errors import exit_code_of


def main(arguments: list[str] | None = None) -> int:
    """0 when every image was predicted, 1 when some were skipped, 2 when nothing could be done."""
    options = _parser().parse_args(arguments)
    return exit_code_of(lambda: _predict(options))


def _predict(options: argparse.Namespace) -> int:
    from segslim.predict.images import jobs_of
    from segslim.predict.predictor import open_predictor, predict_all, printable

    jobs = jobs_of(options.images, options.output)
    predictor = open_predictor(options.export, options.engine, options.threads)
    done = predict_all(predictor, jobs, Console(stderr=True))
    if done.predicted:
        print(
            f"{done.predicted} images in {done.seconds:.1f} s: {done.predicted / done.seconds:.1f} images/s; in "
            f"{predictor.session.name} alone {1000 * done.engine_seconds / done.predicted:.1f} ms an image"
        )
        print(printable(f"masks in {options.output / 'masks'}, overlays in {options.output / 'overlays'}"))
    if done.skipped:
        print(f"{done.skipped} of {len(jobs)} images skipped", file=sys.stderr)
    return 1 if done.skipped else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m segslim.predict",
        description="Writes the class of every pixel: masks (PNG with the classes' colours as palette) and overlays. "
        "Needs the export folder alone, and Paddle only for --engine paddle.",
    )
    parser.add_argument("export", type=Path, metavar="EXPORT_DIR", help="the folder with deploy.yaml and the model")
    parser.add_argument("images", type=Path, metavar="IMAGE_OR_FOLDER", help="an image, or a folder at any depth")
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime", help="default: onnxruntime")
    parser.add_argument("--output", type=Path, default=Path("predictions"), help="default: predictions/")
    parser.add_argument("--threads", type=int, default=0, help="of the engine; default: all cores")
    return parser


if __name__ == "__main__":
    sys.exit(main())
