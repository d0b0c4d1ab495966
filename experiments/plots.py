"""Launch point of `grnn_jax.cli.plots`, where its flags and what it does are."""

from grnn_jax.cli.plots import main

if __name__ == "__main__":
    main()
