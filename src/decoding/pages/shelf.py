"""The shelf: a recent record, or a new one.

How a notebook is run (from the book's records, say) is a ``Sitting``. Its settings reach the kernel as
Jupyter's own configuration does: on its command line, or from a configuration file.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from IPython import get_ipython
from traitlets import Bool, Float, Unicode
from traitlets.config import Configurable

from decoding.measuring import NotRecorded
from decoding.measuring.fingerprint import fingerprint
from decoding.measuring.machine import machine
from decoding.measuring.records import SCHEMA, load, save

from . import floor
from .machines import SAME_MACHINE, book_folder, folder_of, machine_of


class Sitting(Configurable):
    """How a notebook is run."""

    redraw = Bool(False, help="Show the book's records and measure nothing.").tag(config=True)
    reuse_days = Float(0.25, help="How old a record may be that is read again.").tag(config=True)
    folder = Unicode(
        "", help="Where records are kept; empty: the book's folder for this machine's GPU."
    ).tag(config=True)


class Shelf:
    """The records of one sitting on one machine.

    Args:
        sitting: how the notebook is run; default: as this kernel was configured.

    Attributes:
        machine: the machine whose records these are: this one, or the book's while redrawing.
        folder: where they are kept.
        shown: the machines of all records that were given out, in order.
    """

    def __init__(self, sitting=None):
        self.sitting = sitting or Sitting(parent=get_ipython())
        chosen = self.sitting.folder and Path(self.sitting.folder)
        if self.sitting.redraw:
            self.folder = chosen or book_folder()
            self.machine = machine_of(self.folder)
        else:
            self.machine = machine()
            self.folder = chosen or folder_of(self.machine)
        self.shown = []

    @property
    def redrawing(self):
        """Whether the book's records are shown and nothing is measured."""
        return self.sitting.redraw

    def recent_or(self, file, rungs, measured, asked=None):
        """Return the record kept as ``file`` if it is recent and fits, else that of ``measured()``.

        It fits if the code behind it is the same and it answers the same question.

        Args:
            file: its name in the folder.
            rungs: the rungs whose code stands behind it.
            measured: a function that makes the record, a dict with ``machine``.
            asked: what was asked, as text, where the name does not say it all.

        Raises:
            NotRecorded: while redrawing, there is none that fits.
        """
        path, code = self.folder / file, fingerprint(rungs)
        if path.exists():
            kept = load(path)
            fits = kept["machine"].get("code") == code and kept.get("asked") == asked
            if fits and (self.redrawing or self._is_recent(kept["machine"])):
                return self._given(kept)
        if self.redrawing:
            raise NotRecorded(f"The book has no record {file} that fits the code as it is.")
        return self._given(self.keep(file, rungs, measured(), asked))

    def keep(self, file, rungs, found, asked=None):
        """Keep ``found``, a dict with ``machine``, as ``file``; return the record of it."""
        found = {"schema": SCHEMA} | found
        found["machine"]["code"] = fingerprint(rungs)
        if asked is not None:
            found["asked"] = asked
        save(found, self.folder / file)
        return load(self.folder / file)

    def give(self, record, rungs):
        """Return ``record``, which was found elsewhere.

        Args:
            record: of the book's machine.
            rungs: the rungs whose code stands behind it.

        Raises:
            NotRecorded: while redrawing, that code has changed since.
        """
        if self.redrawing and record["machine"].get("code") != fingerprint(rungs):
            raise NotRecorded("The book has no record of its ladder that fits the code as it is.")
        return self._given(record)

    def of_the_book(self, file):
        """Return the book's record ``file``, for machines that cannot make one.

        Raises:
            NotRecorded: the book has none yet.
        """
        if not (path := book_folder() / file).exists():
            raise NotRecorded(f"The book has no record {file} yet.")
        return self._given(load(path))

    def _given(self, record):
        self.shown.append(record["machine"])
        floor.put(record, self.folder)
        return record

    def _is_recent(self, kept):
        """Whether a record was made on this kind of machine, no longer ago than the sitting allows."""
        if any(kept.get(key) != self.machine[key] for key in SAME_MACHINE):
            return False
        made = datetime.fromisoformat(kept["date"].replace("Z", "+00:00"))
        return datetime.now(UTC) - made < timedelta(days=self.sitting.reuse_days)


def shown_in(namespace):
    """Return the machines of all records that the chapters in ``namespace`` have shown.

    Args:
        namespace: the variables of a notebook.
    """
    shelves = [getattr(value, "shelf", None) for value in list(namespace.values())]
    return [machine for shelf in shelves if isinstance(shelf, Shelf) for machine in shelf.shown]
