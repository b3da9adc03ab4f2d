"""The networks and their decoding in torch: for training, export and GPU inference."""
