"""What each operator of the domain ``gocor`` is, and its implementations."""
