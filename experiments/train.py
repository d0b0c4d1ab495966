"""Launch point of `grnn_jax.cli.train`, where its flags and what it does are."""

from grnn_jax.cli.train import main

if __name__ == "__main__":
    main()
