"""Prompts inside a model: hooks that insert learned tokens, and text prompts as token sequences."""
