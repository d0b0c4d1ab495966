"""Writes the train and validation text that char-rnn's loader makes of one file.

    python benchmarks/char_rnn_split.py input.txt OUTPUT_DIR
    python experiments/train.py --preset=tinyshakespeare_long \
        --data=OUTPUT_DIR/train.txt --valid_data=OUTPUT_DIR/valid.txt --eval_batch_size=50

char-rnn (util/CharSplitLMMinibatchLoader.lua) lays the text out as 50 streams, cuts them into
windows of 50 characters, and validates on the last 5% of the windows of every stream: 1,150
characters each from 50 places, 57,500 in all for Tiny Shakespeare, not the last 5% of the text.
"""

import pathlib
import sys

BATCH_SIZE, SEQUENCE_LENGTH, TRAIN_FRACTION = 50, 50, 0.95


def split(text: str) -> tuple[str, str]:
    """The characters that train and those that validate, each stream after the other."""
    num_windows = len(text) // (BATCH_SIZE * SEQUENCE_LENGTH)
    length = num_windows * SEQUENCE_LENGTH
    cut = int(num_windows * TRAIN_FRACTION) * SEQUENCE_LENGTH
    streams = [text[b * length : (b + 1) * length] for b in range(BATCH_SIZE)]
    return "".join(s[:cut] for s in streams), "".join(s[cut:] for s in streams)


def main() -> None:
    """Reads a text, writes train.txt and valid.txt."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
    directory = pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    for name, part in zip(("train", "valid"), split(text), strict=True):
        (directory / f"{name}.txt").write_text(part, encoding="utf-8")
        print(f"{directory / name}.txt: {len(part):,} characters")


if __name__ == "__main__":
    main()
