"""The commands of ``gocor``, one module each: parse, one library call, print the report."""
