"""Why a stage would run again: what differs between what is wanted and the nearest that was made."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segslim.pipeline.plan import Plan, Step
from segslim.pipeline.store import Store
from segslim.store.inventory import Item

ABSENT = object()  # in place of the value of a key that a recipe does not have


@dataclass(frozen=True)
class Explanation:
    """Of one step: the artifact that would be used, or else why it has to be made."""

    step: Step
    stored: Path | None  # its folder
    reasons: tuple[str, ...] = ()


def explain(plan: Plan, store: Store, items: Iterable[Item]) -> list[Explanation]:
    """One Explanation for each step of the plan, in order."""
    by_stage: dict[str, list[Item]] = {}
    by_fingerprint = {}
    for item in items:
        by_stage.setdefault(str(item.recipe.get("stage")), []).append(item)
        by_fingerprint[item.fingerprint] = item.name
    explained: dict[str, Explanation] = {}
    for step in plan.steps:
        found = store.find(step.stage.name, step.fingerprint)
        if found is not None:
            explained[step.fingerprint] = Explanation(step, found.path)
            continue
        missing = {
            kind: parent.label for kind, parent in step.inputs.items() if not explained[parent.fingerprint].stored
        }
        reasons = _reasons(step, by_stage.get(step.stage.name, []), missing, by_fingerprint)
        explained[step.fingerprint] = Explanation(step, None, tuple(reasons))
    return list(explained.values())


def differences(wanted: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{key: (made, wanted)} of two recipes, flat: a config key, or "version", "packages.onnx", "parents.checkpoint"."""
    before, after = _flat(made), _flat(wanted)
    pairs = {key: (before.get(key, ABSENT), after.get(key, ABSENT)) for key in sorted(before.keys() | after.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _reasons(step: Step, made: list[Item], missing: dict[str, str], names: Mapping[str, str]) -> list[str]:
    if any(item.fingerprint == step.fingerprint for item in made):
        return ["its files have changed since they were written: it is made again"]
    if not made:
        return ["nothing of this stage is in the store"]
    # the latest of those that differ least
    nearest = min(reversed(made), key=lambda item: len(differences(step.recipe, item.recipe)))
    reasons = [f"{label} runs" for label in dict.fromkeys(missing.values())]
    for key, (before, after) in differences(step.recipe, nearest.recipe).items():
        kind = key.removeprefix("parents.")
        if kind == key:
            reasons.append(_change(key, before, after))
        elif kind not in missing:
            reasons.append(_change(f"another {kind}", names.get(before, before), names.get(after, after)))
    return reasons


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    recipe = json.loads(json.dumps(recipe))  # as the store keeps it: a tuple is a list
    flat = {"version": recipe.get("version"), **recipe.get("config", {})}
    for part in ("packages", "parents", "identity"):
        flat.update(_spread(part, recipe.get(part)))
    return flat


def _spread(key: str, node: Any) -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return {key: node}
    return {k: v for name, child in node.items() for k, v in _spread(f"{key}.{name}", child).items()}


def _change(key: str, before: Any, after: Any) -> str:
    if before is ABSENT:
        return f"{key}: {_shown(after)}, which the stage did not depend on before"
    if after is ABSENT:
        return f"{key}: the stage depends on it no more"
    return f"{key}: {_shown(before)} -> {_shown(after)}"


def _shown(value: Any, width: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= width else f"{text[: width - 3]}..."
