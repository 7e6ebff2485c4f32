"""What instruments measure: forward models from images and parameters to data."""
