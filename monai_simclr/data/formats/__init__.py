"""One file a format: DICOM, pictures (PNG, JPEG, TIFF) and NIfTI, each to a canonical image."""
