"""`python -m pegasus_py` is `pegasus`, and the installed command begins here, too."""

from pegasus_py.cli import ctrlc

ctrlc.ends_at_once()

from pegasus_py.cli.main import main  # noqa: E402 -- takes a moment

if __name__ == "__main__":
    main()
