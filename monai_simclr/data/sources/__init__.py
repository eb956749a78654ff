"""One file a publisher: its tables or headers to an image index, and never a pixel."""
