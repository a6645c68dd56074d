"""Running cameras: webcams by OpenCV, depth cameras through the SDKs of their makers, all behind one interface."""
