"""Entry point with which another revision of cnnperf starts its side of a comparison; the protocol fixes the name."""

import sys

from cnnperf.duet.turns import Baton
from cnnperf.ipc.channel import Line
from cnnperf.workers.paired_code import main

if __name__ == "__main__":
    main(Line(int(sys.argv[2])), Baton(int(sys.argv[1])))
