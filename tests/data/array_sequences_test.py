import numpy as np
import pytest

from grnn_jax.data.array_sequences import finite_numbers, is_array_file, read_array_sequences
from grnn_jax.errors import InputError


def ragged(*arrays):
    found = np.empty(len(arrays), object)
    found[:] = arrays
    return found


def test_one_a_stack_and_ragged(tmp_path):
    path = str(tmp_path / "a.npz")
    one, stack = np.arange(6).reshape(3, 2), np.arange(12).reshape(2, 3, 2)
    np.savez(path, one=one, stack=stack, ragged=ragged(one[:1], one[:2]))
    assert is_array_file(path) and is_array_file("A.NPY") and not is_array_file("a.csv")
    found = read_array_sequences(path, 2)
    assert list(found) == [""] and found[""].ids is None
    got = dict(zip(found[""].names, found[""].items, strict=True))
    expected = {
        f"{path}, one": one,
        f"{path}, stack[0]": stack[0],
        f"{path}, stack[1]": stack[1],
        f"{path}, ragged[0]": one[:1],
        f"{path}, ragged[1]": one[:2],
    }
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)
    np.save(tmp_path / "a.npy", one)
    found = read_array_sequences(str(tmp_path / "a.npy"), 2)[""]
    assert found.names == [str(tmp_path / "a.npy")]


def test_splits_leave_other_arrays_out(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, test=np.ones((4, 1)), labels=np.arange(9), train=np.zeros((2, 3, 1)))
    found = read_array_sequences(path, 2)
    assert {split: len(sequences.items) for split, sequences in found.items()} == {
        "train": 2,
        "test": 1,
    }


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.float16, np.float64])
def test_finite_numbers(dtype):
    array = np.array([[0, 1], [-2 if np.dtype(dtype).kind != "u" else 2, 127]], dtype)
    found = finite_numbers(array, "x", ("a", "b"))
    assert found.dtype == np.float64 and found.tolist() == array.tolist()
    for bad, what in ((array[:, :1], r"\[T, 2\], got \[2, 1\]"), (array > 0, "numbers, got bool")):
        with pytest.raises(InputError, match=f"^x: expected .*{what}"):
            finite_numbers(bad, "x", ("a", "b"))
    with pytest.raises(InputError, match=r"^x, row 1, b: expected a finite number, got 1e\+39"):
        finite_numbers(np.array([[0, 1], [1, 1e39]]), "x", ("a", "b"))


def test_steps_end_to_end(tmp_path):
    path, steps = str(tmp_path / "a.npz"), np.arange(12).reshape(6, 2)
    np.savez(path, X=steps, lengths=[3, 0, 2, 1])
    sequences = read_array_sequences(path, 2)[""]
    assert sequences.names == [f"{path}, X[{i}]" for i in range(4)]
    parts = [steps[:3], steps[:0], steps[3:5], steps[5:]]
    assert [item.tolist() for item in sequences.items] == [part.tolist() for part in parts]
    np.savez(path, train=steps[:, 0], train_lengths=[2, 4], test=steps)
    splits = read_array_sequences(path, 2)
    assert [item.tolist() for item in splits["train"].items] == [[0, 2], [4, 6, 8, 10]]
    np.savez(path, X=steps, lengths=[3, 2])
    with pytest.raises(InputError, match=r"expected 1 whole numbers, or lengths that add up to 6"):
        read_array_sequences(path, 2)


@pytest.mark.parametrize(
    "other", [np.arange(4), np.arange(4.0)[:, None], np.array(["a", "b"]), np.zeros(()),
              np.zeros((4, 5)), np.zeros((4, 3, 1, 2))]
)  # fmt: skip
def test_labels_are_no_sequences(tmp_path, other):
    path = str(tmp_path / "a.npz")
    np.savez(path, X=np.zeros((4, 3, 1)), y=other)
    with pytest.raises(InputError) as error:
        read_array_sequences(path, 2)
    assert "expected arrays [N, T, C] or [T, C] of one kind" in str(error.value)
    assert "X is float64 [4, 3, 1], 4 sequences; y is" in str(error.value)
    np.savez(path, train=np.zeros((4, 3, 1)), y=other)
    assert len(read_array_sequences(path, 2)["train"].items) == 4


def test_the_log_says_what_each_array_was_taken_for(tmp_path, caplog):
    path = str(tmp_path / "a.npz")
    np.savez(path, train=np.zeros((4, 3, 1)), test=np.zeros((5, 1)), labels=np.zeros(4))
    with caplog.at_level("INFO", "grnn_jax"):
        read_array_sequences(path, 2)
    assert caplog.messages == [
        f"{path}: train is float64 [4, 3, 1], 4 sequences; test is float64 [5, 1], one sequence; "
        "left out labels"
    ]


def test_a_dict_is_no_array(tmp_path):
    path = str(tmp_path / "a.npy")
    np.save(path, {"x": np.zeros(3), "y": np.ones(2)}, allow_pickle=True)
    with pytest.raises(
        InputError, match=r"\[0\]: expected an array of numbers, got a dict with the "
    ):
        read_array_sequences(path, 2)
