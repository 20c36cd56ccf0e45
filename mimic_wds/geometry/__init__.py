"""How two views relate: patches, SIFT features, homography, overlap. numpy and OpenCV only."""
