"""The command line: thin commands over the library; results go to stdout, everything else to stderr."""

from cnnperf.cli.app import main as main
