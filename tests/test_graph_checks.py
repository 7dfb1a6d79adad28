"""The race of checks beside a captured graph, small."""

from decoding.measuring import Workload
from decoding.measuring.graph_checks import ENTRANTS, graph_checks

SMALL = Workload("gpt2-tiny", 2, 4, 6, dtype="float32", device="cpu", repeats=3)


def test_all_race_and_choose_the_same_tokens():
    results = graph_checks(SMALL)["results"]
    assert set(results) == {*ENTRANTS, "captured, at once", "device loop, untold"}
    assert len({result["tokens_sha256"] for result in results.values()}) == 1
    assert all(result["spread_over"] == 3 for result in results.values())
    assert "per_token_ms" in results["device loop"]
    assert "per_token_ms" not in results["device loop, untold"]
