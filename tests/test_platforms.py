"""Windows, macOS and machines without a compiler: what does not work there says so in one sentence."""

import importlib.util
import os
import platform
import sys

import pytest
import torch

from decoding import fused_step, generate, load_model, while_graph
from decoding.__main__ import main
from decoding.checks import why_not_compiled
from decoding.measuring import MeasurementError
from decoding.pages import Chapter


@pytest.fixture
def model():
    return load_model("gpt2-tiny", device="cpu", dtype=torch.float32)


def one_sentence(words):
    return "\n" not in words and words.endswith(".")


@pytest.mark.parametrize("system", ["Windows", "Darwin"])
def test_without_triton_the_compiled_rungs_name_the_system_and_the_way_out(system, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: system)
    said = why_not_compiled(RuntimeError("Cannot find a working triton installation."))
    assert f"no Triton for this PyTorch on {system}" in said and "'static_cache'" in said
    assert one_sentence(said)


def test_without_a_cpp_compiler_the_cure_is_named():
    class InvalidCxxCompiler(RuntimeError):
        pass

    said = why_not_compiled(InvalidCxxCompiler("No working C++ compiler found"))
    assert "no C compiler" in said and "'static_cache'" in said and one_sentence(said)


def test_a_model_on_mps_is_refused(model, monkeypatch):
    prompt = torch.zeros((1, 4), dtype=torch.int64)
    monkeypatch.setattr(type(model), "device", property(lambda _: torch.device("mps", 0)))
    for rung in ("naive", "static_cache", "two_streams"):
        with pytest.raises(
            ValueError, match=r"The model is on mps:0; the loops run on CUDA GPUs"
        ) as why:
            generate(model, prompt, rung=rung, max_new_tokens=2)
        assert "model.to('cpu')" in str(why.value) and one_sentence(str(why.value))


def test_without_triton_the_fused_step_is_refused(model, monkeypatch):
    found = importlib.util.find_spec

    def find_spec(name, *rest):
        return None if name == "triton" else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(fused_step, "find_spec", find_spec, raising=False)
    said = fused_step.why_not(model, 1)
    assert "needs Triton, which is not installed here" in said and one_sentence(said)


def test_without_cudas_bindings_or_runtime_the_device_loop_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    while_graph._cuda.cache_clear()
    with pytest.raises(RuntimeError, match="pip install cuda-bindings.*'captured_graph'"):
        while_graph._cuda()
    monkeypatch.setattr(while_graph, "find_spec", lambda _: None)
    monkeypatch.setattr(
        while_graph, "Path", lambda *_: type("Nowhere", (), {"glob": lambda *_: []})()
    )
    with pytest.raises(RuntimeError, match="pip install nvidia-cuda-runtime.*'captured_graph'"):
        while_graph._device_runtime()


@pytest.mark.parametrize("command", ["measure naive", "race naive", "run", "record"])
def test_where_no_process_can_be_forked_nothing_is_measured(command, monkeypatch):
    monkeypatch.delattr(os, "fork")
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    with pytest.raises(SystemExit, match="which Windows does not have.*WSL 2") as ended:
        main(command.split())
    assert one_sentence(str(ended.value))
    with pytest.raises(MeasurementError, match="WSL 2"):
        Chapter("01")
