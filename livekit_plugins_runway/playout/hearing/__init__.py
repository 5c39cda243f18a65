"""What is heard of the avatar: spectra, where in the speech it is, whose words they are. Pure."""
