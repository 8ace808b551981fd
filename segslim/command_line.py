"""What is typed: overrides as Hydra's grammar takes them, what Hydra refuses, each in one line, and what is told of
both: --help, --version, and the shell's completion.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from segslim.errors import UserError

#: What took the place of compress.target and of compress=prune_latency.
TO_A_LATENCY = "compress=front compress.latency_ratio=0.7 finds the best network of 0.7 of the time"
CONF = Path(__file__).parents[1] / "conf"
_OVERRIDE = re.compile(r"([+~]*[\w/@.-]+)=(.*)", re.DOTALL)
_WITH_VALUE = {  # options of Hydra's that are followed by a value
    *("--cfg", "-c", "--package", "-p", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--experimental-rerun", "--info", "-i"),
}
MULTI_LABEL = "multi-label segmentation is not supported: a pixel has one class here; train one network for each class"
#: PaddleSeg's flags that are typed to its train.py, val.py and export.py, and what is typed here.
PADDLESEG_FLAGS = {
    "config": "paddleseg=FILE.yml",
    "model_path": "train.checkpoint=FILE",
    "pruning_ratio": "compress.ratio=0.3",
    "retraining_iters": "retrain.iters=1000",
    **{name: f"train.{name}=VALUE" for name in ("iters", "batch_size", "learning_rate", "save_interval")},
    "save_dir": "store=FOLDER, and hydra.run.dir=FOLDER for reports",
    "do_eval": "train.eval_interval=100",
    "use_ema": "train.ema=0.999",
    "early_stop_intervals": "train.early_stop=5",
    "use_vdl": "logger=visualdl",
    "precision": "train.amp=true for fp16, with device=gpu",
    "amp_level": "train.amp=true, whose level is O1",
    **dict.fromkeys(("is_slide", "crop_size"), "evaluation.crop_size=[512,512]"),
    "stride": "evaluation.stride=[340,340]",
    **dict.fromkeys(("aug_eval", "scales"), "evaluation.scales=[0.75,1.0]"),
    **{f"flip_{side}": f"evaluation.flips=[{side}]" for side in ("horizontal", "vertical")},
    "auc_roc": "evaluation.auc_roc=true",
    "input_shape": "dataset.size=[WIDTH,HEIGHT]",
}
#: At the beginning of a value, or of an entry of a list: Hydra takes \ for its own where \ or a comma follows.
_WINDOWS_PATH = re.compile(r"(?:^|[\[,]\s*)(?:[A-Za-z]:\\|\\\\)")
_STRUCTURED = re.compile(
    r"[\[{]|\w+\("
)  # a list, a mapping, or choice(...): to quote it would hide what is wrong in it


def quoted(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, with quotes around each value that is plain text to a person and not to Hydra: a path
    with "=", brackets, a blank, letters beyond ASCII or ~ in it.

    Raises UserError, naming it, for an argument that quotes alone do not make valid, and for one that is no override.
    """
    if {"-m", "--multirun"} & {*arguments} and {"-c", "--cfg"} & {*arguments}:
        raise UserError("-m runs many jobs, and --cfg shows the config of one: leave one of them out")
    before = ["", *arguments]
    return [_argument(argument, earlier) for earlier, argument in zip(before, arguments, strict=False)]


def _argument(argument: str, earlier: str) -> str:
    if earlier in _WITH_VALUE:
        return argument
    if argument.startswith("--"):
        name, _, value = argument.removeprefix("--").partition("=")
        if name in PADDLESEG_FLAGS:
            raise UserError(f"--{name}: is a flag of PaddleSeg; here type {PADDLESEG_FLAGS[name]}")
        if name == "use_multilabel":
            raise UserError(f"--{name}: {MULTI_LABEL}")
        if name.partition(".")[0] in (*groups(), *_top_level()):
            raise UserError(f"{argument}: keys are typed without dashes, as {name}={value or 'VALUE'}")
        return argument
    if argument.startswith("-"):
        return argument
    if re.fullmatch(r"[\w.-]+", argument):  # neither KEY=VALUE nor ~KEY
        near = [f"{group}={option}" for group in groups() for option in options(group) if option == argument]
        near = near or [key for key in _all_keys() if key.rpartition(".")[2] == argument or key == argument]
        remedy = (
            f"did you mean {' or '.join(near[:3])}{'=VALUE' if '=' not in near[0] else ''}?" if near else "see --help"
        )
        raise UserError(f"{argument}: should be KEY=VALUE; {remedy}")
    return _quoted(argument)


def _quoted(argument: str) -> str:
    match = _OVERRIDE.fullmatch(argument)
    if match is None:
        return argument
    key, value = match.groups()
    if (value == "null" and (CONF / key).is_dir()) or argument == "paddleseg=null":  # a ValueError of Hydra's
        raise UserError(f"{argument}: choose an option, or leave it out by ~{key}")
    if key.startswith("hydra."):  # of these nobody but Hydra sees the value
        value = expanded(value)
    if _WINDOWS_PATH.search(value) and (listed := _quoted_list(key, value)) is not None:
        return listed
    if _WINDOWS_PATH.match(value) and not {"[", ","} & {*value}:
        return f"{key}={quoted_value(value)}"
    try:
        OverridesParser.create().parse_override(f"{key}={value}")
        return f"{key}={value}"
    except HydraException as error:
        if (listed := _quoted_list(key, value)) is not None:
            return listed
        if _STRUCTURED.match(value) or "," in value or value[:1] in ("'", '"'):
            reason, example = str(error).strip().partition("\n")[0], quoted_value("...")
            raise UserError(
                f"{argument}: {reason}; where the value is text or a path, put it into two pairs of quotes, as in "
                f'"{key}={example}"'
            ) from None
        return f"{key}={quoted_value(value)}"


def _quoted_list(key: str, value: str) -> str | None:
    """The override with quotes around those entries of a plain list that need them; None where it is none."""
    if re.fullmatch(r"\[[^][{}'\"]*\]", value) is None:
        return None
    entries = []
    for entry in map(str.strip, value[1:-1].split(",")):
        try:
            OverridesParser.create().parse_override(f"{key}=[{entry}]")
            entries.append(quoted_value(entry) if _WINDOWS_PATH.match(entry) else entry)
        except HydraException:
            entries.append(quoted_value(entry))
    return f"{key}=[{','.join(entries)}]"


def quoted_value(text: str) -> str:
    """The text as a value of Hydra's grammar, whatever it holds."""
    return QuotedString(text, Quote.single).with_quotes()


def expanded(text: str) -> str:
    """The path that a shell would make of ~ or $NAME at its beginning, which it leaves alone behind KEY=.

    Raises UserError for the home of a user that there is not.
    """
    if text.startswith("~"):
        path = os.path.expanduser(text)  # noqa: PTH111 (that of pathlib drops a trailing slash)
        if re.match(r"~[\w.-]*(/|$)", path):  # a folder of that name would be made
            raise UserError(f"{text}: there is no user of that name; give the folder's path")
        return path
    return os.path.expandvars(text) if re.match(r"\$\w+(/|$)", text) else text


def in_one_line(error: Exception) -> str:
    """Of an unknown option or key, what there is; of all else, what was said first, and by what it was caused."""
    cause = error.__cause__ or error
    if isinstance(error, MissingConfigException) and error.options:
        if error.missing_cfg_file == "compress/prune_latency":
            return f"compress=prune_latency: there is no such option any more; {TO_A_LATENCY}"
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: there is no such option; {_remedy(option, error.options)}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and "is not in struct" in str(cause):
        known = cause.parent_node if isinstance(cause.parent_node, Mapping) else {}
        return _unknown_key(str(cause.full_key), (str(name) for name in known if name != "hydra"))
    said = (str(each).strip().partition("\n")[0] for each in (error, cause))
    return ": ".join(dict.fromkeys(filter(None, said)))


def _unknown_key(key: str, known: Iterable[str]) -> str:
    """`known` are the keys beside which it would stand."""
    if key == "compress.target":
        return f"{key}: there is no such key any more; {TO_A_LATENCY}"
    section, _, name = key.rpartition(".")
    elsewhere = [other for other in _all_keys() if other.rpartition(".")[2] == name]
    if not section and elsewhere:
        return f"{key}: there is no such key; did you mean {' or '.join(elsewhere)}?"
    having = [file.stem for file in sorted((CONF / section).glob("*.yaml")) if section and name in _keys(file)]
    if having:
        return f"{key}: there is no such key in this {section}; choose one that has it: {section}={' or '.join(having)}"
    return f"{key}: there is no such key; {_remedy(name, known, prefix=f'{section}.' if section else '')}"


def _keys(option: Path) -> dict[str, Any]:
    found = yaml.safe_load(option.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _top_level() -> list[str]:
    return [key for key in _keys(CONF / "config.yaml") if key not in ("defaults", "hydra")]


def _all_keys() -> list[str]:
    """Every key that can be typed, `train.iters`, in the order of conf/, without those of single networks."""
    found = [
        f"{name}.{key}" for name, node in _keys(CONF / "config.yaml").items() if isinstance(node, dict) for key in node
    ]
    found += _top_level()
    for group in ("compress", "dataset", "engine", "logger"):
        found += [f"{group}.{key}" for option in options(group) for key in _keys(CONF / group / f"{option}.yaml")]
    hidden = ("defaults", "name", "hydra.")
    return [key for key in dict.fromkeys(found) if key.rpartition(".")[2] not in hidden and not key.startswith(hidden)]


def groups() -> list[str]:
    """The groups of conf/: model, model/loss, ..."""
    folders = sorted({file.parent for file in CONF.glob("*/**/*.yaml")})
    return [folder.relative_to(CONF).as_posix() for folder in folders]


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


SHORTEST_CLAUSE = 8  # letters that tell something
HELP = """\
segslim makes segmentation networks small and fast.

  uv run run.py compress=prune
  uv run run.py -m compress=prune compress.ratio=0.1,0.2,0.3     (a sweep)
  uv run python -m segslim --help       (store, predict, report, network)
"""


def help_text(width: int, stages: Mapping[str, str]) -> str:
    """Each option of each group in one line, as its file in conf/ describes it; each stage; the keys.

    width: of the screen, in letters; stages: what each does.
    """
    parts = [HELP]
    for group in ("compress", *(group for group in groups() if group != "compress")):
        described = {option: described_as(CONF / group / f"{option}.yaml") for option in options(group)}
        parts.append(f"{group}: choose with {group}=OPTION\n{_listed(described, width)}\n")
    parts.append("paddleseg: FILE.yml, a config of PaddleSeg: paddleseg=configs/mine.yml\n")
    parts.append(f"stages, the steps of a strategy: compress.stages=[...]\n{_listed(stages, width)}\n")
    keys = {f"{name}.": ", ".join(node) for name, node in _keys(CONF / "config.yaml").items() if isinstance(node, dict)}
    keys.pop("hydra.", None)
    parts.append(
        f"keys: KEY=VALUE, as train.iters=1000 (--cfg job shows all with their values)\n{_listed(keys, width)}\n"
    )
    parts.append("-m (sweep)  --cfg job  --version  --info  --hydra-help")
    parts.append('completed as you type: eval "$(uv run run.py --shell-completion install=bash)"')
    return "\n".join(parts)


def described_as(file: Path) -> str:
    """The first sentence of an option's comment, which stands below the command that uses it."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = takewhile(
        lambda line: line.startswith("#"), (line for line in lines if not line.startswith("# @package"))
    )
    text = " ".join(line.lstrip("# ") for line in [*comment][1:])
    return re.split(r"(?<=[\w)])\.(?:\s|$)", text, maxsplit=1)[0]


def _listed(described: Mapping[str, str], width: int) -> str:
    column = max(map(len, described)) + 4
    room = max(width - column, 30)
    return "\n".join(f"  {name:<{column - 2}}{_cut(text, room)}".rstrip() for name, text in described.items())


def _cut(text: str, room: int) -> str:
    """As many whole clauses of a sentence as there is room for."""
    if len(text) <= room:
        return text
    ends = [match.start() for match in re.finditer(r"[,:;]\s| \(", text[: room + 1])]
    return text[: ends[-1]] if ends and ends[-1] >= SHORTEST_CLAUSE else shorten(text, room, placeholder=" ...")


def version() -> str:
    text = (CONF.parent / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'(?m)^version = "(.+)"', text)
    return f"segslim {found[1] if found else '?'}"


#: Completes `uv run run.py` and `python run.py`; Hydra's own knows the second alone.
COMPLETION = r"""
_segslim_before=$(complete -p uv 2> /dev/null | sed -n 's/.*-F \([^ ]*\).*/\1/p')
_segslim() {
    local words=($COMP_LINE) count=2
    [ "${words[0]}" == uv ] && count=3
    if [[ "${words[count - 1]}" != *run.py ]]; then
        [ "${words[0]}" == uv ] && [ -n "$_segslim_before" ] && "$_segslim_before" "$@"
        return
    fi
    local typed="${words[*]:count}" choices
    [[ "$COMP_LINE" == *" " ]] && typed="$typed "
    choices=$(COMP_LINE="python run.py $typed" "${words[@]:0:count}" -sc query=bash 2> /dev/null)
    COMPREPLY=($(compgen -o nospace -o default -W "$choices" -- "${words[COMP_CWORD]}"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _segslim uv python
"""


def _remedy(given: str, choices: Iterable[str], prefix: str = "") -> str:
    listed = list(choices)
    near = [prefix + choice for choice in difflib.get_close_matches(given, listed, n=3)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(prefix + one for one in listed)}" if listed else "remove it"
