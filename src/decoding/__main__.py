"""The shell's way in: ``python -m decoding``."""

import argparse
import json
import sys
from pathlib import Path

from .measurement import Workload, compare
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


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m decoding",
        description="Measure decoding loops, from naive to pipelined, and record the book's notebooks. "
        f"The rungs of the ladder: {', '.join(RUNGS)}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_measure(commands)
    record = commands.add_parser(
        "record", help="execute notebooks in place on this machine's GPU and stamp them"
    )
    redraw = commands.add_parser(
        "redraw", help="execute notebooks in place with the book's records, without a GPU"
    )
    run = commands.add_parser(
        "run", help="execute copies of the notebooks on this machine into _build/run"
    )
    student = commands.add_parser(
        "student", help="write copies of the notebooks without outputs and solutions"
    )
    address = commands.add_parser(
        "address", help="write the repository's address of _config.yml into the notebooks"
    )
    for command in (record, redraw, run):
        command.add_argument(
            "notebooks", nargs="*", help="numbers or names, for example 02; default: all"
        )
    record.add_argument(
        "--reuse-days",
        type=float,
        metavar="N",
        help="read records up to N days old in place of measuring again, if they were made by the same "
        "code on this kind of machine; default: six hours. The page tells the days",
    )
    for command in (record, redraw, run, student, address):
        command.add_argument("--folder", default="notebooks", help="where the notebooks are")
    chosen = parser.parse_args(arguments)
    if chosen.command == "measure":
        return _measure(chosen)
    from . import recording  # here, since measuring needs nothing of Jupyter

    if chosen.command == "student":
        return recording.student_notebooks(chosen.folder)
    if chosen.command == "address":
        return recording.write_address(chosen.folder)
    if chosen.command == "record":
        return recording.record_notebooks(chosen.folder, chosen.notebooks, chosen.reuse_days)
    work = {"redraw": recording.redraw_notebooks, "run": recording.run_notebooks}[chosen.command]
    return work(chosen.folder, chosen.notebooks)


def _add_measure(commands):
    defaults = Workload()
    parser = commands.add_parser(
        "measure",
        help="time rungs, each in a fresh process, and print each beside the one before",
        description="Every rung runs in a process of its own: once cold, then REPEATS timed runs (median and "
        "range), then, on a GPU, one run for its memory and one for its busy time.",
    )
    parser.add_argument("rungs", nargs="+", metavar="RUNG", help=", ".join(RUNGS))
    parser.add_argument(
        "--model",
        default=defaults.model,
        help="gpt2, gpt2-medium, a hub id, …; default: %(default)s",
    )
    for name, what in (
        ("batch_size", "rows"),
        ("prompt_tokens", "tokens in each row's prompt"),
        ("new_tokens", "tokens to generate in each row"),
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            default=getattr(defaults, name),
            help=f"{what}; default: %(default)s",
        )
    parser.add_argument("--dtype", help="bfloat16, float16, float32; default: what the device has")
    parser.add_argument("--device", help="cuda or cpu; default: the GPU if there is one")
    parser.add_argument(
        "--repeats", type=int, default=defaults.repeats, help="timed runs; default: %(default)s"
    )
    parser.add_argument("--compile-mode", help="for compiled rungs: reduce-overhead or default")
    parser.add_argument("--cache-length", type=int, help="positions of the static cache")
    parser.add_argument(
        "--no-check",
        nargs="+",
        default=[],
        metavar="RUNG",
        help="measure these rungs, too, without a stop check: the bound for a pipeline",
    )
    parser.add_argument("--json", metavar="FILE", help="write the records to FILE")


def _measure(chosen):
    workload = Workload(
        model=chosen.model,
        batch_size=chosen.batch_size,
        prompt_tokens=chosen.prompt_tokens,
        new_tokens=chosen.new_tokens,
        dtype=chosen.dtype,
        device=chosen.device,
        repeats=chosen.repeats,
    )
    given = {"compile_mode": chosen.compile_mode, "cache_length": chosen.cache_length}
    given = {key: value for key, value in given.items() if value is not None}
    items = []
    try:
        for names, check in ((chosen.rungs, True), (chosen.no_check, False)):
            for name in names:
                taken = find_rung(name).options
                options = {key: given[key] for key in given if key in taken}
                items.append((name, workload.but(stop_check=check), options))
    except ValueError as error:
        sys.exit(f"error: {error}")
    records = compare(items, workload)
    print(table(records))
    if chosen.json:
        Path(chosen.json).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return 0 if all(record["error"] is None for record in records) else 1


def table(records):
    """Return the records as lines of text, each beside the line before it."""
    heading = (
        f"{'rung':<26}{'ms per token (min–max)':>26}{'× before':>10}"
        f"{'× first':>9}{'cold ms':>9}{'reserved MiB':>14}{'change':>9}{'idle':>7}"
    )
    lines = [heading]
    first = before = None
    for record in records:
        name = record["label"] + ("" if record["variant"]["stop_check"] else ", no check")
        if record["variant"]["compile_mode"]:
            name += f" ({record['variant']['compile_mode']})"
        if record["error"]:
            lines.append(f"{name:<26}  {record['error']}")
            continue
        first = first or record
        lines.append(f"{name:<26}" + _row(record, before, first))
        before = record
    lines += sorted({note for record in records for note in record["notes"]})
    return "\n".join(lines)


def _row(record, before, first):
    spread = record["time"]["per_token_ms"]
    time = f"{spread['median']:.3f} ({spread['min']:.3f}–{spread['max']:.3f})"
    ratios = [
        f"{other['time']['per_token_ms']['median'] / spread['median']:.2f}" if other else ""
        for other in (before, first)
    ]
    row = f"{time:>26}{ratios[0]:>10}{ratios[1]:>9}{record['time']['cold_per_token_ms']:>9.2f}"
    if record["memory"]:
        reserved = record["memory"]["peak_reserved_mib"]
        change = reserved - before["memory"]["peak_reserved_mib"] if before else None
        row += f"{reserved:>14.0f}" + (f"{change:>+9.0f}" if before else " " * 9)
    if record["gpu"]:
        row += f"{record['gpu']['idle_share']:>7.0%}"
    return row


if __name__ == "__main__":
    sys.exit(main())
