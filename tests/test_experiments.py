"""The experiments behind a number, on a CPU, where their shape and their arithmetic can be checked."""

import pytest
import torch

from decoding.measuring import NeedsGpu, Workload, experiments

SMALL = Workload("gpt2-tiny", 1, 6, 20, dtype="float32", device="cpu")


class TestRepeatedRuns:
    ARGUMENTS = ("gpt2-tiny", "cpu", 6, 3, (1, 2))

    def test_a_loop_on_a_cpu_does_not_differ_from_itself(self):
        found = experiments.repeated_runs(*self.ARGUMENTS)
        assert found["runs"] == 3 and len(found["cases"]) == 8
        assert {(case["differ"], case["first_token"]) for case in found["cases"]} == {(0, None)}

    def test_a_run_that_differs_is_counted_from_its_first_token(self, monkeypatch):
        calls = []

        def generate(model, prompt, rung, max_new_tokens):
            new = torch.zeros(len(prompt), max_new_tokens, dtype=torch.long)
            calls.append(rung)
            if len(calls) in (2, 3):  # later runs of the first case: from the 5th and the 3rd token
                new[:, 4 if len(calls) == 2 else 2 :] = 1
            return torch.cat([prompt, new], dim=1)

        monkeypatch.setattr(experiments, "generate", generate)
        first, *others = experiments.repeated_runs(*self.ARGUMENTS)["cases"]
        assert first == {
            "rung": "kv_cache",
            "batch_size": 1,
            "with_cudnn": True,
            "differ": 2,
            "first_token": 2,
        }
        assert not any(case["differ"] for case in others)

    def test_cudnn_is_ruled_out_where_the_case_says_so(self, monkeypatch):
        allowed = []

        def generate(model, prompt, rung, max_new_tokens):
            allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
            return prompt

        before = torch.backends.cuda.cudnn_sdp_enabled()
        torch.backends.cuda.enable_cudnn_sdp(True)
        monkeypatch.setattr(experiments, "generate", generate)
        found = experiments.repeated_runs("gpt2-tiny", "cpu", 6, 2, (1,))
        torch.backends.cuda.enable_cudnn_sdp(before)
        expected = [case["with_cudnn"] for case in found["cases"] for _ in range(2)]
        assert allowed == expected and set(allowed) == {True, False}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
@pytest.mark.parametrize(
    "find",
    [experiments.provoke, experiments.repeated_runs, lambda: experiments.stale_reads(0, True)],
)
def test_what_needs_a_gpu_says_so(find):
    with pytest.raises(NeedsGpu):
        find()
