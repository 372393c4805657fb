"""What is done with a network. One file a stage; `measure(bench, settings)` yields Measurements."""

from cnnperf.bench import Bench as Bench
from cnnperf.bench import Settings as Settings
