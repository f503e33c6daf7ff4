"""The round trip through torch: the graph as a module, fine-tuned, its values written back."""
