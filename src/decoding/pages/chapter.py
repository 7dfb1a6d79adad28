"""What every chapter of the book begins with: a workload for this machine, and its records.

A chapter asks for a measurement; it is run if this machine has no recent record of it. Without a GPU
a chapter runs small, on a tiny model, and says so. While the book is redrawn, nothing is measured: every
chapter shows the book's records.
"""

import inspect
import json
from dataclasses import asdict

import torch
from IPython import get_ipython
from IPython.display import Markdown, display

from decoding import RUNGS, generate, load_model, measuring
from decoding.drawing.words import Words
from decoding.measuring import MeasurementError, NeedsGpu, NotMeasured, NotRecorded, Record
from decoding.measuring.fingerprint import fingerprint
from decoding.measuring.fits import check_system, shortage
from decoding.measuring.machine import machine
from decoding.measuring.records import file_name, slug
from decoding.measuring.snapshots import events_from_snapshot, load_events, save_events, segments_of
from decoding.measuring.timeline import Timeline
from decoding.measuring.watching import LOOPS, WITHOUT_GUARDS
from decoding.rungs import EXPANDABLE

from .machines import BOOK_DTYPE, LADDER, book_folder, workload
from .shelf import Shelf


class Traced(dict):
    """Timelines of one trace by their labels, with the ``machine`` that they were recorded on."""

    def __init__(self, machine, timelines):
        super().__init__(timelines)
        self.machine = machine


class Chapter:
    """A chapter at work on this machine.

    Args:
        name: the chapter's number or name, as in its file's name.
        sitting: how it is run; default: as this kernel was configured.
        model: what it decodes with on a GPU, a name that ``load_model`` knows; default: GPT-2, as in the
            book. Its records have names of their own, and those of the book stay as they are.

    Attributes:
        on_gpu: whether there is a CUDA GPU; if not, everything runs small.
        machine: what a record says of the machine.
        gpu: the name of its GPU, or "this CPU".
        batched, single: the two workloads of the book: batch 32 with 512 new tokens and batch 1
            with 256 (on a CPU: smaller).
        shelf: its records.
    """

    def __init__(self, name, sitting=None, *, model=None):
        self.name = name
        self.shelf = Shelf(sitting)
        if not self.shelf.redrawing:
            check_system()
        self.machine = self.shelf.machine
        self.on_gpu = self.machine["device"] == "cuda"
        dtype = BOOK_DTYPE if self.shelf.redrawing else None
        self.batched = workload(self.machine, batch_size=32, new_tokens=512, dtype=dtype)
        self.single = workload(self.machine, batch_size=1, new_tokens=256, dtype=dtype)
        if model and self.on_gpu:
            self.batched, self.single = (
                one.but(model=model) for one in (self.batched, self.single)
            )
        if shell := get_ipython():
            shell.set_custom_exc((MeasurementError,), _one_sentence)
        self.gpu = Words(self.machine["gpu"] or "this CPU")
        if self.on_gpu and (said := shortage(self.batched, self.machine["gpu_memory_mib"])):
            tell(f"*{said}*")
        if not self.on_gpu:
            tell(
                "**Running small.** PyTorch sees no CUDA GPU here, so this notebook decodes a few tokens "
                "with a tiny model on the CPU. Every cell works, but times and shapes of curves mean "
                "nothing here: the rendered book shows what a GPU gives."
            )

    @property
    def device(self):
        """Where a cell computes on the spot: ``"cuda"``, or ``"cpu"`` where there is no GPU.

        Raises:
            NeedsGpu: the page is redrawn with a GPU's records on a machine without one.
        """
        if self.on_gpu and not torch.cuda.is_available():
            raise NeedsGpu("This part computes on a CUDA GPU, and there is none here.")
        return "cuda" if self.on_gpu else "cpu"

    def measure(self, rung, workload=None, *, environment=None, **options):
        """Return a ``Record`` of ``rung`` on ``workload`` (default: ``batched``), as ``measure`` does.

        On a GPU the rungs of the book's two workloads are measured together, as one ``ladder``, so
        that they may be compared; this takes some minutes, once. A recent record is read in place of
        measuring: one of the last six hours (or of as many days as ``record --reuse-days`` says), from
        this kind of machine with the same versions, whose code has not changed since.

        If the measurement fails, for want of memory say, the page says so and goes on: the record's
        numbers are nan.
        """
        workload = workload or self.batched
        variant = measuring.describe_variant(rung, workload, environment=environment, **options)
        name = file_name({"rung": rung, "variant": variant, "workload": asdict(workload)})

        def measured():
            if self.on_gpu and (entries := self.ladder_entries(workload)):
                records = {file_name(found): found for found in measuring.ladder(entries, workload)}
                for file, found in records.items():
                    self.shelf.keep(file, [found["rung"]], found)
                if name in records:
                    return records[name]
            found = measuring.measure(rung, workload, environment=environment, **options)
            # What runs small on a CPU is laid side by side, though its times mean nothing.
            return found if self.on_gpu else found | {"together": "small"}

        try:
            record = self.shelf.recent_or(name, [rung], measured)
        except NotRecorded:
            raise
        except MeasurementError as error:
            what = (rung, RUNGS[rung].label, variant, asdict(workload), self.machine)
            record = Record.failed(*what, str(error))
        if record.error:
            tell(f"*Not measured: {record.name} at batch {record.batch}: {record.error}*")
        return record

    def ladder_entries(self, workload):
        """Return what is measured together on ``workload``, as for ``ladder``; nothing of another."""
        more = {
            self.batched: {"rung": "naive", "environment": EXPANDABLE, "once": True},
            self.single: {"rung": "compiled", "compile_mode": "default"},
        }
        return [*LADDER, more[workload]] if workload in more else []

    def race(self, name, entrants, workload=None, **arguments):
        """Return the result of ``measuring.race``, kept under ``name`` and read while recent.

        If the race fails, the page says so and goes on: its records' numbers are nan.

        Args:
            name: what it is kept under.
            entrants, arguments: as for ``measuring.race``.
            workload: a ``Workload``; default: ``batched``.
        """
        workload = workload or self.batched
        rungs = [entrant["rung"] for entrant in entrants.values()]
        try:
            found = self.shelf.recent_or(
                f"race_{slug(name)}.json",
                rungs,
                lambda: measuring.race(entrants, workload, **arguments),
                _asked(entrants, workload, arguments),
            )
        except NotRecorded:
            raise
        except MeasurementError as error:
            tell(f"*Not measured: {error}*")
            return failed_race(entrants, workload, self.machine, str(error))
        return found

    def watch(self, workload, entrants=None, name="watch", **arguments):
        """Return the result of ``measuring.watch``, kept and read while recent.

        If it fails, the page says so and goes on: its records' numbers are nan.

        Args:
            workload: a ``Workload``.
            entrants: as for ``measuring.watch``; default: those of the book's race of chapters 6 and 7.
            name: what it is kept under, with the workload's model and batch size.
            arguments: further ones of ``measuring.watch``.
        """
        ran = LOOPS | WITHOUT_GUARDS if entrants is None else entrants
        arguments |= {} if self.on_gpu else {"rounds": 2}
        model = "" if workload.model == self.single.model else f"_{slug(workload.model)}"
        asked = [asdict(workload)] if entrants is None else [asdict(workload), entrants]
        try:
            return self.shelf.recent_or(
                f"{name}{model}_b{workload.batch_size}.json",
                [entrant["rung"] for entrant in ran.values()],
                lambda: measuring.watch(workload, entrants, **arguments),
                json.dumps(asked),
            )
        except NotRecorded:
            raise
        except MeasurementError as error:
            tell(f"*Not measured: {error}*")
            return failed_race(ran, workload, self.machine, str(error))

    def trace(self, name, entrants, workload=None, *, first_token=64, tokens=4):
        """Return a ``Timeline`` of a few tokens for each label; without a GPU, those of the book.

        They are ``Traced``.

        Raises:
            NotMeasured: the trace failed on this machine.
        """
        workload = workload or self.single
        span = {"first_token": first_token, "tokens": tokens}
        found = self._on_a_gpu(
            f"trace_{slug(name)}.json",
            [entrant["rung"] for entrant in entrants.values()],
            lambda: measuring.trace(entrants, workload, **span),
            json.dumps([entrants, asdict(workload), first_token, tokens], sort_keys=True),
        )
        kept = found["timelines"].items()
        return Traced(found["machine"], ((label, Timeline.from_dict(each)) for label, each in kept))

    def allocations(self, rung, workload=None, *, environment=None):
        """Return what the caching allocator was asked for; without a GPU, what the book recorded.

        Returns:
            A dict with ``events`` and ``marks`` for ``allocator.replay``, ``allocated_mib`` and
            ``reserved_mib`` after every token, and ``segments``, the state at the end, for
            ``drawing.draw_segments``.

        Raises:
            NotMeasured: the run failed on this machine.
        """
        workload = workload or self.batched
        variant = measuring.describe_variant(rung, workload, environment=environment)
        file = f"allocations_{rung}_{variant['allocator']}.json"
        folder = self.shelf.folder if self.on_gpu else book_folder()
        events = (folder / file).with_suffix(".npz")

        def recorded():
            found = measuring.allocations(rung, workload, environment=environment)
            folder.mkdir(parents=True, exist_ok=True)
            snapshot = found.pop("snapshot")
            save_events(events, *events_from_snapshot(snapshot, times_us=found.pop("marks_us")))
            return found | {"segments": segments_of(snapshot)}

        kept = self._on_a_gpu(file, [rung], recorded, json.dumps(asdict(workload)))
        loaded, marks = load_events(events)
        return kept | {"events": loaded, "marks": marks}

    def evidence(self, name, find):
        """Return what ``find()`` finds, kept as a record under ``name``; without a GPU, the book's.

        For small experiments that are no measurement of a rung.

        Args:
            name: of the record.
            find: a function of a module, without arguments; returns what JSON can hold.

        Raises:
            NotMeasured: the experiment failed on this machine.
        """
        return self._on_a_gpu(
            f"{slug(name)}.json",
            (),
            lambda: {"machine": machine(), "found": find()},
            fingerprint((), [inspect.getsource(inspect.getmodule(find))]),
        )["found"]

    def _on_a_gpu(self, file, rungs, measured, asked):
        """A recent record or a new one; without a GPU the book's, and the page says so."""
        if not self.on_gpu:
            tell("*No GPU here: what follows is the book's recording.*")
            return self.shelf.of_the_book(file)
        try:
            return self.shelf.recent_or(file, rungs, measured, asked)
        except NotRecorded:
            raise
        except MeasurementError as error:
            raise NotMeasured(str(error)) from error

    def check_tokens(self, *rungs, batch_size=4, prompt_tokens=16, new_tokens=48):
        """Assert that ``rungs`` choose the tokens of transformers' ``generate``, in float32.

        One check never stops early, one stops on an id that really occurs.

        Raises:
            AssertionError: a token differs.
        """
        small = not (self.on_gpu and torch.cuda.is_available())
        model = load_model("gpt2-tiny" if small else self.single.model, dtype=torch.float32)
        generator = torch.Generator().manual_seed(1)
        shape = (batch_size, prompt_tokens)
        ids = torch.randint(model.config.vocab_size, shape, generator=generator).to(model.device)
        greedy = {"do_sample": False, "max_new_tokens": new_tokens}
        greedy["attention_mask"] = torch.ones_like(ids)
        expected = model.generate(ids, eos_token_id=None, pad_token_id=None, **greedy)
        eos = expected[0, prompt_tokens + new_tokens // 2].item()
        stopped = model.generate(ids, eos_token_id=eos, pad_token_id=eos, **greedy)
        for rung in rungs:
            for end, reference in ((None, expected), (eos, stopped)):
                found = generate(model, ids, rung=rung, max_new_tokens=new_tokens, eos_token_id=end)
                assert torch.equal(found, reference), f"{rung} chose other tokens (eos={end})"


def tell(text):
    """Show a sentence of Markdown, as the output of the cell that runs."""
    display(Markdown(text))


def _one_sentence(shell, kind, error, traceback, tb_offset=None):
    """What Jupyter shows of an error that is no fault in the code: the sentence alone."""
    shell._showtraceback(kind, error, [str(error)])
    return [str(error)]


def _asked(entrants, workload, arguments):
    return json.dumps([entrants, asdict(workload), arguments], sort_keys=True)


def failed_race(entrants, workload, machine, reason):
    """The result of a race that did not finish: a failed record for every entrant."""
    failed = {
        label: Record.failed(entrant["rung"], label, None, asdict(workload), machine, reason)
        for label, entrant in entrants.items()
    }
    return {"machine": machine, "workload": asdict(workload), "results": failed}
