"""How results are shown. One file a format; `write(report, out)`."""
