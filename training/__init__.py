"""Training: teacher labels, rendered data, fine-tuning, and the built-in model made from scratch."""
