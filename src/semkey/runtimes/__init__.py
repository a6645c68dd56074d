"""Other programs that compute the network: onnxruntime and OpenVINO; keypoints are chosen from its maps as ever."""
