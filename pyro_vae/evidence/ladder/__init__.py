"""The methods of `estimate`, from cheap to dear, climbed by each datapoint as far as it needs. Internal."""
