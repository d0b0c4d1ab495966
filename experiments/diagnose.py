"""Launch point of `grnn_jax.cli.diagnose`, where its flags and what it does are."""

from grnn_jax.cli.diagnose import main

if __name__ == "__main__":
    main()
