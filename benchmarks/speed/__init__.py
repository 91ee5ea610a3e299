"""How fast a step is, beside a peer and the machine's own limits."""
