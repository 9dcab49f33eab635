"""From a bundle to predictions: the predictor, and the UDF around it."""
