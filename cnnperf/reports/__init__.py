"""How results are shown. One file a format; `write(report: Report, out: TextIO)`, which csv takes a folder for too."""
