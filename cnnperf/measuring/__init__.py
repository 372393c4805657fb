"""A suite, or one network without a suite (`cnnperf.profile`, `cnnperf.infer`), measured and reported in one call."""
