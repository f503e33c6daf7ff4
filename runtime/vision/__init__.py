"""Segmentation and detection: images with masks and boxes in the usual folders, mean IoU, mean average precision."""
