"""Where models come from. So far: a file on this disk (localfile.py)."""
