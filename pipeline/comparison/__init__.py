"""Methods beside one another on one model: equal data, equal budget, equal fine-tuning, one finished row at a time."""
