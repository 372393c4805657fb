"""One network measured without a suite: `cnnperf.profile` and `cnnperf.infer`."""
