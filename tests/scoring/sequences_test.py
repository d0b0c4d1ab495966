"""Sums, orders and units of sequences against plain loops."""

import math

import numpy as np
import pytest

from grnn_jax.scoring import SequenceScores, sum_sequences, summary


def test_sums_equal_a_loop_also_around_empty_sequences():
    rng = np.random.default_rng(0)
    lengths = [0, 3, 0, 0, 5, 1, 0]
    offsets = np.cumsum([0, *lengths])
    values = rng.normal(size=9).astype(np.float32)
    expected = [
        math.fsum(float(v) for v in values[a:b]) for a, b in zip(offsets, offsets[1:], strict=False)
    ]
    np.testing.assert_allclose(sum_sequences(values, offsets), expected, rtol=1e-12)
    # Float32 sums would lose the small ones.
    big = np.full(2**20, 0.1, np.float32)
    np.testing.assert_allclose(
        sum_sequences(big, np.array([0, 2**20])), [2**20 * float(big[0])], rtol=1e-12
    )


def test_orders_and_units():
    scores = SequenceScores(np.array([4, 2, 2, 1]), np.array([4.0, 3.0, 3.0, 5.0]))
    assert scores.order("").tolist() == [0, 1, 2, 3]
    assert scores.order("nats").tolist() == [1, 2, 0, 3]
    assert scores.order("nats_per_event").tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="another model"):
        scores.order("log_ratio")
    with pytest.raises(ValueError, match="rank must be one of nats, .*'length'"):
        scores.order("length")
    both = scores._replace(other_nats=np.array([5.0, 2.0, 6.0, 5.0]))
    assert both.order("log_ratio").tolist() == [2, 0, 3, 1]
    assert both.record(2) == {
        "num_events": 2, "nats": 3.0, "bits": pytest.approx(3 / math.log(2)),
        "nats_per_event": 1.5, "bits_per_event": pytest.approx(1.5 / math.log(2)),
        "perplexity": pytest.approx(math.exp(1.5)), "other_nats": 6.0, "log_ratio": 3.0,
    }  # fmt: skip
    whole = summary(both)
    assert (whole["num_sequences"], whole["num_events"]) == (4, 9)
    assert whole["nats_per_event"] == pytest.approx(15 / 9)
    assert whole["log_ratio_per_sequence"] == pytest.approx((18 - 15) / 4)
