"""The CPU benchmark, part by part."""
