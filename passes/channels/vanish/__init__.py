"""Groups that go entirely: which may, and what becomes of the graph around them."""
