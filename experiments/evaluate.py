"""Launch point of `grnn_jax.cli.evaluate`, where its flags and what it does are."""

from grnn_jax.cli.evaluate import main

if __name__ == "__main__":
    main()
