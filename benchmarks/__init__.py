"""Measurements of speed and memory against other toolkits: `make bench`. Never part of the tests."""
