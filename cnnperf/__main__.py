"""`python -m cnnperf` is the command `cnnperf`."""

from cnnperf.cli import main

if __name__ == "__main__":
    main()
