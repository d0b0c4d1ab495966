r"""Classifiers of handwritten digits beside a generative run's posterior.

    pip install scikit-learn
    python experiments/datasets.py --name=digits --output=digits.npz
    python experiments/train.py --preset=digits --condition_on=label --data=digits.npz \
        --workdir=runs/digits
    python experiments/score.py --workdir=runs/digits --split=test --posterior=label
    python benchmarks/digit_classifiers.py --data=digits.npz

and of what is drawn given a label, a hundred images of each:

    python -c "print('label', *sorted(list(range(10)) * 100), sep='\\n')" > rows.csv
    python experiments/sample.py --workdir=runs/digits --condition_from=rows.csv --output=drawn.npz
    python benchmarks/digit_classifiers.py --data=digits.npz --samples=drawn.npz

Prints the accuracy and the log loss on the test images of classifiers that are given the same
training images, and how often the best of them finds in a sample the label it was drawn given.
"""

import numpy as np
from absl import app, flags
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FLAGS = flags.FLAGS
CLASSIFIERS = {
    "Gaussian naive Bayes": GaussianNB(var_smoothing=1e-2),
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    "5 nearest neighbours": KNeighborsClassifier(5),
}


def flat(images: np.ndarray) -> np.ndarray:
    """Images [N, 8, 8] as rows of 64 numbers."""
    return images.reshape(-1, 64).astype(float)


def main(_: list[str]) -> None:
    """Scores the classifiers, and samples by the last of them."""
    data = np.load(FLAGS.data)
    labels = data["test_label"]
    for name, classifier in CLASSIFIERS.items():
        classifier.fit(flat(data["train"]), data["train_label"])
        probs = classifier.predict_proba(flat(data["test"]))
        accuracy, loss = accuracy_score(labels, probs.argmax(1)), log_loss(labels, probs)
        print(f"{name}: accuracy {accuracy:.4f}, log loss {loss:.4f} nats")
    if FLAGS.samples:
        (samples,) = np.load(FLAGS.samples).values()
        found = classifier.predict(flat(samples)).reshape(10, -1)
        right = (found == np.arange(10)[:, None]).mean(1)
        print(
            f"samples: {right.mean():.4f} are of their label, of 0 to 9 {right.round(2).tolist()}"
        )


if __name__ == "__main__":
    flags.DEFINE_string("data", "digits.npz", "File of experiments/datasets.py.")
    flags.DEFINE_string("samples", "", "File of sample.py with as many images of each digit.")
    app.run(main)
