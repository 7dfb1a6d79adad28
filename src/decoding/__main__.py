"""The shell's way in: ``python -m decoding``."""

import argparse
import json
import sys
from pathlib import Path

from .rungs import RUNGS, find_rung

EXAMPLES = """examples:
  the ladder at batch 1, each rung beside the one before:
    python -m decoding measure naive kv_cache static_cache compiled two_streams \\
        --batch-size 1 --prompt-tokens 32 --new-tokens 256 --dtype bfloat16
  how near is the pipeline to a loop that never looks whether to stop?
    python -m decoding measure compiled two_streams --no-check compiled
  run the book's notebooks on this machine's GPU and stamp them:
    python -m decoding record        (all of them)
    python -m decoding record 02     (one of them)
  draw the book's figures again from its records, without a GPU:
    python -m decoding redraw
"""
NOTEBOOK_COMMANDS = {
    "record": "execute notebooks in place on this machine's GPU and stamp them",
    "redraw": "execute notebooks in place with the book's records, without a GPU",
    "run": "execute copies of the notebooks on this machine into _build/run",
    "student": "write copies of the notebooks without outputs and solutions",
    "address": "write the repository's address of _config.yml into the notebooks",
}


def main(arguments=None):
    """Run the command that ``arguments`` (default: the shell's) ask for; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m decoding",
        description="Measure decoding loops, from naive to pipelined, and record the book's "
        f"notebooks. The rungs of the ladder: {', '.join(RUNGS)}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_measure(commands)
    for name, what in NOTEBOOK_COMMANDS.items():
        _add_notebook_command(commands.add_parser(name, help=what), name)
    chosen = parser.parse_args(arguments)
    return _measure(chosen) if chosen.command == "measure" else _with_notebooks(chosen)


def _add_measure(commands):
    from .measuring import Workload

    parser = commands.add_parser(
        "measure",
        help="time rungs, each in a fresh process, and print each beside the one before",
        description="Every rung runs in a process of its own: once cold, then REPEATS timed runs "
        "(median and range), then, on a GPU, one run for its memory and one for its busy time.",
    )
    add, of = parser.add_argument, Workload()
    default = "default: %(default)s"
    add("rungs", nargs="+", metavar="RUNG", help=", ".join(RUNGS))
    add("--model", default=of.model, help=f"gpt2, gpt2-medium, a hub id, …; {default}")
    add("--batch-size", type=int, default=of.batch_size, help=f"rows; {default}")
    add(
        "--prompt-tokens",
        type=int,
        default=of.prompt_tokens,
        help=f"tokens in each row's prompt; {default}",
    )
    add(
        "--new-tokens",
        type=int,
        default=of.new_tokens,
        help=f"tokens to generate in each row; {default}",
    )
    add("--dtype", help="bfloat16, float16, float32; default: what the device has")
    add("--device", help="cuda or cpu; default: the GPU if there is one")
    add("--repeats", type=int, default=of.repeats, help=f"timed runs; {default}")
    add("--compile-mode", help="for compiled rungs: reduce-overhead or default")
    add("--cache-length", type=int, help="positions of the static cache")
    add(
        "--no-check",
        nargs="+",
        default=[],
        metavar="RUNG",
        help="measure these rungs, too, without a stop check: the bound for a pipeline",
    )
    add("--json", metavar="FILE", help="write the records to FILE")


def _add_notebook_command(parser, name):
    if name in ("record", "redraw", "run"):
        parser.add_argument(
            "notebooks", nargs="*", help="numbers or names, for example 02; default: all"
        )
    if name == "record":
        parser.add_argument(
            "--reuse-days",
            type=float,
            metavar="N",
            help="read records up to N days old in place of measuring again, if they were made by "
            "the same code on this kind of machine; default: six hours. The page tells the days",
        )
    parser.add_argument("--folder", default="notebooks", help="where the notebooks are")


def _measure(chosen):
    from .measuring import Workload, compare
    from .measuring.report import table

    names = ("model", "batch_size", "prompt_tokens", "new_tokens", "dtype", "device", "repeats")
    workload = Workload(**{name: getattr(chosen, name) for name in names})
    options = {"compile_mode": chosen.compile_mode, "cache_length": chosen.cache_length}
    given = {key: value for key, value in options.items() if value is not None}
    asked = [(name, True) for name in chosen.rungs] + [(name, False) for name in chosen.no_check]
    try:
        items = [
            (name, workload.but(stop_check=check), _taken_by(name, given)) for name, check in asked
        ]
    except ValueError as error:
        sys.exit(f"error: {error}")
    records = compare(items, workload)
    print(table(records))
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return 1 if any(record.error for record in records) else 0


def _taken_by(name, options):
    """Return those of ``options`` that the rung takes."""
    taken = find_rung(name).options
    return {key: value for key, value in options.items() if key in taken}


def _with_notebooks(chosen):
    from .pages import execute

    folder = chosen.folder
    if chosen.command == "record":
        return execute.record_notebooks(folder, chosen.notebooks, chosen.reuse_days)
    if chosen.command == "redraw":
        return execute.redraw_notebooks(folder, chosen.notebooks)
    if chosen.command == "run":
        return execute.run_notebooks(folder, chosen.notebooks)
    if chosen.command == "student":
        return execute.student_notebooks(folder)
    return execute.write_address(folder)


if __name__ == "__main__":
    sys.exit(main())
