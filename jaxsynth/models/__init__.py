"""Networks: what a model is, its weights file, the architectures."""
