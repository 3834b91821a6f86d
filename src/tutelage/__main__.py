"""`python -m tutelage`: the command, for launchers that start modules (`torchrun -m tutelage`)."""

from tutelage.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
