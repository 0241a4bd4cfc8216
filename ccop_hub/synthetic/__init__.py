"""Draws synthetic images of textured shapes, in memory."""
