"""Figures: tidy tables in, pictures and the plotted values out; one file per figure, no statistics."""
