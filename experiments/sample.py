"""Launch point of `grnn_jax.cli.sample`, where its flags and what it does are."""

from grnn_jax.cli.sample import main

if __name__ == "__main__":
    main()
