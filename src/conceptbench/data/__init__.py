"""Images with labels, captions, factors, masks and splits (docs/formats.md, "Dataset")."""
