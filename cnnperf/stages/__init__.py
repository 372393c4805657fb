"""Stages, the measurements of a network. One file per stage; `measure(bench, settings)` yields Measurements."""

from cnnperf.bench import Bench as Bench
from cnnperf.bench import Settings as Settings
