"""Causal indicators: arrays in, arrays of the same length out; row t knows rows 0..t only."""
