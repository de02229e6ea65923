"""Other packages' faces over lmx."""
