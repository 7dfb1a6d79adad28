"""The shell's way in: ``python -m decoding``."""

import argparse
import json
import sys
from pathlib import Path

import torch

from .rungs import RUNGS, find_rung

SIZES = ("model", "batch_size", "prompt_tokens", "new_tokens", "dtype", "device", "repeats")
ON_A_CPU = {
    "model": "gpt2-tiny",
    "batch_size": 2,
    "prompt_tokens": 8,
    "new_tokens": 16,
    "repeats": 2,
}
IN_ASCII = str.maketrans({"×": "x", "–": "-", "−": "-", "→": "->", "µ": "u", "≈": "~", "…": "..."})

EXAMPLES = """examples:
  the ladder at batch 1, each rung beside the one before:
    python -m decoding measure naive kv_cache static_cache compiled two_streams \\
        --batch-size 1 --prompt-tokens 32 --new-tokens 256 --dtype bfloat16
  how near is the pipeline to a loop that never looks whether to stop?
    python -m decoding race compiled two_streams --no-check compiled --batch-size 1
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
    _add_race(commands)
    for name, what in NOTEBOOK_COMMANDS.items():
        _add_notebook_command(commands.add_parser(name, help=what), name)
    checking = commands.add_parser(
        "check-records", help="say whether the records of a card can join the book's"
    )
    checking.add_argument("records", metavar="FOLDER", help="book/records/<gpu>")
    _speak_what_the_terminal_can()
    chosen = parser.parse_args(arguments)
    if chosen.command in ("measure", "race"):
        return _measured(chosen, _measure if chosen.command == "measure" else _race)
    return _with_notebooks(chosen)


def _add_measure(commands):
    parser = commands.add_parser(
        "measure",
        help="time rungs, each in fresh processes, and print each beside the one before",
        description="Every rung runs in a process of its own: once cold, then REPEATS timed runs "
        "(median and range), then, on a GPU, one run for its memory and one for its busy time. With "
        "--processes 3 the rungs take turns, three times; only then is a difference between two of "
        "them told apart from that between two processes.",
    )
    _add_workload(parser, "timed runs of a process")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes for each rung; default: %(default)s"
    )


def _add_race(commands):
    parser = commands.add_parser(
        "race",
        help="time loops in turn in one process, where ratios are steadiest",
        description="All loops run in one process: each once cold, then in REPEATS rounds, each "
        "round in another order.",
    )
    _add_workload(parser, "rounds")


def _add_workload(parser, repeats):
    """Add what is run, and on what; a size that is not given depends on the device."""
    from .measuring import Workload

    add, of = parser.add_argument, Workload()

    def default(name):
        return f"default: {getattr(of, name)}, on a CPU {ON_A_CPU[name]}"

    add("rungs", nargs="+", metavar="RUNG", help=", ".join(RUNGS))
    add("--model", help=f"gpt2, gpt2-medium, a hub id, ...; {default('model')}")
    add("--batch-size", type=int, help=f"rows; {default('batch_size')}")
    add("--prompt-tokens", type=int, help=f"of each row's prompt; {default('prompt_tokens')}")
    add("--new-tokens", type=int, help=f"to generate in each row; {default('new_tokens')}")
    add("--dtype", help="bfloat16, float16, float32; default: what the device has")
    add("--device", help="cuda or cpu; default: the GPU if there is one")
    add("--repeats", type=int, help=f"{repeats}; {default('repeats')}")
    add("--compile-mode", help="for compiled rungs: reduce-overhead or default")
    add("--cache-length", type=int, help="positions of the static cache")
    add(
        "--no-check",
        nargs="+",
        default=[],
        metavar="RUNG",
        help="run these rungs, too, without a stop check: the bound for a pipeline",
    )
    add("--json", metavar="FILE", help="write what was measured to FILE")


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


def _measured(chosen, command):
    """Run a command that measures; what is wrong is one sentence, before anything is measured."""
    from .measuring.fits import check_system

    try:
        check_system()
        workload = _workload(chosen)
        asked = [(name, True) for name in chosen.rungs]
        asked += [(name, False) for name in chosen.no_check]
        options = _options(chosen, [name for name, _ in asked])
        if chosen.json:
            _try_to_write(Path(chosen.json))
        _warn_of_shortage(workload)
        return command(chosen, workload, asked, options)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written, and nothing is left running.")


def _workload(chosen):
    """Return the ``Workload`` that is asked for: on a CPU, unless told otherwise, one that ends."""
    from .measuring import Workload
    from .models import resolve_device

    given = {name: getattr(chosen, name) for name in SIZES if getattr(chosen, name) is not None}
    if resolve_device(chosen.device).type == "cpu":
        small = {name: value for name, value in ON_A_CPU.items() if name not in given}
        if small:
            words = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in small.items())
            print(f"On a CPU the defaults are small: {words}.", file=sys.stderr)
        given = small | given
    return Workload(**given)


def _options(chosen, rungs):
    """Return, for each name in ``rungs``, those of the given options that the rung takes.

    Raises:
        ValueError: there is no such rung, or an option that none of them takes.
    """
    options = {"compile_mode": chosen.compile_mode, "cache_length": chosen.cache_length}
    given = {key: value for key, value in options.items() if value is not None}
    taken = {
        name: {key: given[key] for key in given if key in find_rung(name).options} for name in rungs
    }
    for key in given:
        if not any(key in each for each in taken.values()):
            takers = ", ".join(name for name, rung in RUNGS.items() if key in rung.options)
            raise ValueError(f"No chosen rung takes --{key.replace('_', '-')}; these do: {takers}.")
    return taken


def _check_system():
    from .measuring.fits import check_system

    try:
        check_system()
    except RuntimeError as error:
        sys.exit(f"error: {error}")


def _warn_of_shortage(workload):
    """Say beforehand where a small GPU has too little memory for some of the rungs."""
    from .measuring.fits import shortage
    from .measuring.machine import MIB
    from .models import resolve_device

    device = resolve_device(workload.device)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory // MIB
        if said := shortage(workload, memory):
            print(said, file=sys.stderr)


def _try_to_write(path):
    """Raise ``OSError`` where ``path`` could not be written; leave no file behind."""
    new = not path.exists()
    with path.open("a", encoding="utf-8"):
        pass
    if new:
        path.unlink()


def _measure(chosen, workload, asked, options):
    from .measuring import compare
    from .measuring.report import table

    items = [{"rung": name, "stop_check": check} | options[name] for name, check in asked]
    records = compare(items, workload, processes=chosen.processes)
    _say(table(records))
    _write(chosen.json, records)
    return 1 if any(record.error for record in records) else 0


def _race(chosen, workload, asked, options):
    from .measuring import race
    from .measuring.report import race_table

    entrants = {
        name if check else f"{name}, no check": {"rung": name, "stop_check": check} | options[name]
        for name, check in asked
    }
    found = race(entrants, workload)
    _say(race_table(found["results"]))
    _write(chosen.json, found)
    return 0


def _write(file, found):
    if file:
        Path(file).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _speak_what_the_terminal_can():
    """Let no character of a text end a command, whatever the encoding of the terminal."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _say(text):
    """Print ``text``, in ASCII's own signs where the terminal knows no others."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = text.translate(IN_ASCII)
    print(text)


def _with_notebooks(chosen):
    from .pages import execute

    if chosen.command == "check-records":
        from .pages import contributed

        return contributed.check_records(chosen.records)
    folder = chosen.folder
    if chosen.command in ("record", "run"):
        _check_system()
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
