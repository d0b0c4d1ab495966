"""Launch point of `grnn_jax.cli.score`, where its flags and what it does are."""

from grnn_jax.cli.score import main

if __name__ == "__main__":
    main()
