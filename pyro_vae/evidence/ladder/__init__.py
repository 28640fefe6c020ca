"""The methods of `estimate`, from cheap to expensive; each datapoint gets as many as it needs. Internal."""
