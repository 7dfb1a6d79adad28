"""A contributed folder of records: a good one passes, and each fault is named in one line."""

import json
import shutil

import pytest

from decoding.__main__ import main
from decoding.pages import contributed
from decoding.pages.machines import BOOK_RECORDS, book_folder

CARD = "A-Card"
NAMES = {
    "naive": "naive_gpt2_b1_p128_n256_bfloat16.json",
    "compiled": "compiled_gpt2_b1_p128_n256_bfloat16.json",
    "race": "watch_b1.json",
    "requests": "allocations_naive_default.json",
}


@pytest.fixture
def folder(tmp_path):
    """Some of the book's records, as of another card."""
    card = tmp_path / CARD
    card.mkdir()
    for name in NAMES.values():
        record = json.loads((book_folder() / name).read_text())
        record["machine"]["gpu"] = "A Card"
        (card / name).write_text(json.dumps(record))
    events = "allocations_naive_default.npz"
    shutil.copy(book_folder() / events, card / events)
    return card


def change(folder, which, *path, value):
    """Put ``value`` where ``path`` leads in a record."""
    file = folder / NAMES[which]
    record = part = json.loads(file.read_text())
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    file.write_text(json.dumps(record))


def test_a_good_folder_passes(folder, capsys):
    assert main(["check-records", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"{folder}: 4 records, they can join the book."
    )


@pytest.mark.parametrize("card", sorted(BOOK_RECORDS.glob("NVIDIA-*")), ids=lambda path: path.name)
def test_the_books_own_pass(card):
    assert contributed.examine(card)[0] == []


@pytest.mark.parametrize(
    ("which", "path", "value", "said"),
    [
        ("naive", ["schema"], 1, "its schema is 1"),
        ("naive", ["machine"], None, "it is no record"),
        ("naive", ["machine", "device"], "cpu", "'cpu'; the book shows CUDA GPUs"),
        ("naive", ["machine", "driver"], None, "machine.driver is missing"),
        ("naive", ["machine", "cpu_cores"], 0, "machine.cpu_cores is 0"),
        ("naive", ["machine", "gpu_id"], "GPU-1", "machine.gpu_id is 'GPU-1'"),
        ("naive", ["machine", "code"], "new", "machine.code is 'new'"),
        ("naive", ["machine", "allocator"], None, "machine.allocator is None"),
        ("naive", ["machine", "gpu"], "B Card", "go to a folder B-Card"),
        ("naive", ["machine", "date"], "yesterday", "is 'yesterday', which is no time"),
        ("naive", ["machine", "date"], "2026-11-26T17:07:14", "which is no time in UTC"),
        ("naive", ["machine", "date"], "2999-01-01T00:00:00Z", "lies ahead"),
        ("naive", ["time", "per_token_ms", "min"], 1e6, "time.per_token_ms is out of order"),
        ("naive", ["time", "tokens_ms", "p95"], 0.0, "time.tokens_ms is out of order"),
        ("naive", ["time", "prefill_ms", "min"], -1.0, "has a value that is no time"),
        (
            "naive",
            ["time", "total_ms"],
            dict.fromkeys(("median", "min", "max"), 9.0),
            "the run 9 ms",
        ),
        ("naive", ["time", "spread_over"], 5, "over 5 processes, and it holds 3"),
        ("naive", ["time", "curve_ms"], [1.0], "its curve has 1 values for 256 tokens"),
        ("naive", ["time"], None, "was not measured"),
        ("naive", ["memory", "peak_allocated_mib"], 1e6, "which cannot be"),
        ("naive", ["gpu", "idle_share"], 1.5, "idle share is 1.5"),
        ("naive", ["tokens_sha256"], None, "no checksum of its tokens"),
        ("naive", ["tokens_generated"], 3, "it generated 3 tokens where 256"),
        ("naive", ["rung"], "native", "there is no rung 'native'"),
        ("naive", ["workload", "batch_size"], 2, "should be called naive_gpt2_b2_p128"),
        ("compiled", ["machine", "gpu_id"], "0" * 12, "in turn, on several cards"),
        (
            "compiled",
            ["machine", "common_code"],
            "0" * 16,
            "in turn, on several states of the code",
        ),
        ("race", ["results", "check", "tokens_sha256"], "", "'check' has no checksum"),
        (
            "race",
            ["results", "check", "per_token_ms", "max"],
            0.1,
            "results.check.per_token_ms is out",
        ),
    ],
)
def test_a_fault_is_one_line(which, path, value, said, folder, capsys):
    change(folder, which, *path, value=value)
    assert main(["check-records", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert NAMES[which] in lines[0] and said in lines[0]
    assert lines[-1].endswith("1 to mend.")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / NAMES["naive"]).write_text("{"), "it cannot be read"),
        (lambda folder: (folder / NAMES["naive"]).write_text('{"a": NaN}'), "it holds NaN"),
        (lambda folder: (folder / "allocations_naive_default.npz").unlink(), "are missing"),
        (lambda folder: (folder / "run.sh").write_text("true"), "run.sh: this is no record"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(spoil, said, folder):
    spoil(folder)
    (fault,) = contributed.examine(folder)[0]
    assert said in fault


def test_a_part_that_is_missing(folder):
    file = folder / NAMES["naive"]
    record = json.loads(file.read_text())
    del record["tokens_sha256"], record["memory"]
    file.write_text(json.dumps(record))
    assert contributed.examine(folder)[0] == [f"{file.name}: it has no memory, tokens_sha256."]


@pytest.mark.parametrize(
    ("which", "path", "value", "said"),
    [
        ("naive", ["time", "per_token_ms", "min"], "fast", "not what a record has there"),
        ("naive", ["variant"], None, "not what a record has there"),
        ("naive", ["workload", "new_tokens"], "many", "not what a record has there"),
        ("naive", ["time", "prefill_ms"], {}, "it has no median"),
        ("race", ["results"], [], "not what a record has there"),
    ],
)
def test_a_part_of_another_kind_is_a_fault_and_no_traceback(which, path, value, said, folder):
    change(folder, which, *path, value=value)
    (fault,) = (one for one in contributed.examine(folder)[0] if said in one)
    assert fault.startswith(NAMES[which])


def test_a_second_machine_with_the_same_card_has_a_name_of_its_own(folder):
    folder = folder.rename(folder.with_name(f"{CARD}-mine"))
    assert contributed.examine(folder)[0] == []


def test_an_empty_folder_and_none(tmp_path):
    assert "holds no records" in contributed.examine(tmp_path)[0][0]
    assert "is no folder" in contributed.examine(tmp_path / "none")[0][0]


def test_old_code_is_said_and_is_no_fault(folder):
    change(folder, "naive", "machine", "code", value="0" * 16)
    change(folder, "naive", "machine", "common_code", value="1" * 16)
    change(folder, "compiled", "machine", "common_code", value="1" * 16)
    faults, notes = contributed.examine(folder)
    assert faults == []
    (note,) = (note for note in notes if note.startswith(NAMES["naive"]))
    assert "it is of other code (0000000000000000)" in note
