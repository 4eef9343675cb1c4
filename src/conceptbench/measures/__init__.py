"""Measures: sparse codes and labels in, tidy tables out; one file per question, and nothing here trains."""
