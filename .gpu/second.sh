#!/bin/bash
# The fused step in the larger sizes. Two minutes at most.
export PYTHONPATH=$PWD/src
timeout 200 ${PYTHON:-python} -m pytest tests/test_fused_step.py -q -p no:xdist -m gpu -k "OtherSizes" 2>&1 | tail -15
