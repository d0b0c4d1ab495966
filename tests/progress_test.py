"""What a run counts."""

import math

import pytest

from grnn_jax.progress import Progress


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_never_the_best(bad):
    progress = Progress()
    assert not progress.add_score(bad, 1)
    assert (progress.best_nats, progress.best_step, progress.since_best) == (None, -1, 1)
    assert progress.add_score(2.0, 2)
    assert not progress.add_score(bad, 3)
    assert (progress.best_nats, progress.best_step, progress.last_step) == (2.0, 2, 3)


def test_the_mean_since_the_last_line():
    progress = Progress()
    progress.add_events(6.0, 2, 0.5)
    progress.add_events(2.0, 2, 0.25)
    assert progress.take_mean(7) == (2.0, 4)
    assert (progress.logged_step, progress.grad_norm) == (7, 0.25)
    assert progress.take_mean(8) == (0.0, 0)
