"""Studies of speed and optimizers: of the checkout, not of the wheel."""
