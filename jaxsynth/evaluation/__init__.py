"""How good is a prior? Figures of a generator and its networks on photographs never trained on."""
