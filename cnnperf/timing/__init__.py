"""Timing of callables and of training steps."""
