"""The captured step and the device's loop: what a CPU can show of them."""

import pytest
import torch
from models import prompt, reference, tiny

from decoding import RUNGS, generate, prepared, release, while_graph
from decoding.captured import makes_graphs

CAPTURED = ["captured_graph", "device_loop"]


def kept(model):
    (one,) = prepared._turns[torch.device("cpu")].kept[model].values()
    return one


@pytest.mark.parametrize("rung", CAPTURED)
class TestCapturedStep:
    def test_its_tensors_stay_where_they_are(self, rung):
        model = tiny("gpt2")
        addresses = []
        for seed in range(3):
            generate(model, prompt(2, 4 + seed, seed), rung=rung, max_new_tokens=5)
            step = kept(model).captured
            tensors = step.unread, step.finished, step.all_finished, step.tokens, step.read
            addresses.append([tensor.data_ptr() for tensor in tensors])
        assert addresses[0] == addresses[1] == addresses[2]

    def test_it_is_made_anew_for_other_weights_or_another_number_of_ends(self, rung):
        model = tiny("gpt2")
        steps = []
        for eos in (None, 3, [3, 4]):
            generate(model, prompt(2, 4), rung=rung, max_new_tokens=5, eos_token_id=eos)
            steps.append(kept(model).captured)
        assert steps[0] is steps[1] is not steps[2]
        other = tiny("gpt2")
        torch.nn.init.normal_(other.transformer.wpe.weight)
        model.load_state_dict(other.state_dict(), assign=True)
        found = generate(model, prompt(2, 4), rung=rung, max_new_tokens=5)
        assert torch.equal(found, reference(model, prompt(2, 4), 5, None))
        assert kept(model).captured is not steps[2]

    def test_a_mode_that_captures_graphs_itself_is_refused(self, rung, monkeypatch):
        monkeypatch.setattr("decoding.captured.makes_graphs", lambda device, mode: mode is not None)
        with pytest.raises(ValueError, match="captures CUDA graphs itself.*use 'default'"):
            generate(
                tiny("gpt2"),
                prompt(1, 3),
                rung=rung,
                max_new_tokens=4,
                compile_mode="reduce-overhead",
            )
        assert makes_graphs(torch.device("cuda"), "reduce-overhead")

    def test_the_shortest_cache_will_do(self, rung):
        model = tiny("gpt2")
        found = generate(model, prompt(2, 1), rung=rung, max_new_tokens=1, cache_length=2)
        assert torch.equal(found, reference(model, prompt(2, 1), 1, None))
        release(model)


class TestWhileGraph:
    def test_the_kernel_is_compiled_and_linked_without_a_gpu(self):
        pytest.importorskip("cuda.bindings")
        try:
            binary = while_graph.compiled("sm_90")
        except Exception as error:  # a CPU build of torch brings no CUDA compiler
            pytest.skip(f"no NVRTC or nvJitLink here: {error}")
        assert binary[:4] == b"\x7fELF" and b"keep_going" in binary

    def test_an_old_driver_is_refused(self):
        while_graph.check_driver(12040)
        with pytest.raises(RuntimeError, match="12.4 or later, and this one is for CUDA 12.2"):
            while_graph.check_driver(12020)

    def test_an_error_of_cuda_is_a_sentence(self):
        driver = pytest.importorskip("cuda.bindings.driver")
        assert while_graph._done((driver.CUresult.CUDA_SUCCESS, 7)) == 7
        for status, words in (
            (driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
            (driver.CUresult.CUDA_ERROR_NOT_SUPPORTED, "NOT_SUPPORTED.*captured_graph"),
        ):
            with pytest.raises(RuntimeError, match=words):
                while_graph._done((status,))


def test_neighbours_share_their_options():
    assert RUNGS["deferred_check"].options == RUNGS["two_streams"].options
    assert RUNGS["captured_graph"].options == RUNGS["device_loop"].options
