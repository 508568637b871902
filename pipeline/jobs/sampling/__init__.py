"""`vqtok sample`: a data set of real photographs, without a download."""
