#!/bin/bash
# The fused step on a GPU: its time beside the device loop, then its tokens. About a minute.
export PYTHONPATH=$PWD/src PYTHON=${PYTHON:-python} OUT=${OUT:-_build/gpu}
mkdir -p "$OUT"
cat > "$OUT/fused.py" <<'PY'
import os

from decoding.measuring.fused import fused_steps
from decoding.measuring.records import save

if __name__ == "__main__":
    loops = "device loop", "one after another", "dependent launch"
    found = fused_steps(loops=loops)
    for loop, record in found["results"].items():
        times = record["per_token_ms"]
        print(loop, {key: times[key] for key in ("min", "median", "max")}, "kernels", record.kernels, "busy", record.busy_ms)
    save(found, os.path.join(os.environ["OUT"], "fused_first.json"))
PY
timeout 90 $PYTHON "$OUT/fused.py" 2>&1 | tail -12
timeout 120 $PYTHON -m pytest tests/test_fused_step.py -q -x -p no:xdist -m gpu -k "TestOnGpu" 2>&1 | tail -15
