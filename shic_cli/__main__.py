"""`python -m shic_cli` is the `shic` command."""

from shic_cli.cli import main

if __name__ == "__main__":
    main()
