"""What each command prints: tables on a terminal, plain lines elsewhere. No Paddle."""

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segslim.errors import UserError
from segslim.pipeline.plan import Plan, plan
from segslim.pipeline.store import Store, fault
from segslim.store import units
from segslim.store.collect import collect as take_out
from segslim.store.inventory import Item, distinguishing, inventory


def show(options: argparse.Namespace) -> int:
    items = inventory(options.store)
    names = {item.fingerprint: item.name for item in items}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("artifact", "size", "used", "took"):
        table.add_column(heading, justify="left" if heading == "artifact" else "right", no_wrap=True)
    table.add_column("what it is")
    table.add_column("made from")
    for item in items:
        parents = item.recipe.get("parents", {}).values()
        sources = ", ".join(names.get(parent, f"{parent[:8]} (gone)") for parent in parents)
        told = "; ".join([item.manifest.get("result", "cannot be read"), *distinguishing(item, items)])
        cells = (item.name, units.size(item.size), _age(item), units.took(item.manifest.get("seconds")), told, sources)
        table.add_row(*map(Text, cells))
    console = _console()
    console.print(table)
    total = units.size(sum(item.size for item in items))
    console.print(f"{len(items)} artifacts, {total}, in {options.store}", markup=False)
    return 0


def explain(options: argparse.Namespace) -> int:
    from segslim.store.explain import explain as explanations

    plan, root = planned(options.overrides, options.store)
    items = inventory(root)
    console = _console()
    for explanation in explanations(plan, Store(root), items):
        label = explanation.step.label
        if explanation.stored:
            console.print(f"  {label:<20}stored  {explanation.stored.name}", markup=False)
            continue
        first, *others = explanation.reasons
        console.print(f"  {label:<20}runs    {first}", markup=False)
        for other in others:
            console.print(f"  {'':<20}        {other}", markup=False)
    return 0


def verify(options: argparse.Namespace) -> int:
    items = inventory(options.store)
    console = _console()
    damaged = 0
    for item in items:
        found = fault(item.path, item.fingerprint)
        if found is not None:
            damaged += 1
            console.print(f"  {item.name}: {found}", markup=False)
    console.print(
        f"{len(items)} artifacts: {damaged} damaged; the next run that needs one makes it again", markup=False
    )
    return 1 if damaged else 0


def collect(options: argparse.Namespace) -> int:
    if options.older_than is None and options.down_to is None:
        raise UserError("collect: give --older-than 30d, --down-to 10GB, or both")
    done = take_out(options.store, options.older_than, options.down_to, options.dry_run)
    console = _console()
    for item in done.items:
        console.print(f"  {item.name}  {units.size(item.size)}  used {_age(item)} ago", markup=False)
    for path in done.leftovers:
        console.print(f"  {path.relative_to(options.store)}", markup=False)
    verb = "would go" if options.dry_run else "are gone"
    kept = f"; {done.kept_in_use} kept, which a run in progress uses" if done.kept_in_use else ""
    count = len(done.items) + len(done.leftovers)
    console.print(f"{count} folders, {units.size(done.size)}, {verb}{kept}", markup=False)
    return 0


def planned(overrides: list[str], store: Path) -> tuple[Plan, Path]:
    """The plan that run.py would follow, and the store in which it would look."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    from segslim.composition import CONF, in_one_line
    from segslim.config import validate
    from segslim.paddleseg import register
    from segslim.reporting.report import WANTED
    from segslim.stages import stages_for
    from segslim.stages.strategy import resolve

    register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = validate(compose("config", [f"store={store}", *overrides]))
    except HydraException as error:
        raise UserError(in_one_line(error)) from None
    return plan(resolve(config), stages_for(config), WANTED), Path(config.store)


def _age(item: Item) -> str:
    return units.age(max(0.0, time.time() - item.used))


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000
    return console
