"""python -m segslim.store [list | explain OVERRIDES | verify | collect --older-than 30d --down-to 10GB]"""

import argparse
import sys
from pathlib import Path

from segslim.errors import exit_code_of
from segslim.store import commands
from segslim.store.units import bytes_of, seconds_of


def main(arguments: list[str] | None = None) -> int:
    """0 when all is well, 1 when `verify` found damage, 2 for a mistake in the command."""
    options = _parser().parse_args(arguments)
    return exit_code_of(lambda: int(options.command(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m segslim.store", description="Looks after the store of artifacts.")
    parser.add_argument("--store", type=Path, default=Path(".segslim"), metavar="DIR", help="default: .segslim")
    parser.set_defaults(command=commands.show)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    verbs.add_parser("list", help="every artifact: size, age, what it is, and what it was made from")
    explain = verbs.add_parser("explain", help="what a run would reuse, and why it would make the rest")
    explain.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as typed to run.py: compress=prune ...")
    explain.set_defaults(command=commands.explain)
    verify = verbs.add_parser("verify", help="reads every file and compares its SHA-256; exit code 1 for damage")
    verify.set_defaults(command=commands.verify)
    collect = verbs.add_parser("collect", help="deletes what no run needs now, the least recently used first")
    collect.add_argument("--older-than", type=seconds_of, metavar="AGE", help="not used for 12h, 30d, 8w")
    collect.add_argument("--down-to", type=bytes_of, metavar="SIZE", help="until 500MB, 10GB are left")
    collect.add_argument("--dry-run", action="store_true", help="only says what would go")
    collect.set_defaults(command=commands.collect)
    return parser


if __name__ == "__main__":
    sys.exit(main())
