"""The adjoint of ``LocalCorrelation`` with respect to its reference."""
