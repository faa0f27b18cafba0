"""Learn the 6-DoF pose of an aircraft from noisy projections of its keypoints."""
