"""Frozen vision transformers: DINOv2, DINOv3 and ViT by name, as feature maps of images of any size."""
