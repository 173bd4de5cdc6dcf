"""`python -m pegasus_py` is `pegasus`."""

from pegasus_py.cli.main import main

if __name__ == "__main__":
    main()
