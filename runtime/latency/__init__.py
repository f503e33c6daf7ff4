"""How long a network takes at any widths, node by node, measured."""
