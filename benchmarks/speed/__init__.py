"""The speed of a step, compared with PyTorch's and with the machine's own limits."""
