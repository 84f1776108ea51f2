"""Formats whose converters read PyTorch programs: traced here, converted in another Python environment."""
