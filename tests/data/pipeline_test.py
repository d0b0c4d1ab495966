import numpy as np
import pytest
from absl import flags
from grain import checkpoint as grain_checkpoint

from grnn_jax.data.corpus import Corpus
from grnn_jax.data.pipeline import eval_batches, train_iterator, windows_per_epoch
from grnn_jax.errors import InputError

flags.FLAGS.mark_as_parsed()


def make_corpus(num_events, num_sequences=1, seed=0, is_stream=False):
    """Every token is its own position, so that batches show where each event came from."""
    rng = np.random.default_rng(seed)
    cuts = rng.choice(np.arange(1, num_events), num_sequences - 1, replace=False)
    return Corpus(
        np.arange(num_events, dtype=np.int32),
        np.sort(np.concatenate([[0, num_events], cuts])).astype(np.int64),
        is_stream,
    )


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def concatenate(batches):
    """Windows side by side: the streams."""
    fields = zip(*(batch[:3] for batch in batches), strict=True)
    return [np.concatenate(field, axis=1) for field in fields]


def side_by_side(batches):
    """The rows of all batches, without conditions."""
    return [np.concatenate(field) for field in zip(*(b[:3] for b in batches), strict=True)]


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


CASES = [(100, 1, 4, 8), (101, 7, 4, 8), (97, 30, 5, 3), (64, 64, 3, 16), (50, 3, 8, 40)]


@pytest.mark.parametrize(("n", "sequences", "rows", "length"), CASES)
def test_text_streams_are_contiguous(n, sequences, rows, length):
    corpus = make_corpus(n, sequences, is_stream=True)
    windows = windows_per_epoch(corpus, rows, length)
    iterator = train_iterator(corpus, rows, length, seed=0)
    for _ in range(2):  # Two epochs are alike.
        batches = take(iterator, windows)
        assert all(b.events.shape == (rows, length) for b in batches)
        assert batches[0].events.dtype == np.int32 and batches[0].mask.dtype == bool
        events, mask, reset = concatenate(batches)
        assert mask[:, -length:].any()  # No window is all padding.
        for b in range(rows):
            expected = np.arange(b * n // rows, (b + 1) * n // rows)
            np.testing.assert_array_equal(events[b][mask[b]], expected)
            assert mask[b, : len(expected)].all()  # Padding comes last.
            starts = np.isin(expected, corpus.offsets)
            starts[0] = True
            np.testing.assert_array_equal(reset[b, : len(expected)], starts)
        assert not reset[~mask].any() and not events[~mask].any()


@pytest.mark.parametrize(("n", "sequences", "rows", "length"), CASES)
def test_line_streams_hold_whole_lines(n, sequences, rows, length):
    corpus = make_corpus(n, sequences)
    lines = {int(a): int(b) for a, b in zip(corpus.offsets, corpus.offsets[1:], strict=False)}
    windows = windows_per_epoch(corpus, rows, length, cut_few=False)
    longest = max(b - a for a, b in lines.items())
    assert windows <= -(-(-(-n // rows) + longest) // length)  # Little is padded.
    iterator = train_iterator(corpus, rows, length, seed=3, cut_few=False)
    orders = []
    for _ in range(3):
        events, mask, reset = concatenate(take(iterator, windows))
        assert mask[:, -length:].any()
        assert not reset[~mask].any()
        np.testing.assert_array_equal(np.sort(events[mask]), np.arange(n))
        order = []
        for b in range(rows):
            stream, heads = events[b][mask[b]], np.flatnonzero(reset[b])
            assert mask[b, : len(stream)].all()
            assert len(stream) == 0 or heads[0] == 0
            for line in np.split(stream, heads[1:]):
                if len(line):
                    np.testing.assert_array_equal(line, np.arange(line[0], lines[int(line[0])]))
                    order.append(int(line[0]))
        assert sorted(order) == sorted(lines)
        orders.append(order)
    if sequences >= 30:
        assert orders[0] != orders[1] != orders[2]  # Each epoch has an order of its own.


def test_seed_decides_the_order_of_lines():
    corpus = make_corpus(400, 60)

    def first(seed):
        return next(train_iterator(corpus, 2, 100, seed)).events

    np.testing.assert_array_equal(first(1), first(1))
    assert (first(1) != first(2)).any()


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_state_is_restored(is_stream, num_threads):
    corpus = make_corpus(300, 40, is_stream=is_stream)

    def make():
        return train_iterator(corpus, 4, 7, 5, num_threads=num_threads)

    uninterrupted = take(make(), 60)
    iterator = make()
    for stop in (0, 1, 13, 40):  # Also in later epochs, also backwards.
        while iterator.get_state()["next_index"] < stop:
            next(iterator)
        state = iterator.get_state()
        take(iterator, 5)
        for restored in (iterator, make()):
            restored.set_state(state)
            for got, expected in zip(take(restored, 9), uninterrupted[stop:], strict=False):
                assert_equal(got, expected)
        iterator.set_state(state)


def test_checkpoint_handler(tmp_path):
    from etils import epath

    corpus = make_corpus(300, 40)
    iterator = train_iterator(corpus, 4, 7, 5)
    take(iterator, 17)
    grain_checkpoint.CheckpointHandler().save(epath.Path(tmp_path), iterator)
    expected = take(iterator, 4)
    other = train_iterator(corpus, 4, 7, 5)
    grain_checkpoint.CheckpointHandler().restore(epath.Path(tmp_path), other)
    for a, b in zip(take(other, 4), expected, strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize("is_stream", [True, False])
def test_processes_share_the_rows(is_stream):
    corpus = make_corpus(211, 30, is_stream=is_stream)
    whole = take(train_iterator(corpus, 6, 5, 1), 30)
    parts = [take(train_iterator(corpus, 6, 5, 1, p, 3), 30) for p in range(3)]
    for i, batch in enumerate(whole):
        assert_equal(side_by_side([p[i] for p in parts]), batch[:3])
    whole = list(eval_batches(corpus, 6, 5))
    parts = [list(eval_batches(corpus, 6, 5, p, 3)) for p in range(3)]
    assert {len(p) for p in parts} == {len(whole)}
    for i, batch in enumerate(whole):
        assert_equal(side_by_side([p[i] for p in parts]), batch[:3])


@pytest.mark.parametrize(("n", "sequences"), [(1, 1), (5, 2), (50, 9), (333, 40), (1000, 3)])
@pytest.mark.parametrize(("rows", "length", "context"), [(4, 8, 0), (4, 8, 20), (6, 32, 5)])
@pytest.mark.parametrize("is_stream", [True, False])
def test_every_event_is_scored_once(n, sequences, rows, length, context, is_stream):
    corpus = make_corpus(n, sequences, is_stream=is_stream)
    scored = [[], []]
    for process in range(2):
        for batch in eval_batches(corpus, rows, length, process, 2, context=context):
            assert batch.events.shape == (rows // 2, length)
            scored[process].append(batch.events[batch.mask])
    events = np.concatenate([e for process in scored for e in process])
    np.testing.assert_array_equal(np.sort(events), np.arange(n))


def test_eval_context_is_fed_but_not_scored():
    corpus = make_corpus(400, 5, is_stream=True)
    events, mask, reset = concatenate(list(eval_batches(corpus, 4, 16, context=30)))
    for b in range(4):
        first = max(0, 100 * b - 30)
        expected = np.arange(first, 100 * (b + 1))
        np.testing.assert_array_equal(events[b, : len(expected)], expected)
        np.testing.assert_array_equal(
            mask[b, : len(expected)], (expected >= 100 * b) & (expected < 100 * b + 100)
        )
        starts = np.isin(expected, corpus.offsets)
        starts[0] = True
        np.testing.assert_array_equal(reset[b, : len(expected)], starts)
        assert not mask[b, len(expected) :].any()


def test_fewer_sequences_than_rows_are_cut():
    corpus = make_corpus(200, 2)
    windows = windows_per_epoch(corpus, 8, 5)
    assert windows == 5  # 200 events over 8 rows.
    batches = take(train_iterator(corpus, 8, 5, seed=0), windows)
    events, mask, reset = concatenate(batches)
    np.testing.assert_array_equal(np.sort(events[mask]), np.arange(200))
    np.testing.assert_array_equal(events[:, 0], 25 * np.arange(8))
    assert set(corpus.offsets[:-1]) <= set(events[reset])


def test_eval_lines_keep_the_order_of_the_file():
    corpus = make_corpus(200, 30)
    events, mask, reset = concatenate(list(eval_batches(corpus, 3, 16)))
    np.testing.assert_array_equal(events[mask], np.arange(200))
    np.testing.assert_array_equal(events[reset], corpus.offsets[:-1])


def test_short_evaluation_does_not_pay_for_many_contexts():
    batches = list(eval_batches(make_corpus(300, is_stream=True), 64, 100, context=100))
    assert len(batches) == 2 and batches[0].events.shape == (64, 100)
    assert (batches[0].mask.any(axis=1) | batches[1].mask.any(axis=1)).sum() == 3


def test_memory_map_is_not_loaded(tmp_path):
    tokens = np.memmap(tmp_path / "t", np.uint8, mode="w+", shape=1 << 20)
    corpus = Corpus(tokens, np.array([0, 1 << 20]), is_stream=True)
    iterator = train_iterator(corpus, 2, 4, 0, num_threads=0)
    tokens[:4] = 9  # Seen through the pipeline only if it reads the file itself.
    np.testing.assert_array_equal(next(iterator).events[0], [9, 9, 9, 9])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 0, 1), "batch_size must be at least 1, got 0"),
        ((4, -1, 0, 1), "sequence_length must be at least 1, got -1"),
        ((4, 4, 0, 0), "process_count must be at least 1, got 0"),
        ((4, 4, 2, 2), r"process_index must be in 0 \.\. 1, got 2"),
        ((5, 4, 0, 2), "multiple of the number of processes, got batch_size=5 for 2 processes"),
    ],
)
def test_bad_sizes(arguments, message):
    rows, length, index, count = arguments
    corpus = make_corpus(50, is_stream=True)
    with pytest.raises(InputError, match=message):
        train_iterator(corpus, rows, length, 0, index, count)
    with pytest.raises(InputError, match=message):
        eval_batches(corpus, rows, length, index, count)


def test_too_little_data():
    corpus = make_corpus(50, is_stream=True)
    with pytest.raises(InputError, match=r"has 50 events, fewer than one window .*=51"):
        train_iterator(corpus, 2, 51, 0)
    next(train_iterator(corpus, 2, 50, 0))
    empty = Corpus(np.empty(0, np.uint8), np.zeros(1, np.int64))
    with pytest.raises(InputError, match="training data has no events"):
        train_iterator(empty, 2, 4, 0)
    with pytest.raises(InputError, match="data to evaluate has no events"):
        eval_batches(empty, 2, 4)
    with pytest.raises(InputError, match="context must be at least 0, got -1"):
        eval_batches(corpus, 2, 4, context=-1)
