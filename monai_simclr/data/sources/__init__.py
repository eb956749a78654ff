"""One module per publisher or kind of archive: its tables or headers to an image index; pixels are not read."""
