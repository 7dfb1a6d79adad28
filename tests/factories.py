"""Made-up records with round numbers: nothing here was measured."""

from decoding.measuring.records import Record, save


def record(
    rung="naive",
    *,
    per_token=10.0,
    around=0.1,
    growth=0.0,
    work_grows=1.4,
    reserved=1000.0,
    allocated=800.0,
    batch=32,
    prompt=128,
    new=512,
    idle=0.25,
    gpu=True,
    error=None,
    variant=None,
    together="a-ladder",
    processes=3,
    card="a-card",
    code="code",
):
    """Return a ``Record`` as ``measure`` makes them.

    Args:
        per_token: median of the time per token, in ms; the range is ``around`` to either side.
        growth: ms that the last step takes longer than the first.
        work_grows: how many times the GPU's work for the first token that for the last is.
        reserved, allocated: peaks in MiB, reached in a straight line from half of them.
        gpu: False for the record of a CPU, which has neither memory nor GPU figures.
        error: why the row failed; then it has no figures at all.
        together, processes, card, code: the ladder it is of, how many processes it had, its card, the
            hash of the code that all rungs share.
    """
    labels = {"kv_cache": "KV cache"}
    curve = [per_token + growth * (i / max(new - 2, 1) - 0.5) for i in range(new - 1)]
    ramp = [0.5 + 0.5 * i / max(new - 1, 1) for i in range(new)]
    spread = {"median": per_token, "min": per_token - around, "max": per_token + around}
    whole = {key: value * new for key, value in spread.items()}
    allocator = "expandable_segments" if rung == "expandable_segments" else "default"
    plain = {"compile_mode": None, "stop_check": True, "cache_length": None}
    plain |= {"allocator": allocator, "rung_allocator": allocator}
    made = {
        "schema": 2,
        "together": together,
        "rung": rung,
        "label": labels.get(rung, rung.replace("_", " ")),
        "variant": plain | (variant or {}),
        "workload": {
            "model": "gpt2",
            "batch_size": batch,
            "prompt_tokens": prompt,
            "new_tokens": new,
            "dtype": "bfloat16",
            "seed": 0,
            "repeats": 3,
        },
        "machine": {
            "device": "cuda" if gpu else "cpu",
            "gpu": "A made-up GPU" if gpu else None,
            "gpu_id": card if gpu else None,
            "date": "2026-11-25T00:00:00Z",
            "allocator": (variant or {}).get("allocator", allocator) if gpu else None,
            "common_code": code,
            "gpu_memory_mib": 80_000 if gpu else None,
        },
        "time": {
            "per_token_ms": spread,
            "spread_over": processes,
            "tokens_ms": {"p50": per_token, "p95": 1.2 * per_token, "p99": 1.5 * per_token},
            "once_s": {
                "initialize": 2.0,
                "first_run": 0.003 * whole["median"],
                "first_run_warm_caches": 0.002 * whole["median"],
                "warm_run": 0.001 * whole["median"],
            },
            "prefill_ms": spread,
            "total_ms": whole,
            "cold_total_ms": 3 * whole["median"],
            "cold_prefill_ms": 3 * per_token,
            "cold_per_token_ms": 3 * per_token,
            "curve_ms": curve,
            "cold_curve_ms": [3 * value for value in curve],
        },
        "memory": {
            "allocated_mib": [allocated * part for part in ramp],
            "reserved_mib": [reserved * part for part in ramp],
            "peak_allocated_mib": allocated,
            "peak_reserved_mib": reserved,
            "peak_allocated_cold_mib": 1.1 * allocated,
            "peak_reserved_cold_mib": 1.1 * reserved,
            "model_mib": 250.0,
            "alloc_retries": 0,
            "segments": 10,
        },
        "gpu": {
            "busy_ms_per_token": per_token * (1 - idle),
            "idle_share": idle,
            "kernels_per_token": 100.0,
            "curve_steps": [new / 4, new / 2, 3 * new / 4],
            "curve_busy_ms": [
                0.5 * per_token * part for part in (1, (1 + work_grows) / 2, work_grows)
            ],
        },
        "tokens_sha256": "0" * 64,
        "tokens_generated": new,
        "notes": [],
        "error": error,
    }
    if not gpu:
        made |= {"memory": None, "gpu": None, "notes": ["on a CPU: no memory and GPU figures"]}
    if error:
        made |= {"time": None, "memory": None, "gpu": None, "tokens_generated": 0}
    return Record(made)


def entrant(milliseconds, label=None):
    """Return what a race found of a loop whose runs all took the same time per token."""
    times = dict.fromkeys(("median", "min", "max"), milliseconds)
    race = {"together": "a-race", "workload": {}, "machine": {"gpu_id": "a-card"}}
    return Record({"per_token_ms": times, "spread_over": 3}, label=label, race=race)


def save_endings(folder):
    """One race of all ways to end the waiting, for both batch sizes."""
    times = {
        "compiled, at once": 0.9,
        "compiled, never": 0.55,
        "two streams": 0.56,
        "deferred check": 0.61,
        "captured, at once": 0.6,
        "captured, never": 0.56,
        "captured graph": 0.566,
        "device loop": 0.563,
    }
    for batch in (32, 1):
        found = {"schema": 2, "together": "x", "machine": {"gpu_id": "a-card"}, "workload": {}}
        found["results"] = {loop: entrant(time) for loop, time in times.items()}
        save(found, folder / f"endings_gpt2_b{batch}.json")
