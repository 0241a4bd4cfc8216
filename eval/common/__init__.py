"""What every evaluation needs: devices, images, run folders, pictures."""
