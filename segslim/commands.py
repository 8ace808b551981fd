"""The commands beside run.py, `python -m segslim store | predict | deployment | devices | report | network`.

`python -m segslim.store`, `.predict`, `.reporting` and `.networks` are short for four of them. Only
`predict --engine paddle` imports Paddle. A command is a function here: it takes the parsed options, prints, and returns
the exit code.
"""

import argparse
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len

from segslim.command_line import expanded
from segslim.deployment.engines import ENGINES
from segslim.errors import UserError, exit_code_of
from segslim.files import read_plain
from segslim.screen import Screen
from segslim.streams import complain, printable_line

if TYPE_CHECKING:
    from segslim.evaluation.windows import Augmented
    from segslim.predict.predictor import Predictor

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command: 0 when all is well, 1 when a part failed, 2 for a mistake, which is one line on stderr."""
    typed = sys.argv[1:] if arguments is None else arguments
    if typed[:1] == ["store"]:  # as it is typed to run.py
        typed = [part for text in typed for part in (("--store", text[6:]) if text.startswith("store=") else (text,))]

    def command() -> int:
        options = _parser().parse_args(typed)
        return int(options.run(options))

    return exit_code_of(command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m segslim", description="The commands beside run.py.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_store(commands.add_parser("store", help="the store: what it holds, what a run would reuse, what may go"))
    _add_predict(commands.add_parser("predict", help="a deployed folder on images"))
    deployment = commands.add_parser(
        "deployment",
        help="what a run deployed, copied for use elsewhere",
        description="Copies the deployed folder, and writes the mIoU that was measured of it into it.",
    )
    deployment.add_argument("export", type=_path, metavar="RUN", help="a run's folder (outputs/...), or `last`")
    deployment.add_argument("folder", type=_path, help="where to write, made where it does not exist")
    deployment.set_defaults(run=write_deployment)
    report = commands.add_parser("report", help="the page of a run, or of a sweep with its table and sweep.csv")
    report.add_argument("folder", type=_path, help="of a run (outputs/DATE/TIME-...) or a sweep (multirun/DATE/TIME)")
    report.add_argument("--time", action="store_true", help="time again, alone, the jobs that ran beside others")
    report.set_defaults(run=write_report_page)
    devices = commands.add_parser("devices", help="times of another machine without ssh (over ssh: benchmark.host)")
    verbs = devices.add_subparsers(title="commands", metavar="COMMAND", required=True)
    packing = verbs.add_parser(
        "pack",
        help="one file that times a run's networks on any machine",
        description="`python3 FILE` there writes results.json, which run.py reads by benchmark.results=results.json.",
    )
    packing.add_argument("run_folder", type=_path, metavar="RUN", help="a run's folder (outputs/...), or `last`")
    packing.add_argument(
        "--output", type=_path, default=Path("devices.zip"), metavar="FILE", help="default: devices.zip"
    )
    packing.add_argument("--iters", type=_whole(1), default=50, help="as benchmark.iters; default: 50")
    packing.add_argument(
        "--seconds",
        type=_whole(0),
        default=10,
        help="as benchmark.seconds; default: 10",
    )
    packing.add_argument("--threads", type=_whole(0), default=0, help="of the engines; default: all cores there")
    packing.set_defaults(run=pack_devices)
    network = commands.add_parser(
        "network",
        help="a network for use without segslim",
        description="Writes model.pdparams, and load_network.py, which rebuilds the network with PaddleSeg alone.",
    )
    network.add_argument("checkpoint", help="a checkpoint: .segslim/artifacts/retrain-.../, or train-..., prune-...")
    network.add_argument("folder", help="where to write")
    network.set_defaults(run=write_network)
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.description = "Looks after the store of artifacts. Without a command: list."
    parser.add_argument("--store", type=_path, default=Path(".segslim"), metavar="DIR", help="default: .segslim")
    parser.set_defaults(run=list_store)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    verbs.add_parser("list", help="every artifact: size, age, what it is, and what it was made from")
    explain = verbs.add_parser("explain", help="what a run would reuse, and why it would make the rest")
    explain.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as typed to run.py: compress=prune ...")
    explain.add_argument("--config-dir", "-cd", type=_path, metavar="DIR", help="configs of one's own, as of run.py")
    explain.set_defaults(run=explain_run)
    verify = verbs.add_parser("verify", help="reads every file and compares its SHA-256; exit code 1 for damage")
    verify.set_defaults(run=verify_store)
    collect = verbs.add_parser("collect", help="deletes what no run needs now, the least recently used first")
    collect.add_argument("--older-than", type=parse_age, metavar="AGE", help="not used for 12h, 30d, 8w")
    collect.add_argument("--down-to", type=parse_size, metavar="SIZE", help="until 500MB, 10GB are left")
    collect.add_argument("--dry-run", action="store_true", help="only says what would be deleted")
    collect.set_defaults(run=collect_store)
    for verb in verbs.choices.values():  # as it is typed: before the verb, or after it
        verb.add_argument("--store", type=_path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes the class of every pixel of images, of a video, or of what a camera sees. "
        "Needs the export folder alone, and Paddle only for --engine paddle."
    )
    parser.add_argument(
        "export", type=_path, metavar="RUN", help="a run's folder (outputs/...), `last`, or an export folder"
    )
    parser.add_argument(
        "source",
        type=_path,
        nargs="?",
        metavar="SOURCE",
        help="an image, a folder of images at any depth, a video, or the number of a camera",
    )
    parser.add_argument(
        "--engine", choices=ENGINES, help="default: the one that the run selected; of an export folder, onnxruntime"
    )
    parser.add_argument("--output", type=_path, help="default: predictions/")
    parser.add_argument(
        "--write",
        nargs="+",
        metavar="KIND",
        help="masks, overlays (both by default), polygons (GeoJSON), coco (coco.json), areas (areas.csv)",
    )
    parser.add_argument("--frames", type=_whole(1), help="of a video or a camera; default: all, until Ctrl-C")
    parser.add_argument("--threads", type=_whole(0), default=0, help="of the engine; default: all cores")
    page = parser.add_argument_group("a page to try it", "photos and the webcam, the baseline network beside it")
    page.add_argument("--serve", action="store_true", help="answers on this machine in place of SOURCE, until Ctrl-C")
    page.add_argument("--host", help="default: 127.0.0.1, this machine alone; 0.0.0.0 for all who reach it")
    page.add_argument("--port", type=_whole(0), help="default: 7860; 0 for any that is free")
    large = parser.add_argument_group("large images, and averages", "PaddleSeg's options of the same names")
    large.add_argument("--is_slide", action="store_true", help="windows slide over the image instead of shrinking it")
    large.add_argument(
        "--crop_size", type=_whole(1), nargs=2, metavar=("W", "H"), help="of windows; default: the network's"
    )
    large.add_argument(
        "--stride", type=_whole(1), nargs=2, metavar=("W", "H"), help="from window to window; default: crop_size"
    )
    large.add_argument("--aug_pred", action="store_true", help="the mean over --scales and flips")
    large.add_argument("--scales", type=_scale, nargs="+", metavar="SCALE", help="default: 1.0")
    large.add_argument("--flip_horizontal", action="store_true", help="mirrored, beside the image as it is")
    large.add_argument("--flip_vertical", action="store_true", help="upside down, too")
    parser.set_defaults(run=predict)


# --- store


def list_store(options: argparse.Namespace) -> int:
    from segslim.store import distinguishing, inventory

    artifacts = inventory(options.store)
    names = {artifact.fingerprint: artifact.name for artifact in artifacts}
    rows = [("artifact", "size", "used", "took", "what it is", "made from")]
    for artifact, settings in zip(artifacts, distinguishing(artifacts), strict=True):
        parents = artifact.recipe.get("parents", {}).values()
        sources = ", ".join(dict.fromkeys(names.get(parent, f"{parent[:8]} (deleted)") for parent in parents))
        what = "; ".join([artifact.manifest.get("result", "cannot be read"), *settings])
        seconds = artifact.manifest.get("seconds")
        took = "?" if seconds is None else f"{seconds:.1f} s"
        age = age_text(time.time() - artifact.last_used)
        rows.append((artifact.name, size_text(artifact.size), age, took, what, sources))
    print(_columns(rows))
    total = size_text(sum(artifact.size for artifact in artifacts))
    print(printable_line(f"{_count(len(artifacts), 'artifact')}, {total}, in {options.store}"))
    return 0


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    """The rows as lines, their second to fourth column to the right. Rich's table takes 5 s for 10,000 of them."""
    cells = [[printable_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        blanks = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        padded = (
            b + cell if at in (1, 2, 3) else cell + b for at, (cell, b) in enumerate(zip(row, blanks, strict=True))
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def explain_run(options: argparse.Namespace) -> int:
    from segslim.pipeline.store import Store
    from segslim.store import explain, inventory, plan_run

    plan, root = plan_run(options.overrides, options.store, options.config_dir)
    console = _console()
    for explanation in explain(plan, Store(root), inventory(root)):
        label = explanation.step.label
        if explanation.stored:
            console.print(f"  {label:<20}stored  {explanation.stored.name}")
            continue
        first, *others = explanation.reasons
        console.print(f"  {label:<20}runs    {first}")
        for other in others:
            console.print(f"  {'':<20}        {other}")
    return 0


def verify_store(options: argparse.Namespace) -> int:
    from segslim.pipeline.store import fault
    from segslim.store import inventory

    artifacts, damaged, console = inventory(options.store), 0, _console()
    for artifact in artifacts:
        found = fault(artifact.path, artifact.fingerprint)
        if found is not None:
            damaged += 1
            console.print(f"  {artifact.name}: {found}")
    remedy = "; the next run that needs one makes it again" if damaged else ""
    console.print(f"{_count(len(artifacts), 'artifact')}: {damaged} damaged{remedy}")
    return 1 if damaged else 0


def collect_store(options: argparse.Namespace) -> int:
    from segslim.store import collect

    if options.older_than is None and options.down_to is None:
        raise UserError("collect: give --older-than 30d, --down-to 10GB, or both")
    done = collect(options.store, options.older_than, options.down_to, options.dry_run)
    console = _console()
    for artifact in done.artifacts:
        age = age_text(time.time() - artifact.last_used)
        console.print(f"  {artifact.name}  {size_text(artifact.size)}  used {age} ago")
    for path in done.leftovers:
        console.print(f"  {path.relative_to(options.store)}")
    verb = "would be deleted" if options.dry_run else "deleted"
    kept = f"; {done.kept_in_use} kept, which a run in progress uses" if done.kept_in_use else ""
    count = len(done.artifacts) + len(done.leftovers)
    console.print(f"{_count(count, 'folder')}, {size_text(done.size)}, {verb}{kept}")
    return 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def parse_age(text: str) -> float:
    """ "30d" -> 2592000.0 s. Raises ArgumentTypeError for anything else than a number and s, m, h, d or w."""
    return _parse(text, _SECONDS)


def parse_size(text: str) -> int:
    """ "10GB" -> 10000000000. Raises ArgumentTypeError for anything else than a number and B, KB, MB, GB or TB."""
    return int(min(_parse(text, _BYTES), 1e30))  # what is larger is no integer


def _parse(text: str, units: Mapping[str, int]) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", text)
    by_name = {unit.lower(): count for unit, count in units.items()}
    if match is None or match[2].lower() not in by_name:
        raise argparse.ArgumentTypeError(f"{text}: should be a number and one of {', '.join(units)}")
    return float(match[1]) * by_name[match[2].lower()]


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: should be a whole number from {least}")
        return int(text)

    return parse


def _scale(text: str) -> float:
    if not re.fullmatch(r"\d*\.?\d+", text) or not 0 < float(text) <= 16:
        raise argparse.ArgumentTypeError(f"{text}: should be above 0, and at most 16")
    return float(text)


def age_text(seconds: float) -> str:
    """The largest unit that fits: 93784 -> "26 h"."""
    for unit, limit in (("s", 120), ("m", 120), ("h", 48), ("d", float("inf"))):
        count = max(seconds, 0.0) / _SECONDS[unit]
        if count < limit:
            break
    return f"{count:.0f} {unit}"


def size_text(count: float) -> str:
    """Three digits and a unit: 5730000 -> "5.73 MB"."""
    for unit in _BYTES:
        scaled = count / _BYTES[unit]
        if scaled < 1000:
            break
    return f"{scaled:.3g} {unit}"


def _path(text: str) -> Path:
    return Path(expanded(text))


def _console() -> Screen:
    console = Screen()
    if not console.is_terminal:
        console.width = 1000  # a line stays a line, for grep
    return console


# --- the others


def predict(options: argparse.Namespace) -> int:
    """0 when all was predicted, 1 when some images were skipped, 128 + N when signal N ended it before."""
    from segslim.predict.results import KINDS, Results, jobs_of
    from segslim.predict.sources import predict_images, predict_video, video_of

    if options.serve:
        return serve(options)
    if options.source is None:
        raise UserError("predict: give SOURCE, what is to be predicted, or --serve for a page to try it")
    if options.host is not None or options.port is not None:
        raise UserError("--host and --port do nothing without --serve: give it, too")
    found, source = _deployed(options.export), options.source
    output, kinds = options.output or Path("predictions"), options.write or ["masks", "overlays"]
    unknown = next((kind for kind in kinds if kind not in KINDS), None)
    if unknown is not None:
        raise UserError(f"--write {unknown}: should be of {', '.join(KINDS)}")
    video = video_of(source)
    jobs = jobs_of(source, output) if video is None else []
    if options.frames and video is None:
        raise UserError(f"--frames: {source} is no video and no camera; leave it out")
    console = Screen(stderr=True)
    with console.status(f"opening {found.folder.name}"):
        predictor = _opened(options, found)
    deployment = predictor.deployment
    results = Results(output, kinds, deployment.palette, deployment.classes)
    if video is None:
        done, unit = predict_images(predictor, jobs, results, console), "image"
    else:
        done, unit = predict_video(predictor, video, results, console, options.frames), "frame"
    if done.predicted:
        print(
            f"{_count(done.predicted, unit)} in {done.seconds:.1f} s: {done.predicted / done.seconds:.1f} {unit}s/s; "
            f"in {predictor.session.name} alone {1000 * done.engine_seconds / done.predicted:.1f} ms"
            f" {'an image' if unit == 'image' else 'a frame'}"
        )
        print(printable_line(results.written()))
    if done.shrunk:
        print(
            f"{done.shrunk} of {len(jobs)} images are shrunk by more than 4 for this network: small things vanish;"
            " --is_slide slides windows over them",
            file=sys.stderr,
        )
    if done.skipped:
        print(f"{done.skipped} of {len(jobs)} images skipped", file=sys.stderr)
    if done.stopped_by:
        print(f"stopped after {_count(done.predicted, unit)}: what was predicted is written", file=sys.stderr)
        return 128 + done.stopped_by
    return 1 if done.skipped else 0


def serve(options: argparse.Namespace) -> int:
    """128 + N when signal N, as Ctrl-C, ended it: nothing else does."""
    from segslim.predict.serve import Server

    if options.source or options.output or options.write or options.frames:
        raise UserError(
            "--serve takes images from its page, and writes none: leave SOURCE, --output, --write, --frames out"
        )
    deployed = {"compressed": _deployed(options.export)}
    try:
        deployed = {"baseline": _deployed(options.export, "baseline"), **deployed}
    except UserError as error:
        complain(f"the compressed network alone: {error}")
    if deployed.get("baseline") == deployed["compressed"]:  # an export folder
        del deployed["baseline"]
    with Server(options.host or "127.0.0.1", 7860 if options.port is None else options.port) as server:
        for role, found in deployed.items():
            with Screen(stderr=True).status(f"opening {role}"):
                server.networks[role] = _opened(options, found)
        print(printable_line("http://{}:{}: drop a photo there; Ctrl-C ends it".format(*server.server_address)))
        number = server.run()
    complain(f"stopped by {signal.Signals(number).name}")
    return 128 + number


def _opened(options: argparse.Namespace, found: "_Deployed") -> "Predictor":
    from segslim.predict.predictor import open_predictor

    engine = options.engine or found.engine
    # where another engine is asked for, the precision that was selected is not its own
    precision = found.precision if engine == found.engine else "float32"
    return open_predictor(found.folder, engine, options.threads, _augmented(options, found.folder), precision)


@dataclass(frozen=True)
class _Deployed:
    """An export folder, and what runs it."""

    folder: Path
    engine: str = "onnxruntime"
    precision: str = "float32"
    miou: float | None = None


def _deployed(given: Path, role: str = "compressed") -> _Deployed:
    """What a run's folder, or `last` for the latest run here, has deployed; any other folder is an export itself.

    role: "compressed", or "baseline" for the network before compression.
    """
    given = _latest(given)
    file = given / "report.json"
    if not file.exists():
        return _Deployed(given)
    try:
        network = read_plain(file)[role]
        folder, engine = network["deployment"], network["engine"]
        precision, miou = (network["session"] or {}).get("precision", "float32"), network.get("miou")
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{file}: cannot be read; give the export folder") from None
    if folder is None and role == "baseline":
        raise UserError(f"{given}: deployed no baseline")
    if folder is None or not Path(folder).is_dir():
        raise UserError(f"{given}: what it deployed has been deleted; its command makes it again, see report.html")
    return _Deployed(Path(folder), engine or "onnxruntime", precision, miou)


def _latest(given: Path) -> Path:
    """The folder that is given; of `last` that of the latest run here."""
    if str(given) != "last" or given.exists():
        return given
    reports = [file for root in ("outputs", "multirun") for file in Path(root).rglob("report.json")]
    if not reports:
        raise UserError("last: neither outputs/ nor multirun/ here holds a run; give its folder")
    return max(reports, key=lambda file: file.stat().st_mtime).parent


def write_deployment(options: argparse.Namespace) -> int:
    from segslim.deployment.deployment import Deployment

    found = _deployed(options.export)
    deployment = Deployment.load(found.folder)
    if options.folder.exists() and any(options.folder.iterdir() if options.folder.is_dir() else [options.folder]):
        raise UserError(f"{options.folder}: is there already: give a folder that does not exist")
    try:
        made = (
            deployment.save(options.folder) if found.miou is None else deployment.with_miou(found.miou, options.folder)
        )
    except OSError as error:
        raise UserError(f"{options.folder}: cannot be written ({error.strerror}): give another folder") from None
    files = sorted(path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file())
    measured = "no mIoU was measured" if found.miou is None else f"mIoU {found.miou:.4f}"
    print(printable_line(f"{made.folder}: {', '.join(files)}; {measured}"))
    return 0


def pack_devices(options: argparse.Namespace) -> int:
    from segslim.deployment.deployment import Deployment
    from segslim.devices.packed import pack, random_batch

    folder = _latest(options.run_folder)
    try:
        report = read_plain(folder / "report.json")
        found = {role: Path(report[role]["deployment"]) for role in ("baseline", "compressed")}
        size = report["size"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder}: holds no report.json of a run that deployed something; give a run's folder"
        ) from None
    deployments = {role: Deployment.load(path) for role, path in found.items()}
    batch = random_batch(size, deployments["compressed"].channels)
    timing = {"iters": options.iters, "seconds": options.seconds}
    engines = pack(options.output, deployments, batch, options.threads, timing)
    print(printable_line(f"{options.output}: for {', '.join(engines)}; there, `python3 {options.output.name}`"))
    return 0


def _augmented(options: argparse.Namespace, export: Path) -> "Augmented | None":
    """How images are predicted by windows, scales and flips, where one of them is asked for.

    Raises UserError for an option that would be ignored, as PaddleSeg ignores it, and for windows with gaps.
    """
    from segslim.deployment.deployment import Deployment
    from segslim.evaluation.windows import Augmented

    needing_it = {"is_slide": ("stride", "crop_size"), "aug_pred": ("scales", "flip_horizontal", "flip_vertical")}
    for switch, needing in needing_it.items():
        for name in needing:
            if getattr(options, name) and not getattr(options, switch):
                raise UserError(f"--{name} does nothing without --{switch}: give it, too")
    if not (options.is_slide or options.aug_pred):
        return None
    crop = None
    if options.is_slide:
        crop = tuple(options.crop_size) if options.crop_size else Deployment.load(export).input_size
        if crop is None:
            raise UserError("--is_slide: this network takes images of any size; give --crop_size W H")
    flips = [side for side in ("horizontal", "vertical") if getattr(options, f"flip_{side}")]
    try:
        return Augmented(crop, tuple(options.stride) if options.stride else None, options.scales or [1.0], flips)
    except UserError as error:  # which starts with the name of what is wrong
        raise UserError(f"--{error}") from None


def write_report_page(options: argparse.Namespace) -> int:
    from segslim.reporting.jobs import is_sweep
    from segslim.reporting.page import write_page
    from segslim.reporting.sweep import write_sweep
    from segslim.sweep import time_again

    if is_sweep(options.folder):
        if options.time:
            time_again(options.folder)
        write_sweep(options.folder)
    else:
        print(printable_line(str(write_page(options.folder))))
    return 0


def write_network(options: argparse.Namespace) -> int:
    from segslim.networks.checkpoint import write_standalone

    written = write_standalone(options.checkpoint, options.folder)
    print(printable_line(f"{options.folder}: {', '.join(written)}"))
    return 0
