"""The command line: thin commands over the library; stdout carries the result, stderr everything else."""

from cnnperf.cli.app import main as main
