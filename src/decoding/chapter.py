"""What every chapter of the book begins with: a workload for this machine, and its records.

A chapter asks for a measurement; it is run if this machine has no recent record of it. Without a GPU
a chapter runs small, on a tiny model, and says so. While the book is redrawn, nothing is measured: every
chapter shows the book's records.
"""

import inspect
import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch
from IPython.display import Markdown, display

from . import measurement, worker
from .allocator import events_from_snapshot, load_events, save_events, segments_of
from .fingerprint import fingerprint
from .generation import generate
from .measurement import Workload
from .models import load_model
from .records import SCHEMA, file_name, load, save, slug
from .rungs import RUNGS
from .timeline import Timeline

RECENT = timedelta(hours=6)
machines_read = []  # of every record that a chapter in this process has shown, in order
BOOK_GPU = "NVIDIA-H100-80GB-HBM3"
BOOK_DTYPE = "bfloat16"
PROMPT_TOKENS = 128  # of the ladder's workloads on a GPU

_project = Path(__file__).resolve().parents[2]
BOOK_RECORDS = _project / "book" / "records"


class NotRecorded(measurement.MeasurementError):
    """While the book is redrawn: it has no record of what a cell asks for."""


class NotMeasured(measurement.MeasurementError):
    """A cell needs a figure of a measurement that failed on this machine, for want of memory say."""

    def _render_traceback_(self):  # what Jupyter shows: the sentence, and not where it was raised
        return [str(self)]


class Missing(dict):
    """The figures of a failed measurement: there are none, and whoever asks for one is told why."""

    def __init__(self, reason):
        super().__init__()
        self.reason = reason

    def __missing__(self, key):
        raise NotMeasured(self.reason)


class Chapter:
    """A chapter at work on this machine.

    Args:
        name: the chapter's number or name, as in its file's name.

    Attributes:
        on_gpu: whether there is a CUDA GPU; if not, everything runs small.
        batched, single: the two workloads of the book: batch 32 with 512 new tokens and batch 1
            with 256 (on a CPU: smaller).
    """

    def __init__(self, name):
        self.name = name
        self.redrawing = bool(os.environ.get("DECODING_REDRAWING"))
        self.machine = machine_of_the_book() if self.redrawing else worker.machine()
        self.on_gpu = self.machine["device"] == "cuda"
        self.recording = self.redrawing or bool(os.environ.get("DECODING_RECORDING"))
        days = os.environ.get("DECODING_REUSE_DAYS")
        self.recent = timedelta(days=float(days)) if days else RECENT
        measurement.show_progress = not self.recording
        self.batched = self._workload(batch_size=32, new_tokens=512)
        self.single = self._workload(batch_size=1, new_tokens=256)
        self.tell(self._introduction())

    def _workload(self, batch_size, new_tokens):
        if not self.on_gpu:
            return Workload(
                "gpt2-tiny", min(batch_size, 2), 8, 16, dtype="float32", device="cpu", repeats=2
            )
        if self.machine["gpu_memory_mib"] < 16_000:
            batch_size = min(batch_size, 8)
        dtype = BOOK_DTYPE if self.redrawing else str(load_dtype()).removeprefix("torch.")
        return Workload("gpt2", batch_size, PROMPT_TOKENS, new_tokens, dtype=dtype, repeats=3)

    def _introduction(self):
        if not self.on_gpu:
            return (
                "**Running small.** PyTorch sees no CUDA GPU here, so this notebook decodes a few tokens "
                "with a tiny model on the CPU. Every cell works, but times and shapes of curves mean "
                "nothing here: the rendered book shows what a GPU gives."
            )
        batched, single = self.batched, self.single
        what = "Drawn from records of" if self.redrawing else "Running on"
        return (
            f"{what} **{self.machine['gpu']}**: {batched.model}, {batched.dtype}, prompts of "
            f"{batched.prompt_tokens} tokens; batch {batched.batch_size} with {batched.new_tokens} new "
            f"tokens and batch 1 with {single.new_tokens}; {batched.repeats} timed runs after a cold one."
        )

    def tell(self, text):
        """Show ``text`` as Markdown."""
        display(Markdown(text))

    def claim(self, holds, text, otherwise=None):
        """Show ``text`` if it ``holds``; else say that it does not hold on this machine.

        While the book is being recorded, a claim that does not hold is an error: the page would
        say something false.

        Raises:
            AssertionError: while recording, ``holds`` is false.
        """
        if holds:
            self.tell(text)
        elif self.recording:
            raise AssertionError(f"The recording tells another story than the page: {text}")
        else:
            reason = f" {otherwise}" if otherwise else ""
            self.tell(f"*Not so on this machine.* The book found: {text}{reason}")

    def measure(self, rung, workload=None, *, environment=None, **options):
        """Return a record of ``rung`` on ``workload`` (default: ``batched``), as ``measure`` does.

        A recent record is read in place of measuring: one of the last six hours (or of as many days
        as ``record --reuse-days`` says), from this kind of machine with the same versions, whose
        code has not changed since.

        If the measurement fails, for want of memory say, the page says so and goes on: figures and
        tables show the record as failed, and a cell that needs one of its numbers raises
        ``NotMeasured`` with the reason.
        """
        workload = workload or self.batched
        variant = measurement.describe_variant(rung, workload, environment=environment, **options)
        name = file_name({"rung": rung, "variant": variant, "workload": vars(workload)})
        record = self._recent_or(
            name,
            [rung],
            lambda: measurement.measure(rung, workload, environment=environment, **options),
        )
        if record["error"]:
            reason = f"{record['label']} at batch {workload.batch_size}: {record['error']}"
            self.tell(f"*Not measured: {reason}*")
            record |= dict.fromkeys(("time", "memory", "gpu"), Missing(reason))
        return record

    def race(self, name, entrants, workload=None, **arguments):
        """Return the result of ``measurement.race``, kept under ``name`` and read while recent."""
        workload = workload or self.batched
        rungs = [entrant["rung"] for entrant in entrants.values()]
        asked = json.dumps([entrants, vars(workload), arguments], sort_keys=True)
        return self._recent_or(
            f"race_{slug(name)}.json",
            rungs,
            lambda: measurement.race(entrants, workload, **arguments),
            asked,
        )

    def trace(self, name, entrants, workload=None, *, first_token=64, tokens=4):
        """Return a ``Timeline`` of a few tokens for each label; without a GPU, those of the book."""
        workload = workload or self.single
        file = f"trace_{slug(name)}.json"
        if self.on_gpu:
            asked = json.dumps([entrants, vars(workload), first_token, tokens], sort_keys=True)
            found = self._recent_or(
                file,
                [entrant["rung"] for entrant in entrants.values()],
                lambda: measurement.trace(
                    entrants, workload, first_token=first_token, tokens=tokens
                ),
                asked,
            )
        else:
            self.tell("*No GPU here: the timelines are the book's.*")
            found = load(BOOK_RECORDS / BOOK_GPU / file)
        return {label: Timeline.from_dict(kept) for label, kept in found["timelines"].items()}

    def allocations(self, rung, workload=None, *, environment=None, **options):
        """Return what the caching allocator was asked for; without a GPU, what the book recorded.

        Returns:
            A dict with ``events`` and ``marks`` for ``allocator.replay``, ``allocated_mib`` and
            ``reserved_mib`` after every token, and ``segments``, the state at the end, for
            ``draw_segments``.
        """
        workload = workload or self.batched
        allocator = measurement.describe_variant(rung, workload, environment=environment)[
            "allocator"
        ]
        file = f"allocations_{rung}_{allocator}.json"
        if not self.on_gpu:
            self.tell("*No GPU here: the allocations are the book's.*")
            folder = BOOK_RECORDS / BOOK_GPU
            kept = load(folder / file)
        else:
            folder = self.folder

            def recorded():
                found = measurement.allocations(rung, workload, environment=environment, **options)
                events, marks = events_from_snapshot(
                    found["snapshot"], times_us=found.pop("marks_us")
                )
                folder.mkdir(parents=True, exist_ok=True)
                save_events((folder / file).with_suffix(".npz"), events, marks)
                return found | {"segments": segments_of(found.pop("snapshot"))}

            kept = self._recent_or(file, [rung], recorded, json.dumps(vars(workload)))
        events, marks = load_events((folder / file).with_suffix(".npz"))
        return kept | {"events": events, "marks": marks}

    def evidence(self, name, find):
        """Return what ``find()`` finds, kept as a record under ``name``.

        For small experiments that are no measurement of a rung.

        Args:
            name: of the record.
            find: a function of a module, without arguments; returns what JSON can hold.
        """
        asked = fingerprint((), [inspect.getsource(inspect.getmodule(find))])
        kept = self._recent_or(
            f"{slug(name)}.json", (), lambda: {"machine": worker.machine(), "found": find()}, asked
        )
        return kept["found"]

    def check_tokens(self, *rungs, batch_size=4, prompt_tokens=16, new_tokens=48):
        """Assert that ``rungs`` choose the tokens of transformers' ``generate``, in float32.

        One check never stops early, one stops on an id that really occurs.

        Raises:
            AssertionError: a token differs.
        """
        small = self.redrawing or not self.on_gpu
        model = load_model("gpt2-tiny" if small else "gpt2", dtype=torch.float32)
        generator = torch.Generator().manual_seed(1)
        vocabulary = model.config.vocab_size
        shape = (batch_size, prompt_tokens)
        input_ids = torch.randint(vocabulary, shape, generator=generator).to(model.device)
        greedy = {
            "attention_mask": torch.ones_like(input_ids),
            "do_sample": False,
            "max_new_tokens": new_tokens,
        }
        expected = model.generate(input_ids, eos_token_id=None, pad_token_id=None, **greedy)
        eos = expected[0, prompt_tokens + new_tokens // 2].item()
        stopped = model.generate(input_ids, eos_token_id=eos, pad_token_id=eos, **greedy)
        for rung in rungs:
            for eos_token_id, reference in ((None, expected), (eos, stopped)):
                found = generate(
                    model,
                    input_ids,
                    rung=rung,
                    max_new_tokens=new_tokens,
                    eos_token_id=eos_token_id,
                )
                assert torch.equal(found, reference), (
                    f"{rung} chose other tokens (eos={eos_token_id})"
                )
        names = ", ".join(f"`{rung}`" for rung in rungs)
        self.tell(
            f"Same tokens: {names} and transformers' own `generate` chose the same "
            f"{batch_size} × {new_tokens} tokens in float32, with and without an end-of-sequence id"
            f"{', with a tiny model on a CPU' if small else ''}."
        )

    @property
    def folder(self):
        """Where this machine's records are kept."""
        if self.redrawing:
            return BOOK_RECORDS / BOOK_GPU
        if not self.on_gpu:
            chosen = os.environ.get("DECODING_RECORDS")
            return Path(chosen or Path(tempfile.gettempdir()) / "token-by-token-records")
        root = BOOK_RECORDS if BOOK_RECORDS.is_dir() else Path.cwd() / "records"
        return root / slug(self.machine["gpu"])

    def _recent_or(self, file, rungs, measured, asked=None):
        path = self.folder / file
        code = fingerprint(rungs)
        if path.exists():
            kept = load(path)
            fits = kept["machine"].get("code") == code and kept.get("asked") == asked
            if fits and (self.redrawing or self._is_recent(kept["machine"])):
                machines_read.append(kept["machine"])
                return kept
        if self.redrawing:
            raise NotRecorded(f"The book has no record {path.name} that fits the code.")
        found = {"schema": SCHEMA} | measured()
        found["machine"]["code"] = code
        if asked is not None:
            found["asked"] = asked
        save(found, path)
        machines_read.append(found["machine"])
        return load(path)

    def _is_recent(self, kept):
        """Whether a record was made on this kind of machine in the same sitting."""
        same = all(
            kept.get(key) == self.machine[key]
            for key in ("gpu", "driver", "torch", "transformers", "python")
        )
        if not same:
            return False
        made = datetime.fromisoformat(kept["date"].replace("Z", "+00:00"))
        return datetime.now(UTC) - made < self.recent


def machine_of_the_book():
    """Return the machine of the newest of the book's records.

    Raises:
        FileNotFoundError: the book has no records.
    """
    paths = (BOOK_RECORDS / BOOK_GPU).glob("*.json")
    machines = [load(path)["machine"] for path in paths]
    if not machines:
        raise FileNotFoundError(f"{BOOK_RECORDS / BOOK_GPU} holds no records: run `make record`.")
    return max(machines, key=lambda machine: machine["date"])


def load_dtype():
    """Return the dtype in which chapters decode on this machine's GPU."""
    from .models import default_dtype

    chosen = default_dtype(torch.device("cuda"))
    return torch.float16 if chosen == torch.float32 else chosen


def label(rung):
    """Return a rung's name in figures."""
    return RUNGS[rung].label
