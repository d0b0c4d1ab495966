"""What dropout masks are drawn by: rows, steps, sequences and sites."""

import jax
import jax.numpy as jnp
import numpy as np

from grnn_jax.recurrence.dropout import dropout, dropout_index


def test_indices_count_rows_steps_and_the_sequences_of_a_row():
    reset = jnp.asarray([[True, False, True, False], [False, False, False, True]])
    index = dropout_index(2, 4, reset, first_row=5)
    np.testing.assert_array_equal(index.row, [[5] * 4, [6] * 4])
    np.testing.assert_array_equal(index.step, [[0, 1, 2, 3]] * 2)
    np.testing.assert_array_equal(index.sequence, [[1, 1, 2, 2], [0, 0, 0, 1]])
    assert dropout_index(2, 3, None).sequence.tolist() == [[0, 0, 0]] * 2


def test_every_site_of_every_row_has_a_number_of_its_own():
    """Those of row b are the numbers after all sites of the rows before it."""
    index = dropout_index(2, 3, None, first_row=4).of_sites(5)
    assert index.row.shape == index.step.shape == index.sequence.shape == (10, 3)
    np.testing.assert_array_equal(index.row[:, 0], np.arange(20, 30))
    np.testing.assert_array_equal(index.step, [[0, 1, 2]] * 10)


def test_masks_differ_between_rows_and_steps_and_are_shared_by_a_sequence():
    key, ones = jax.random.key(0), jnp.ones((4, 3, 64))
    reset = jnp.asarray([[True, False, True, False]] * 3)
    index = dropout_index(3, 4, reset)
    by_step = np.asarray(dropout(key, ones, 0.5, index.of_steps()))
    assert len({mask.tobytes() for mask in by_step.reshape(-1, 64)}) == 12
    by_sequence = np.asarray(dropout(key, ones, 0.5, index.of_sequences()))
    assert len({mask.tobytes() for mask in by_sequence.reshape(-1, 64)}) == 6
    np.testing.assert_array_equal(by_sequence[0], by_sequence[1])
    assert set(np.unique(by_step)) == {0.0, 2.0}
