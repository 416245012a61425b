"""AlgoSpace: from raw intraday bars to an audited, exported multi-agent trading policy."""

__version__ = "0.1.0"
