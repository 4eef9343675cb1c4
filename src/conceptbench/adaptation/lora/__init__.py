"""CLIP-LoRA: low-rank changes of attention weights, put into a model and taken out again."""
