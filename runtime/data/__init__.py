"""Data: what users give, images, synthetic images, random inputs."""
