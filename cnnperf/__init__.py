"""cnnperf."""
