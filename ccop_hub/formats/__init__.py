"""Recognise, safely read, rename and convert weights files."""
