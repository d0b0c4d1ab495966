"""The state of a sample: kept in a file, restored, forked."""

import enumerable
import jax
import numpy as np

import grnn_jax
from grnn_jax import sampling


def test_a_state_is_kept_restored_and_forked(tmp_path):
    model, params = enumerable.make(4, end=3)
    params["distribution"]["bias"] = params["distribution"]["bias"].at[3].set(-3.0)
    stop = sampling.stop_sequences([[1, 2, 1]], 4)
    settings = {"stop": stop, "repetition_penalty": 0.7}
    begun = sampling.start(model, params, jax.random.key(0), 6, prefix=np.array([2]))
    whole = sampling.extend(model, params, begun, 8, **settings)
    head = sampling.extend(model, params, begun, 4, **settings)
    leaves, tree = jax.tree.flatten(sampling.to_arrays(head.state))
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        read = [file[f"arr_{number}"] for number in range(len(leaves))]
    restored = sampling.from_arrays(jax.tree.unflatten(tree, read))
    rest = sampling.extend(model, params, restored, 4, **settings)
    np.testing.assert_array_equal(rest.events, whole.events[:, 4:])
    np.testing.assert_array_equal(rest.mask, whole.mask[:, 4:])
    np.testing.assert_array_equal(head.events, whole.events[:, :4])

    rows = np.array([5, 0, 0, 0, 2, 5])
    same = sampling.extend(model, params, sampling.fork(head.state, rows), 4, **settings)
    np.testing.assert_array_equal(same.events, np.asarray(rest.events)[rows])
    key = jax.random.key(9)
    apart = sampling.extend(model, params, sampling.fork(begun, [0] * 6, key), 8, **settings)
    again = sampling.extend(model, params, sampling.fork(begun, [3] * 6, key), 8, **settings)
    np.testing.assert_array_equal(apart.events, again.events)  # All began alike.
    assert len(np.unique(apart.events, axis=0)) > 2
    plain = grnn_jax.sample(
        model, params, jax.random.key(0), 6, 8, prefix=np.array([2]), **settings
    )
    np.testing.assert_array_equal(plain.events, whole.events)
