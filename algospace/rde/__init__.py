"""The regime detection engine."""
