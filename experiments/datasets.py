"""Launch point of `grnn_jax.cli.datasets`, where its flags and what it does are."""

from grnn_jax.cli.datasets import main

if __name__ == "__main__":
    main()
