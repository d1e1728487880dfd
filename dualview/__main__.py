"""`python -m dualview`, which is what accelerate launch runs."""

from dualview.cli import main

if __name__ == "__main__":
    main()
