"""What every test shares: real data only where it is, CUDA only where it is, one thread of torch."""
